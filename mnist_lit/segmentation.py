"""Which pieces of ink make a digit together: what costs least, as the classifier reads them."""

import math
from collections.abc import Iterator, Sequence

from mnist_lit.pictures import Found, Place
from mnist_lit.reading import Digit

SURE = 0.95  # how probable a digit is that needs no second look, and no cut
# Between digits there is paper, within them there is none, and all ink is some digit's. For each
# exception, what is read must be so much more probable, as a logarithm.
EXCEPTION = 0.8


def doubtful(found: Found, read: Sequence[Digit]) -> list[int]:
    """The places among a picture's digits of those that may be two, the least sure first."""
    numbers = [
        n for n, digit in enumerate(found.digits) if digit.may_be_two and read[n].confidence < SURE
    ]
    return sorted(numbers, key=lambda n: read[n].confidence)


def _cost(digits: Sequence[Digit]) -> float:
    """How improbable digits are together."""
    return -sum(math.log(digit.confidence) for digit in digits)


def cost_of_cut(digits: Sequence[Digit]) -> float:
    """The same of digits that touch, or of a single one."""
    return _cost(digits) + EXCEPTION * (len(digits) - 1)


def likeliest(place: Place, read: Iterator[list[Digit]]) -> list[Digit]:
    """The way to take a place's ink that costs least.

    Args:
        place: its segmentation graph.
        read: what its arcs are, in their order; as many are taken.
    """
    paths: dict[int, tuple[float, list[Digit]]] = {0: (0.0, [])}
    for arc in place:  # in the order of their starts, so a path is complete before it goes on
        digits = next(read) if arc.digit else []
        cost, before = paths[arc.start]
        cost += _cost(digits) + EXCEPTION * (arc.end - arc.start - 1 + (not digits))
        if arc.end not in paths or cost < paths[arc.end][0]:
            paths[arc.end] = cost, [*before, *digits]
    return paths[place[-1].end][1]

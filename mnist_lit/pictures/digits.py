"""From strokes to digits: what may be one, what may be two that touch, and in which order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import combinations
from typing import TypeAlias

import cv2
import numpy as np

from mnist_lit.pictures.arrays import Array, Box, quantile, reduced
from mnist_lit.pictures.ink import Components, Ink
from mnist_lit.pictures.pieces import MOST_STROKES, SMALLEST, is_one_digit_at_most
from mnist_lit.pictures.preparation import FIT, prepare
from mnist_lit.pictures.sheet import Sheet

FAINTEST = 0.4  # ink, as a share of what most of the same digit's ink has
CUT_FROM = 0.6  # width over height; what is wider may be two digits
CUT_SLANTS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # columns a row
CUTS_A_SLANT = 2
CUT_MARGIN = 0.2  # of the width, where no digit would be left
SPECK = 0.1  # of a half's ink; what is less and apart is the other half's
MAX_SIZE_TO_CUT = 100  # pixels along the longest side; cuts take no more


@dataclass(frozen=True)
class FoundDigit:
    """A digit as the network is to see it.

    Attributes:
        image: ``(1, 28, 28)`` float32 in [0, 1], ink 1, paper 0.
        box: where it is, in pixels of the picture as seen (EXIF orientation applied).
        ink: what the image was made of, ``(H, W)`` float32 in [0, 1].
        frame: where that is, in pixels of the picture as seen.
    """

    image: Array
    box: Box
    ink: Array
    frame: Box

    @property
    def may_be_two(self) -> bool:
        """Whether it is wide enough for two that touch."""
        height, width = self.ink.shape
        return bool(width >= CUT_FROM * height)


@dataclass(frozen=True)
class Arc:
    """Some of the pieces of ink at a place, taken for one digit.

    Attributes:
        start: the first of them, counted from the left.
        end: the first one that is not among them.
        digit: what they are together; None: too little to be read.
    """

    start: int
    end: int
    digit: FoundDigit | None


Place: TypeAlias = tuple[Arc, ...]
"""A segmentation graph: which pieces of ink make a digit together, shape alone does not tell. Each
path of arcs from piece 0 to the last one is a way to read all of them."""


@dataclass(frozen=True)
class Found:
    """What a picture has of digits.

    Attributes:
        places: where there are some, in any order.
        complete: whether all ink was searched; else only the largest pieces of it were.
        sheet: what was searched; None: nothing in it may be a digit.
        note: which other pages of the file are left out; "" for none.
    """

    places: list[Place]
    complete: bool = True
    sheet: Sheet | None = None
    note: str = ""

    @cached_property
    def digits(self) -> list[FoundDigit]:
        """All that may be one, in the order of places and arcs."""
        return [arc.digit for place in self.places for arc in place if arc.digit]


def ways_to_read(
    ink: Ink, usual: float, whole: float, strength: Array, noise: Array, shrunk: float
) -> Place:
    """The ways to take what is written at one place."""
    arcs = []
    for start, end in combinations(range(len(ink.parts) + 1), 2):
        if end - start > MOST_STROKES:
            continue
        one = reduce(Ink.union, ink.parts[start:end])
        several = end - start > 1
        if several and not is_one_digit_at_most(one, whole):
            continue
        digit = None
        if one.height > SMALLEST * usual:
            crop, frame = _cut_out(one, strength, noise)
            digit = _digit(crop, one.box, frame, shrunk)
        if digit or not several:
            arcs.append(Arc(start, end, digit))
    return tuple(arcs)


def _cut_out(digit: Ink, strength: Array, noise: Array) -> tuple[Array, Box]:
    """A digit's ink in [0, 1] with a margin, and where it is."""
    area, mine = digit.around(2 + digit.size // 20)
    crop = strength[area]
    full = max(quantile(crop[mine > 0], 0.85), 1e-6)
    floor = np.minimum(2 * noise[area], 0.3 * full)
    peak: Array | float = full
    if digit.size > 2 * FIT:  # the edges of smaller ones are faint as they should be
        # What is thin is also faint in a blurred picture: ink is what is dark for its surroundings.
        reach = 1 + digit.size // 12
        peak = cv2.dilate(crop, np.ones((2 * reach + 1, 2 * reach + 1)))
        peak = np.clip(cv2.blur(peak, (2 * reach + 1, 2 * reach + 1)), FAINTEST * full, full)
    ink = np.clip((crop - floor) / (peak - floor), 0, 1)
    reach = 1 + digit.size // 40
    near = cv2.dilate(mine, np.ones((2 * reach + 1, 2 * reach + 1)))
    rows, columns = area
    left, top = columns.start, rows.start
    frame = left, top, left + crop.shape[1], top + crop.shape[0]
    return np.where(near > 0, ink, 0).astype(np.float32), frame


def _digit(ink: Array, box: Box, frame: Box, shrunk: float) -> FoundDigit | None:
    """Prepare ink; boxes are in pixels of what is searched."""
    image = prepare(ink, box)
    if image is None:
        return None
    kept = reduced(ink, MAX_SIZE_TO_CUT, cv2.INTER_AREA)
    return FoundDigit(image, _grow(box, shrunk), kept, _grow(frame, shrunk))


def _grow(box: Box, factor: float) -> Box:
    """A box in pixels of the whole picture."""
    left, top, right, bottom = (round(edge * factor) for edge in box)
    return left, top, right, bottom


def halves(digit: FoundDigit) -> list[tuple[FoundDigit, FoundDigit]]:
    """The ways to cut in two what may be two digits that touch.

    Cuts are straight, upright or aslant, where there is least ink in their way.
    """
    if not digit.may_be_two:
        return []
    height, width = digit.ink.shape
    rows, columns = np.indices(digit.ink.shape)
    ways = []
    for slant in CUT_SLANTS:
        across = columns + slant * (rows - height / 2)
        bins = np.clip(across, 0, width - 1).astype(int)
        profile = np.bincount(bins.ravel(), digit.ink.ravel(), minlength=width)
        for cut in _valleys(profile):
            sides = (across < cut), (across >= cut)
            left, right = (_half(digit, np.where(side, digit.ink, 0)) for side in sides)
            if left and right:
                ways.append((left, right))
    return ways


def _valleys(profile: Array) -> list[int]:
    """Where there is least, and where there is least apart from there; not near the ends."""
    margin = max(1, round(CUT_MARGIN * len(profile)))
    inner = profile[margin:-margin].astype(float)
    valleys: list[int] = []
    while len(valleys) < CUTS_A_SLANT and np.isfinite(inner).any():
        valley = int(np.argmin(inner))
        valleys.append(margin + valley)
        inner[max(0, valley - margin // 2) : valley + margin // 2 + 1] = np.inf
    return valleys


def _half(digit: FoundDigit, ink: Array) -> FoundDigit | None:
    pieces = Components.of(ink > 0.5)
    specks = np.flatnonzero(pieces.areas[1:] < SPECK * pieces.areas[1:].sum()) + 1
    ink = np.where(np.isin(pieces.labels, specks), 0, ink).astype(np.float32)
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis=axis)) for axis in (1, 0))
    if len(rows) < 5:
        return None
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    image = prepare(ink, box)
    if image is None:
        return None
    left, top, right, _ = digit.frame
    scale = (right - left) / ink.shape[1]
    corner = left, top, left, top
    whole = tuple(round(start + edge * scale) for start, edge in zip(corner, box, strict=True))
    return replace(digit, image=image, box=whole, ink=ink)


def lines(boxes: Sequence[Box]) -> list[list[int]]:
    """Which digits stand in a line, lines from top to bottom, each from left to right.

    Their middles tell the order. A digit stands in the line whose last digit is most beside it, so
    lines may slope.
    """

    def shared(line: list[int], box: Box) -> float:
        _, top, _, bottom = boxes[line[-1]]
        overlap = min(bottom, box[3]) - max(top, box[1])
        return overlap / min(bottom - top, box[3] - box[1])

    found: list[list[int]] = []
    for index in sorted(range(len(boxes)), key=lambda index: sum(boxes[index][::2])):
        box = boxes[index]
        line = max(found, key=lambda line: shared(line, box), default=None)
        if line is None or shared(line, box) < 0.2:
            found.append([index])
        else:
            line.append(index)
    return sorted(found, key=lambda line: np.mean([boxes[index][1::2] for index in line]))

"""What a trained finder sees in a picture: `Eye`."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mnist_lit.checkpoints import load_checkpoint, network_state
from mnist_lit.errors import UserError
from mnist_lit.finder.network import NUM_DIGITS, STRIDE, USUAL, Finder
from mnist_lit.pictures.arrays import extent, scaled

PACKAGED = Path(__file__).parents[1] / "weights" / "finder.pt"
MOST_PIXELS = 1_000_000.0  # that are looked at in all, as the network sees them: 1.4 s of a core
AT_ONCE = 400_000  # of them, because of the memory that they take
BEYOND = 64  # pixels beyond a band that are looked at with it; what is further hardly counts
OTHERS = (1.8, 1 / 1.8)  # what digits may be as large as, compared with the likeliest size
ABOUT = 0.16  # logarithm of the ratio of two sizes that make no difference
SURE = 0.5  # how probable a digit is that is no doubt there
LEAST_INK = 16  # of 255; what is fainter, all around, is not looked at
FAINTEST = 0.1  # how probable a digit is that is seen at all
MARGIN = 12  # pixels of paper around what is looked at
TWICE = 0.5  # of two boxes' union, what they share at most
CLEAR = 0.35  # how probable a digit is whose size tells in which size to look
FITTING = 0.5  # logarithm of the ratio of two sizes that are far apart
MOST_SEEN = 2000  # digits of a picture


@dataclass(frozen=True)
class Seen:
    """Digits, as the finder sees them, the clearest first.

    Attributes:
        boxes: left, top, right, bottom in pixels of what was looked at, ``(N, 4)``.
        probs: how probable it is that each digit is there, each by itself, ``(N, 10)``.
    """

    boxes: Tensor
    probs: Tensor

    def __getitem__(self, chosen: Tensor) -> "Seen":
        return Seen(self.boxes[chosen], self.probs[chosen])

    @property
    def sizes(self) -> Tensor:
        """The longer sides, in pixels, ``(N,)``."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).amax(dim=1)


class Eye:
    """A finder that is only asked, never trained.

    Args:
        network: trained.
    """

    def __init__(self, network: nn.Module) -> None:
        network = deepcopy(network).eval().requires_grad_(False)
        _fuse(network)
        self.network = network.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a finder from a checkpoint.

        Raises:
            UserError: it cannot be read, or holds something else.
        """
        checkpoint = load_checkpoint(path)
        try:
            network = Finder(checkpoint["hyper_parameters"]["width"])
            network.load_state_dict(network_state(checkpoint))
        except (KeyError, RuntimeError, TypeError) as error:
            raise UserError(f"{path} holds no finder") from error
        return cls(network)

    @classmethod
    @cache
    def packaged(cls) -> Self:
        """The finder that comes with the package."""
        return cls.load(PACKAGED)

    def look(self, ink: NDArray[np.uint8], sizes: Sequence[float]) -> Seen | None:
        """Look for digits.

        Args:
            ink: ``(H, W)`` uint8, paper 0.
            sizes: what the longest side of most digits may be, in pixels; the likeliest first.

        Returns:
            What is seen with the size at which it is seen best, wherever that leads from the ones
            that were given; None if that would take too long.
        """
        x, y, right, bottom = extent(ink > LEAST_INK)
        part = ink[y:bottom, x:right] if x < right else ink
        best: Seen | None = None
        most, left = -1.0, MOST_PIXELS
        tried: list[float] = []
        waiting = [*sizes, *(sizes[0] * factor for factor in OTHERS)]
        while waiting:
            size = waiting.pop(0)
            pixels = part.size * (USUAL / size) ** 2
            if pixels > left or any(_is_about(size, other) for other in tried):
                continue
            tried.append(size)
            left -= pixels
            seen = self._at(part, size)
            clear = seen[seen.probs.amax(dim=1) > CLEAR]
            probs, ratios = clear.probs.amax(dim=1), clear.sizes / size
            # What is seen in another size than is best for it, is seen better by that.
            clearness = float(((probs - CLEAR) * (-((ratios.log() / FITTING) ** 2)).exp()).sum())
            if clearness > most:
                best, most = seen, clearness
            if len(probs):
                usual = float(clear.sizes.median())
                if _is_about(usual, size) and float(probs.min()) > SURE:
                    break
                waiting.insert(0, usual)
        return None if best is None else Seen(best.boxes + torch.tensor([x, y, x, y]), best.probs)

    def _at(self, ink: NDArray[np.uint8], size: float) -> Seen:
        """What is seen if digits are so large."""
        scale = USUAL / size
        small = scaled(ink, scale, cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        height, width = small.shape
        below, right = (MARGIN + -(side + 2 * MARGIN) % 4 for side in (height, width))
        framed = cv2.copyMakeBorder(small, MARGIN, below, MARGIN, right, cv2.BORDER_CONSTANT)
        answer = self._ask(torch.from_numpy(framed)[None, None] / 255)
        across, down = ink.shape[1] / width, ink.shape[0] / height
        return _without_twice(_peaks(answer, across, down))

    def _ask(self, ink: Tensor) -> Tensor:
        """The network's answer to a sheet, ``(12, H / 2, W / 2)``; of a large one, by bands."""
        height, width = ink.shape[2:]
        band = max(4 * BEYOND, AT_ONCE // width // 4 * 4)
        answers = []
        for top in range(0, height, band):
            start, end = max(0, top - BEYOND), min(height, top + band + BEYOND)
            with torch.no_grad():
                (answer,) = self.network(ink[:, :, start:end])
            first, last = (top - start) // STRIDE, (min(height, top + band) - start) // STRIDE
            answers.append(answer[:, first:last])
        return torch.cat(answers, dim=1)


def _is_about(size: float, other: float) -> bool:
    return abs(math.log(size / other)) < ABOUT


def _peaks(answer: Tensor, across: float, down: float) -> Seen:
    """Where the maps have their peaks; pixels are as many times as large, across and down."""
    probs = answer[:NUM_DIGITS].sigmoid()
    highest = probs.amax(dim=0)
    around = F.max_pool2d(highest[None], 3, 1, 1)[0]
    rows, columns = ((highest == around) & (highest > FAINTEST)).nonzero(as_tuple=True)
    order = highest[rows, columns].argsort(descending=True, stable=True)[:MOST_SEEN]
    rows, columns = rows[order], columns[order]
    sides = answer[NUM_DIGITS:, rows, columns].clamp(-2, 2).exp() * USUAL
    middles = STRIDE * (torch.stack([columns, rows]) + 0.5) - MARGIN
    edges = torch.cat([middles - sides / 2, middles + sides / 2]).T
    boxes = edges * torch.tensor([across, down, across, down])
    return Seen(boxes, probs[:, rows, columns].T)


def _without_twice(seen: Seen) -> Seen:
    """Leave out what a clearer one takes the place of."""
    return seen[firsts(shared(seen.boxes, seen.boxes) >= TWICE)]


def firsts(alike: Tensor) -> Tensor:
    """Which of some are like none before them, of those that are kept, ``(N,)``.

    Args:
        alike: whether they are, each with each, ``(N, N)``.
    """
    is_free = torch.ones(len(alike), dtype=torch.bool)
    for number, same in enumerate(alike):
        if is_free[number]:
            is_free[number + 1 :] &= ~same[number + 1 :]
    return is_free


def shared(some: Tensor, others: Tensor, beyond: float = 1.0) -> Tensor:
    """What boxes share, as a part of their union.

    Args:
        some: ``(N, 4)``.
        others: ``(M, 4)``.
        beyond: how much in that union counts what some have beyond the others.

    Returns:
        Of each with each, ``(N, M)``.

    Source: Tversky, "Features of similarity" (1977), where it is the ratio model.
    """
    both = _common(some, others)
    return both / (_areas(others) + beyond * (_areas(some)[:, None] - both)).clamp(min=1e-6)


def within(boxes: Tensor) -> Tensor:
    """What of the smaller one of two boxes lies in the other.

    Args:
        boxes: ``(N, 4)``.

    Returns:
        Of each with each, ``(N, N)``.
    """
    areas = _areas(boxes)
    return _common(boxes, boxes) / torch.minimum(areas[:, None], areas).clamp(min=1e-6)


def _common(some: Tensor, others: Tensor) -> Tensor:
    first = torch.maximum(some[:, None, :2], others[:, :2])
    last = torch.minimum(some[:, None, 2:], others[:, 2:])
    return (last - first).clamp(min=0).prod(dim=2)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def _fuse(module: nn.Module) -> None:
    """Make each convolution and the normalisation that follows it one; it is faster."""
    for name, child in module.named_children():
        first, last = (child[0], child[-1]) if isinstance(child, nn.Sequential) else (None, None)
        if isinstance(first, nn.Conv2d) and isinstance(last, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(first, last))
        else:
            _fuse(child)

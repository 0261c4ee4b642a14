"""Ink, told from paper, in the connected pieces of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_lit.pictures.arrays import Array, Box, Mask, quantile
from mnist_lit.pictures.paper import LEAST_CONTRAST

MAX_PIECES = 2000  # the largest ones; a picture with more is no writing
MANY_PIECES = 500  # of more than this, small ones are the paper's grain
SPECK = 5  # pixels, in all and along the longest side; what has fewer is no stroke
GRAIN = 0.25  # size of the largest, as a share of the usual piece's


@dataclass(frozen=True)
class Components:
    """Connected ink.

    Attributes:
        labels: ``(H, W)`` int32, the number of the component that each pixel belongs to.
        boxes: of each number, ``(N, 4)``.
        areas: how many pixels each has, ``(N,)``; 0 for what is no ink.
        paper: where there is neither ink nor a printed line, ``(H, W)``.
    """

    labels: Array
    boxes: Array
    areas: Array
    paper: Mask

    @classmethod
    def of(cls, mask: Mask) -> "Components":
        # connectedComponentsWithStats takes ten times as long: it looks at the paper as well.
        count, labels = cv2.connectedComponents(mask.view(np.uint8))
        rows, columns = np.nonzero(mask)
        numbers: NDArray[np.int32] = labels[rows, columns].astype(np.int32, copy=False)
        boxes = np.zeros((count, 4), int)
        boxes[:, :2] = max(mask.shape)
        for axis, places in enumerate((columns, rows)):
            np.minimum.at(boxes[:, axis], numbers, places)
            np.maximum.at(boxes[:, axis + 2], numbers, places + 1)
        paper = cv2.erode((~mask).view(np.uint8), np.ones((3, 3))).view(bool)
        return cls(labels, boxes, np.bincount(numbers, minlength=count), paper)

    def only(self, mask: Mask) -> "Components":
        """What of this is in a mask; no more of it becomes paper."""
        return replace(Components.of(mask), paper=self.paper)

    @property
    def mask(self) -> Mask:
        """Where there is ink, ``(H, W)``."""
        return np.asarray((self.areas > 0)[self.labels])

    @property
    def largest_areas(self) -> NDArray[np.int64]:
        """Of the components that are searched at all, the largest first."""
        return np.sort(self.areas)[::-1][:MAX_PIECES]

    @property
    def largest_size(self) -> float:
        """The longest side of the component with most ink, in pixels."""
        left, top, right, bottom = self.boxes[self.areas.argmax()]
        return float(max(right - left, bottom - top))

    @property
    def are_few(self) -> bool:
        """Whether all that are no specks are searched."""
        return int((self.areas >= SPECK).sum()) <= MAX_PIECES


def find_ink(strength: Array, noise: Array) -> Components:
    """Tell ink from paper: what cannot be noise, and what is connected to it."""
    sure = np.maximum(LEAST_CONTRAST, 5 * noise)
    candidates = strength[strength > sure]
    if not len(candidates):
        return Components.of(np.zeros(strength.shape, bool))
    strongest = quantile(candidates, 0.95)
    sure = np.maximum(sure, 0.5 * strongest)
    ink = Components.of(strength > np.maximum(max(0.05, 0.3 * strongest), 3 * noise))
    is_ink = np.zeros(len(ink.areas), bool)
    is_ink[ink.labels[strength > sure]] = True
    ink.areas[~is_ink] = 0
    return ink


@dataclass(frozen=True)
class Ink:
    """Connected ink, or several pieces of it that belong together.

    Attributes:
        box: around it, in pixels of what is searched.
        area: how many pixels it has.
        labels: ``(H, W)`` int32, the number of the piece that each pixel belongs to.
        numbers: the pieces' numbers.
        parts: what may also be digits of their own, from left to right; empty: it has none.
    """

    box: Box
    area: int
    labels: Array
    numbers: frozenset[int]
    parts: tuple["Ink", ...] = ()

    @property
    def width(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]

    @property
    def size(self) -> int:
        return max(self.width, self.height)

    def around(self, margin: int, step: int = 1) -> tuple[tuple[slice, slice], Array]:
        """Its place with a margin, and in it, what is its own ink, uint8.

        Args:
            margin: in pixels.
            step: take each `step`-th row and column only.
        """
        left, top, right, bottom = self.box
        rows = slice(max(0, top - margin), bottom + margin, step)
        columns = slice(max(0, left - margin), right + margin, step)
        labels = self.labels[rows, columns]
        mine = np.zeros(labels.shape, bool)
        for number in self.numbers:
            mine |= labels == number
        return (rows, columns), mine.view(np.uint8)

    def frames_any(self, inside: Sequence["Ink"]) -> bool:
        """Whether this is drawn around one within its box: a frame, a table, a ring."""
        return any(self._frames(other) for other in inside)

    def _frames(self, other: "Ink") -> bool:
        if other.height <= 0.25 * self.height:
            return False
        left, top, right, bottom = other.box
        x, y = (left + right) // 2, (top + bottom) // 2
        sides = self.labels[y, :x], self.labels[y, x:], self.labels[:y, x], self.labels[y:, x]
        return all(np.isin(side, list(self.numbers)).any() for side in sides)

    def union(self, other: "Ink") -> "Ink":
        """Both together, without parts."""
        box = (
            min(self.box[0], other.box[0]),
            min(self.box[1], other.box[1]),
            max(self.box[2], other.box[2]),
            max(self.box[3], other.box[3]),
        )
        return Ink(box, self.area + other.area, self.labels, self.numbers | other.numbers)


def largest_pieces(ink: Components) -> list[Ink]:
    """All connected ink but specks, from the largest on."""
    pieces: list[Ink] = []
    least = float(SPECK)
    for rank, number in enumerate(np.argsort(-ink.areas)[:MAX_PIECES].tolist()):
        if rank == MANY_PIECES:
            least = max(least, GRAIN * usual_size(pieces))
        box, area = tuple(ink.boxes[number].tolist()), int(ink.areas[number])
        piece = Ink(box, area, ink.labels, frozenset([number]))
        if piece.size >= least and area >= SPECK:
            pieces.append(piece)
    return pieces


def boxes_of(pieces: Sequence[Ink]) -> Array:
    """``(N, 4)``."""
    return np.array([piece.box for piece in pieces], np.int32).reshape(-1, 4)


def with_insides(pieces: list[Ink]) -> list[tuple[Ink, list[Ink]]]:
    """Each piece, and those that lie within its box."""
    left, top, right, bottom = boxes_of(pieces).T
    inside: Mask = (left[:, None] < left) & (right < right[:, None])
    inside &= (top[:, None] < top) & (bottom < bottom[:, None])
    return [
        (piece, [pieces[other] for other in np.flatnonzero(row)])
        for piece, row in zip(pieces, inside, strict=True)
    ]


def usual_size(pieces: Sequence[Ink]) -> float:
    """The longest side of the piece up to which, from low to high ones, half of all height is."""
    by_height = sorted(pieces, key=lambda piece: piece.height)
    total = np.cumsum([piece.height for piece in by_height])
    return by_height[np.searchsorted(total, total[-1] / 2)].size if pieces else 0.0

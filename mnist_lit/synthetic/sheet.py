"""`Sheet`: ink and the boxes of the characters in it."""

from dataclasses import dataclass, field

import numpy as np

from mnist_lit.models.characters import NUM_DIGITS
from mnist_lit.reading.arrays import Array

HEIGHT, WIDTH = 96, 192  # of a sheet, in pixels
FAINT = 0.2  # ink that is hardly seen
MIN_VISIBLE = 0.7  # share of a box from which on its character counts as visible, ...
MAX_HIDDEN = 0.3  # ... and up to which it counts as not there
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the sheet."""


@dataclass
class Sheet:
    """A drawing and its ground truth.

    Attributes:
        ink: ``(HEIGHT, WIDTH)`` float32 in [0, 1], paper 0.
        characters: class and box of each digit, letter and sign.
        ignored: boxes in which the loss is not computed: half visible or ambiguous characters.
    """

    ink: Array = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH), np.float32))
    characters: list[tuple[int, Box]] = field(default_factory=list)
    ignored: list[Box] = field(default_factory=list)

    @property
    def digits(self) -> list[tuple[int, Box]]:
        """The digits among the characters."""
        return [(label, box) for label, box in self.characters if label < NUM_DIGITS]

    def put(self, ink: Array, left: float, top: float, label: int = -1) -> Box:
        """Draw ink; record its box if it has a class. Return the box."""
        height, width = ink.shape
        x, y = round(left), round(top)
        x0, y0, x1, y1 = max(0, x), max(0, y), min(WIDTH, x + width), min(HEIGHT, y + height)
        if x0 < x1 and y0 < y1:
            here = self.ink[y0:y1, x0:x1]
            np.maximum(here, ink[y0 - y : y1 - y, x0 - x : x1 - x], out=here)
        box = x, y, x + width, y + height
        if label >= 0:
            self.characters.append((label, box))
        return box

    def is_free(self, left: float, top: float, width: float, height: float) -> bool:
        """Tell whether a part of the sheet has no ink."""
        rows = slice(max(0, int(top)), max(0, int(top + height)))
        part = self.ink[rows, max(0, int(left)) : max(0, int(left + width))]
        return part.size > 0 and float(part.max()) < 0.1

    def crop(self, left: int, top: int, right: int, bottom: int) -> None:
        """Erase the ink outside a box; the sheet keeps its size."""
        kept = np.zeros_like(self.ink)
        kept[top:bottom, left:right] = self.ink[top:bottom, left:right]
        self.ink = kept
        characters = []
        for label, (x0, y0, x1, y1) in self.characters:
            box = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)
            area = max(0, box[2] - box[0]) * max(0, box[3] - box[1])
            visible = area / ((x1 - x0) * (y1 - y0))
            if visible >= MIN_VISIBLE:
                characters.append((label, box))
            elif visible > MAX_HIDDEN and label < NUM_DIGITS:
                self.ignored.append(box)
        self.characters = characters


def touching_x(left: Array, x: float, top: float, right: Array, right_top: float) -> float:
    """Compute the leftmost column for a shape at which it touches another one without overlap.

    Args:
        left: ink of the other shape, ``(H, W)``.
        x: left edge of the other shape, in pixels of the sheet.
        top: its upper edge.
        right: ink of the shape.
        right_top: its upper edge.

    Returns:
        The column; if no row has ink of both, the right edge of the other shape.
    """
    down = round(right_top) - round(top)
    start = max(0, down)
    end = max(start, min(len(left), down + len(right)))
    ink, other = left[start:end] > FAINT, right[start - down : end - down] > FAINT
    both = ink.any(axis=1) & other.any(axis=1)
    if not both.any():
        return float(x + left.shape[1])
    free = np.argmax(ink[:, ::-1], axis=1) + np.argmax(other, axis=1)
    return float(x + left.shape[1] - free[both].min())

"""`Page`: ink, and which digits are where in it; and what touches what."""

from dataclasses import dataclass, field

import numpy as np

from mnist_lit.pictures.arrays import Array

HEIGHT, WIDTH = 96, 192  # of a page, in pixels
FAINT = 0.2  # ink that is hardly seen
SEEN, UNSEEN = 0.7, 0.3  # of a digit's box: from so much on it is one, up to so much it is none


@dataclass
class Page:
    """What is drawn.

    Attributes:
        ink: ``(HEIGHT, WIDTH)`` float32 in [0, 1], paper 0.
        digits: of each, which, and its box: left, top, right, bottom in pixels.
        unclear: boxes of what may be called a digit or not.
    """

    ink: Array = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH), np.float32))
    digits: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    unclear: list[tuple[float, float, float, float]] = field(default_factory=list)

    def put(self, ink: Array, left: float, top: float, label: int = -1) -> None:
        """Put a shape on the page, a digit if it has a label."""
        height, width = ink.shape
        x, y = round(left), round(top)
        x0, y0, x1, y1 = max(0, x), max(0, y), min(WIDTH, x + width), min(HEIGHT, y + height)
        if x0 < x1 and y0 < y1:
            here = self.ink[y0:y1, x0:x1]
            np.maximum(here, ink[y0 - y : y1 - y, x0 - x : x1 - x], out=here)
        if label >= 0:
            self.digits.append((label, x, y, x + width, y + height))

    def is_free(self, left: float, top: float, width: float, height: float) -> bool:
        rows = slice(max(0, int(top)), max(0, int(top + height)))
        part = self.ink[rows, max(0, int(left)) : max(0, int(left + width))]
        return part.size > 0 and float(part.max()) < 0.1

    def cut(self, left: int, top: int, right: int, bottom: int) -> None:
        """Keep a part of the page; beyond it there is nothing."""
        kept = np.zeros_like(self.ink)
        kept[top:bottom, left:right] = self.ink[top:bottom, left:right]
        self.ink = kept
        digits = []
        for label, x0, y0, x1, y1 in self.digits:
            box = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)
            seen = max(0, box[2] - box[0]) * max(0, box[3] - box[1]) / ((x1 - x0) * (y1 - y0))
            if seen >= SEEN:
                digits.append((label, *box))
            elif seen > UNSEEN:
                self.unclear.append(box)
        self.digits = digits


def where_they_touch(left: Array, x: float, top: float, right: Array, right_top: float) -> float:
    """Where a shape has to begin that is to touch another one, on its right.

    Args:
        left: the other one's ink, ``(H, W)``.
        x: where that begins, ...
        top: ... and its upper edge; both in pixels of the page.
        right: the shape's ink.
        right_top: its upper edge.

    Returns:
        The column from which on no ink of both is in one place, but would be if it began sooner;
        where no row has ink of both, the other one's end.
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

"""`Page`: ink, and which digits are where in it."""

from dataclasses import dataclass, field

import numpy as np

from mnist_lit.pictures.arrays import Array

HEIGHT, WIDTH = 96, 192  # of a page, in pixels
SEEN, UNSEEN = 0.75, 0.3  # of a digit's box: from so much on it is one, up to so much it is none


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

"""A picture's ink, freed of paper: what a network looks at, and can have digits cut out of."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mnist_lit.pictures.arrays import Array, Box, quantile, with_margin
from mnist_lit.pictures.paper import LEAST_CONTRAST
from mnist_lit.pictures.preparation import FRAME, prepare

FULL = 0.85  # share of ink that is as strong as the usual one, or less


@dataclass(frozen=True)
class Sheet:
    """Ink as the finder is to see it.

    Attributes:
        ink: ``(H, W)`` uint8, paper 0, most of the ink near 255.
        sizes: what the longest side of most digits may be, in its pixels; the likeliest first.
        shrunk: how many pixels of the picture one of these stands for.
        is_canvas: whether the paper is of one colour, without any noise.
    """

    ink: NDArray[np.uint8]
    sizes: tuple[float, ...]
    shrunk: float
    is_canvas: bool

    @classmethod
    def of(cls, strength: Array, noise: Array, sizes: tuple[float, ...], shrunk: float) -> Self:
        """Make ink of how far from paper each pixel is.

        Args:
            strength: that, ``(H, W)`` from 0 on.
            noise: of that, what is no ink, ``(H, W)``.
            sizes: as in the sheet.
            shrunk: as in the sheet.
        """
        clean = np.maximum(strength - 2 * noise, 0)
        inked = clean[strength > np.maximum(5 * noise, LEAST_CONTRAST)]
        full = quantile(inked, FULL) if len(inked) else 1.0
        ink = np.clip(clean * (255 / full), 0, 255).astype(np.uint8)
        return cls(ink, sizes, shrunk, not noise.any())

    def cut_out(self, box: Box) -> Array:
        """What is in a box, prepared as a digit, ``(1, 28, 28)``.

        Args:
            box: in pixels of the picture.
        """
        height, width = self.ink.shape
        left, top, right, bottom = (round(edge / self.shrunk) for edge in box)
        left, top = min(max(0, left), width - 1), min(max(0, top), height - 1)
        right, bottom = max(left + 1, min(right, width)), max(top + 1, min(bottom, height))
        margin = 2 + max(right - left, bottom - top) // 20
        cut = self.ink[top:bottom, left:right].astype(np.float32) / 255
        framed = with_margin(cut, margin)
        around = margin, margin, margin + right - left, margin + bottom - top
        image = prepare(framed, around)
        return np.zeros((1, FRAME, FRAME), np.float32) if image is None else image

"""What is drawn on pages: MNIST's digits and printed glyphs, as distances from their strokes.

What a pen makes of a shape is whatever is near enough to its strokes: a wide pen goes further.
"""

import string
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mnist_lit.pictures.arrays import Array, Mask, extent, scaled

SIZE = 40  # pixels of a shape's longest side ...
MARGIN = 6  # ... and of paper around it
FRAME = SIZE + 2 * MARGIN
STEPS = 16  # of a pixel, in which distances are kept, ...
ZERO = 96  # ... and what is kept of none: less is within a stroke
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
    "cmti10",
    "cmtt10",
)  # matplotlib's own
PEN_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)  # drawn by a pen, the last two as if by hand
# Letters that nobody takes for a digit, even alone.
UNLIKE_DIGITS = "".join(sorted(set(string.ascii_letters) - set("BbDgGIiJjlOoQqSsTtYyZz")))
MARKS = "-+=/\\()[]{},.:;*#%&!?<>~'\"$@"
CURSIVE = {ord(c): 0x1D4D0 + at for at, c in enumerate(string.ascii_uppercase)}
CURSIVE |= {ord(c): 0x1D4EA + at for at, c in enumerate(string.ascii_lowercase)}


class Shapes:
    """Shapes of a kind, each made when it is first asked for.

    Args:
        inked: of each, by its number, the ink, ``(FRAME, FRAME)``.
        labels: ``(N,)``, which digit each is; -1: none.
        by_pen: whether only the middle of the strokes is kept, for a pen of any width to draw
            them; else their edges.
    """

    def __init__(
        self, inked: Callable[[int], Mask], labels: NDArray[np.int64], by_pen: bool
    ) -> None:
        self.labels, self.by_pen = labels, by_pen
        self._inked = inked
        self._fields: dict[int, NDArray[np.uint8]] = {}

    def field(self, index: int) -> NDArray[np.uint8]:
        """How far everything is from a shape's strokes.

        Returns:
            ``(FRAME, FRAME)`` uint8, as `STEPS` and `ZERO` say.
        """
        if index not in self._fields:
            ink = self._inked(index)
            middles = thinned(ink) if self.by_pen else ink
            has_middles = self.by_pen and middles.any()  # of a dot, nothing is left
            self._fields[index] = _from_middles(middles) if has_middles else _from_edges(ink)
        return self._fields[index]


def handwritten(images: Tensor, labels: Tensor) -> tuple[Shapes, Shapes]:
    """MNIST's digits: as wide as they are, and for other pens.

    Args:
        images: ``(N, 1, 28, 28)`` uint8, ink 255.
        labels: ``(N,)``.
    """
    digits, numbers = images[:, 0].numpy(), labels.numpy()

    def inked(index: int) -> Mask:
        return _fitted(digits[index])

    return Shapes(inked, numbers, by_pen=False), Shapes(inked, numbers, by_pen=True)


@cache
def printed(characters: str) -> tuple[Shapes, Shapes]:
    """What printers make of characters, and pens that follow the middle of such strokes."""
    labels = np.array([int(c) if c.isdigit() else -1 for c in characters])
    by_font = [mask for name in FONTS for mask in _printed_by(name, characters)]
    by_pen = by_font + [mask for font in PEN_FONTS for mask in _written(font, characters)]
    return (
        Shapes(by_font.__getitem__, np.tile(labels, len(FONTS)), by_pen=False),
        Shapes(by_pen.__getitem__, np.tile(labels, len(FONTS + PEN_FONTS)), by_pen=True),
    )


@cache
def cursive(letters: str) -> tuple[Shapes, Shapes]:
    """Letters in loops, as mathematicians print what was once written by hand."""
    masks = list(_printed_by("STIXGeneral", letters.translate(CURSIVE)))
    labels = np.full(len(letters), -1)
    return (
        Shapes(masks.__getitem__, labels, by_pen=False),
        Shapes(masks.__getitem__, labels, by_pen=True),
    )


def thinned(mask: Mask) -> Mask:
    """Strokes of one pixel, along the middle of those in a mask, ``(H, W)``.

    Source: Zhang and Suen, "A fast parallel algorithm for thinning digital patterns" (1984).
    """
    ink = np.pad(mask, 1).view(np.uint8)
    inner = ink[1:-1, 1:-1]
    num_left = -1
    while num_left != (num_left := int(ink.sum())):
        for first in (True, False):
            north, east, south, west = ink[:-2, 1:-1], ink[1:-1, 2:], ink[2:, 1:-1], ink[1:-1, :-2]
            ring = [
                north,
                ink[:-2, 2:],
                east,
                ink[2:, 2:],
                south,
                ink[2:, :-2],
                west,
                ink[:-2, :-2],
            ]
            num_near = sum(ring[1:], ring[0])
            num_starts = sum(
                (1 - here) & there for here, there in zip(ring, [*ring[1:], ring[0]], strict=True)
            )
            if first:
                surrounded = (north & east & south) | (east & south & west)
            else:
                surrounded = (north & east & west) | (north & south & west)
            kept = (num_near < 2) | (num_near > 6) | (num_starts != 1) | (surrounded != 0)
            inner &= kept.view(np.uint8)
    return inner.view(bool)


def _fitted(image: NDArray[np.uint8]) -> Mask:
    """A digit's ink, as large as shapes are."""
    left, top, right, bottom = extent(image > 0)
    digit = image[top:bottom, left:right]
    return _framed(scaled(digit, SIZE / max(digit.shape), cv2.INTER_CUBIC) > 110)


def _framed(ink: Mask) -> Mask:
    frame = np.zeros((FRAME, FRAME), bool)
    top, left = ((FRAME - side) // 2 for side in ink.shape)
    frame[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return frame


def _kept(distance: Array) -> NDArray[np.uint8]:
    return np.asarray(np.clip(ZERO + STEPS * distance, 0, 255).round(), np.uint8)


def _from_edges(ink: Mask) -> NDArray[np.uint8]:
    within, without = ink.view(np.uint8), (~ink).view(np.uint8)
    outside = cv2.distanceTransform(without, cv2.DIST_L2, 5)
    return _kept(outside - cv2.distanceTransform(within, cv2.DIST_L2, 5))


def _from_middles(strokes: Mask) -> NDArray[np.uint8]:
    return _kept(cv2.distanceTransform((~strokes).view(np.uint8), cv2.DIST_L2, 5))


def _printed_by(name: str, characters: str) -> Iterator[Mask]:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    font = ImageFont.truetype(path, 3 * SIZE)
    # A mark is as small as it is beside a digit.
    whole = font.getbbox("8")
    scale = SIZE / (whole[3] - whole[1])
    for character in characters:
        canvas = Image.new("L", (6 * SIZE, 6 * SIZE))
        ImageDraw.Draw(canvas).text((SIZE, SIZE), character, fill=255, font=font)
        yield _cropped(np.asarray(canvas), scale)


def _written(font: int, characters: str) -> Iterator[Mask]:
    (_, height), _ = cv2.getTextSize("8", font, 4, 1)
    for character in characters:
        canvas = np.zeros((6 * SIZE, 6 * SIZE), np.uint8)
        cv2.putText(canvas, character, (SIZE, 4 * SIZE), font, 4, 255, 3)
        yield _cropped(canvas, SIZE / height)


def _cropped(canvas: NDArray[np.uint8], scale: float) -> Mask:
    left, top, right, bottom = extent(canvas > 100)
    ink = canvas[top:bottom, left:right]
    scale = min(scale, (FRAME - 4) / max(ink.shape))
    return _framed(scaled(ink, scale, cv2.INTER_AREA) > 100)

"""What is drawn on pages: MNIST's digits and printed glyphs, as distances from their strokes.

What a pen makes of a shape is whatever is near enough to its strokes: a wide pen goes further.
"""

import string
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

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
    "DejaVuSans-Oblique",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmb10",
    "cmr10",
    "cmss10",
    "cmti10",
    "cmtt10",
)  # matplotlib's own
# Letters that nobody takes for a digit, even alone.
UNLIKE_DIGITS = "".join(sorted(set(string.ascii_letters) - set("BbDgGIiJjlOoQqSsTtYyZz")))
LIKE_DIGITS = "/\\()[]?!#%&"  # marks that are taken for one
MARKS = "-+=,.:;*<>~'\"$@{}" + 2 * LIKE_DIGITS
# Unicode's mathematical bold script, printed as it was once written by hand, and who prints it.
CURSIVE, CURSIVE_FONTS = "".join(map(chr, range(0x1D4D0, 0x1D504))), ("STIXGeneral",)
Glyph: TypeAlias = tuple[Mask, float]  # its ink, and how far it lies below the middle of a digit


class Shapes:
    """Shapes of a kind, each made when it is first asked for.

    Args:
        inked: of each, by its number, the ink, ``(FRAME, FRAME)``.
        labels: ``(N,)``, which digit each is; -1: none.
        lower: ``(N,)``, how far the middle of each lies below that of a digit in the same line, as
            a share of the digit.
        by_pen: whether only the middle of the strokes is kept, for a pen of any width to draw
            them; else their edges.
    """

    def __init__(
        self, inked: Callable[[int], Mask], labels: NDArray[np.int64], lower: Array, by_pen: bool
    ) -> None:
        self.labels, self.lower, self.by_pen = labels, lower, by_pen
        self._inked = inked
        self._fields: dict[int, NDArray[np.uint8]] = {}

    def field(self, index: int) -> NDArray[np.uint8]:
        """How far everything is from a shape's strokes.

        Returns:
            ``(FRAME, FRAME)`` uint8, as `STEPS` and `ZERO` say.
        """
        if index not in self._fields:
            ink = self._inked(index)
            self._fields[index] = _from_middles(middles(ink)) if self.by_pen else _from_edges(ink)
        return self._fields[index]


def handwritten(images: Tensor, labels: Tensor) -> tuple[Shapes, Shapes]:
    """MNIST's digits: as wide as they are, and for other pens.

    Args:
        images: ``(N, 1, H, W)`` uint8, ink 255.
        labels: ``(N,)``.
    """
    digits, numbers, lower = images[:, 0].numpy(), labels.numpy(), np.zeros(len(labels))

    def inked(index: int) -> Mask:
        return _fitted(digits[index])

    return _by_printer_and_pen(inked, numbers, lower)


@cache
def printed(characters: str, fonts: tuple[str, ...] = FONTS) -> tuple[Shapes, Shapes]:
    """What printers make of characters, and pens that follow the middle of such strokes."""
    glyphs = [glyph for font in fonts for glyph in _printed_by(font, characters)]
    inks, lower = zip(*glyphs, strict=True)
    labels = np.array([int(c) if c.isdigit() else -1 for c in characters])
    return _by_printer_and_pen(inks.__getitem__, np.tile(labels, len(fonts)), np.array(lower))


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


def middles(ink: Mask) -> Mask:
    """Thinned strokes, and a pixel for each dot, of which thinning leaves nothing."""
    strokes = thinned(ink)
    count, parts, _, centres = cv2.connectedComponentsWithStats(ink.view(np.uint8))
    for part in set(range(1, count)) - set(parts[strokes].tolist()):
        column, row = centres[part].round().astype(int)
        strokes[row, column] = True
    return strokes


def _by_printer_and_pen(
    inked: Callable[[int], Mask], labels: NDArray[np.int64], lower: Array
) -> tuple[Shapes, Shapes]:
    return (
        Shapes(inked, labels, lower, by_pen=False),
        Shapes(inked, labels, lower, by_pen=True),
    )


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


def _printed_by(name: str, characters: str) -> Iterator[Glyph]:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    font = ImageFont.truetype(path, 3 * SIZE)

    def draw(character: str) -> NDArray[np.uint8]:
        canvas = Image.new("L", (6 * SIZE, 6 * SIZE))
        ImageDraw.Draw(canvas).text((SIZE, SIZE), character, fill=255, font=font)
        return np.asarray(canvas)

    _, highest, _, lowest = extent(draw("8") > 100)
    for character in characters:
        canvas = draw(character)
        left, top, right, bottom = extent(canvas > 100)
        lower = ((top + bottom) - (highest + lowest)) / 2 / (lowest - highest)
        ink = canvas[top:bottom, left:right]
        # A mark is as small as it is beside a digit.
        scale = min(SIZE / (lowest - highest), (FRAME - 4) / max(ink.shape))
        yield _framed(scaled(ink, scale, cv2.INTER_AREA) > 100), lower

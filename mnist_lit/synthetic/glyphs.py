"""`Glyphs`: shapes of characters, from MNIST, fonts and strokes, as distances from their strokes.

A distance map lets one shape be drawn by pens of any width: ink is where the distance is small.
"""

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

from mnist_lit.models.characters import class_of
from mnist_lit.reading.arrays import Array, Mask, extent, scaled

SIZE = 40  # pixels of a digit's longer side ...
MARGIN = 6  # ... and of paper around it
GLYPH_PX = SIZE + 2 * MARGIN
LEVELS_A_PX = 16  # resolution of the stored distances
ZERO_LEVEL = 96  # stored value of distance 0; lower is inside a stroke
PRINT_FONTS = (  # matplotlib's own
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "cmb10",
    "cmr10", "cmss10", "cmti10", "cmtt10",
)  # fmt: skip
Glyph: TypeAlias = tuple[Mask, float]
"""Ink ``(GLYPH_PX, GLYPH_PX)``, and how far its middle is below a digit's, a share of the digit."""


class Glyphs:
    """Glyph masks, whose distance maps are computed on first use.

    Args:
        mask_of: returns the ink of a glyph by its number, ``(GLYPH_PX, GLYPH_PX)``.
        labels: class of each glyph, ``(N,)``; -1 for none.
        offsets: how far the middle of each lies below a digit's in the same line, as a share of the
            digit, ``(N,)``.
        skeleton: True: distances from the middle of strokes, else from their edges.
    """

    def __init__(
        self,
        mask_of: Callable[[int], Mask],
        labels: NDArray[np.int64],
        offsets: Array,
        skeleton: bool,
    ) -> None:
        self.labels, self.offsets, self.skeleton = labels, offsets, skeleton
        self._mask_of = mask_of
        self._levels: dict[int, NDArray[np.uint8]] = {}

    def distance_levels(self, index: int) -> NDArray[np.uint8]:
        """Return the distance of each pixel from a glyph's strokes, in stored levels.

        Returns:
            ``(GLYPH_PX, GLYPH_PX)`` uint8, see `LEVELS_A_PX` and `ZERO_LEVEL`.
        """
        if index not in self._levels:
            ink = self._mask_of(index)
            distance = _distance_from(skeleton(ink)) if self.skeleton else _signed_distance(ink)
            levels = np.clip(ZERO_LEVEL + LEVELS_A_PX * distance, 0, 255).round()
            self._levels[index] = np.asarray(levels, np.uint8)
        return self._levels[index]


class Alphabet:
    """Characters, each in several hands or fonts, as outlines and as skeletons.

    Args:
        numbers: how many glyphs there are of each character; the first ones are the first one's.
        mask_of: returns the ink of a glyph by its number, ``(GLYPH_PX, GLYPH_PX)``.
        offsets: see `Glyphs`.
    """

    def __init__(
        self, numbers: dict[str, int], mask_of: Callable[[int], Mask], offsets: Array
    ) -> None:
        ends = np.cumsum(list(numbers.values())).tolist()
        self.first: dict[str, tuple[int, int]] = {
            character: (end - number, number)
            for (character, number), end in zip(numbers.items(), ends, strict=True)
        }
        labels = np.repeat([class_of(character) for character in numbers], list(numbers.values()))
        self.kinds = outline_and_skeleton(mask_of, labels, offsets)

    @classmethod
    def of(cls, glyphs: dict[str, list[Glyph]]) -> "Alphabet":
        """Make an alphabet of each character's glyphs; the lists need not be equally long."""
        every = [glyph for some in glyphs.values() for glyph in some]
        masks, offsets = [mask for mask, _ in every], np.array([offset for _, offset in every])
        numbers = {character: len(some) for character, some in glyphs.items()}
        return cls(numbers, masks.__getitem__, offsets)

    def __contains__(self, character: str) -> bool:
        return character in self.first

    def index(self, character: str, font: int) -> int:
        """Return the number of a character's glyph in a font, counted modulo the fonts it has."""
        first, num = self.first[character]
        return first + font % num


def handwritten(images: Tensor, labels: Tensor) -> tuple[Glyphs, Glyphs]:
    """Make glyphs of MNIST's digits, as outlines and as skeletons.

    Args:
        images: ``(N, 1, H, W)`` uint8, ink 255.
        labels: ``(N,)``.
    """
    digits = images[:, 0].numpy()

    def mask_of(index: int) -> Mask:
        left, top, right, bottom = extent(digits[index] > 0)
        digit = digits[index, top:bottom, left:right]
        return framed(scaled(digit, SIZE / max(digit.shape), cv2.INTER_CUBIC) > 110)

    return outline_and_skeleton(mask_of, labels.numpy(), np.zeros(len(labels)))


@cache
def in_fonts(characters: str, fonts: tuple[Path, ...] = ()) -> Alphabet:
    """Make glyphs of characters in fonts; none: those that come with matplotlib."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    paths = fonts or tuple(folder / f"{name}.ttf" for name in PRINT_FONTS)
    glyphs: dict[str, list[Glyph]] = {character: [] for character in characters}
    for path in paths:
        for character, glyph in _in_font(path, characters):
            glyphs[character].append(glyph)
    return Alphabet.of({character: some for character, some in glyphs.items() if some})


def font_files(folder: Path) -> tuple[Path, ...]:
    """List the fonts below a folder: TrueType, OpenType, and of npm's packages the Latin ones."""
    patterns = ("*.ttf", "*.otf", "*-latin-400-normal.woff")
    return tuple(sorted(path for pattern in patterns for path in folder.rglob(pattern)))


def outline_and_skeleton(
    mask_of: Callable[[int], Mask], labels: NDArray[np.int64], offsets: Array
) -> tuple[Glyphs, Glyphs]:
    """Make both kinds of glyphs of the same masks."""
    return Glyphs(mask_of, labels, offsets, False), Glyphs(mask_of, labels, offsets, True)


def framed(ink: Mask) -> Mask:
    """Put ink into the middle of a glyph's frame."""
    frame = np.zeros((GLYPH_PX, GLYPH_PX), bool)
    top, left = ((GLYPH_PX - side) // 2 for side in ink.shape)
    frame[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return frame


def skeleton(ink: Mask) -> Mask:
    """Thin strokes to one pixel; a dot, of which thinning leaves nothing, keeps its middle."""
    strokes = thinned(ink)
    count, parts, _, centres = cv2.connectedComponentsWithStats(ink.view(np.uint8))
    for part in set(range(1, count)) - set(parts[strokes].tolist()):
        column, row = centres[part].round().astype(int)
        strokes[row, column] = True
    return strokes


def thinned(mask: Mask) -> Mask:
    """Thin the strokes of a bool mask, ``(H, W)``, to one pixel; dots may vanish.

    Source: Zhang and Suen, "A fast parallel algorithm for thinning digital patterns" (1984).
    """
    ink = np.pad(mask, 1).view(np.uint8)
    inner = ink[1:-1, 1:-1]
    num_left = -1
    while num_left != (num_left := int(ink.sum())):
        for first in (True, False):
            north, east, south, west = ink[:-2, 1:-1], ink[1:-1, 2:], ink[2:, 1:-1], ink[1:-1, :-2]
            corners = ink[:-2, 2:], ink[2:, 2:], ink[2:, :-2], ink[:-2, :-2]
            ring = [
                side
                for pair in zip((north, east, south, west), corners, strict=True)
                for side in pair
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


def _signed_distance(ink: Mask) -> Array:
    inside = cv2.distanceTransform(ink.view(np.uint8), cv2.DIST_L2, 5)
    return _distance_from(ink) - inside


def _distance_from(ink: Mask) -> Array:
    return np.asarray(cv2.distanceTransform((~ink).view(np.uint8), cv2.DIST_L2, 5))


def _in_font(path: Path, characters: str) -> Iterator[tuple[str, Glyph]]:
    """Render the characters that a font has, each as large as it is beside an 8."""
    font = ImageFont.truetype(path, 3 * SIZE)

    def render(character: str) -> NDArray[np.uint8]:
        canvas = Image.new("L", (8 * SIZE, 8 * SIZE))
        ImageDraw.Draw(canvas).text((2 * SIZE, 2 * SIZE), character, fill=255, font=font)
        return np.asarray(canvas)

    missing = render("\uffff")
    _, highest, _, lowest = extent(render("8") > 100)
    for character in characters:
        canvas = render(character)
        left, top, right, bottom = extent(canvas > 100)
        if left == right or np.array_equal(canvas, missing):
            continue
        offset = ((top + bottom) - (highest + lowest)) / 2 / (lowest - highest)
        ink = canvas[top:bottom, left:right]
        scale = min(SIZE / (lowest - highest), (GLYPH_PX - 4) / max(ink.shape))
        yield character, (framed(scaled(ink, scale, cv2.INTER_AREA) > 100), offset)

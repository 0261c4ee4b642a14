"""Pixels as arrays: their types, and what is done to them anywhere."""

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""float32, where nothing else is said; OpenCV's own types say less."""
Mask: TypeAlias = NDArray[np.bool_]
Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""


def reduced(pixels: Array, longest: int, how: int) -> Array:
    return scaled(pixels, min(1.0, longest / max(pixels.shape)), how)


def scaled(pixels: Array, scale: float, how: int) -> Array:
    """A factor as large, at least one pixel; `how` is OpenCV's name for the way."""
    height, width = pixels.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=how))


def quantile(values: Array, share: float) -> float:
    """The value that a share of all values does not exceed; faster than NumPy's for a few."""
    place = round(share * (values.size - 1))
    return float(np.partition(values, place, axis=None)[place])


def extent(mask: Mask) -> Box:
    """The smallest box around what is true in a mask; one of no size where nothing is."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def with_margin(ink: Array, margin: int) -> Array:
    """Paper around ink, several times as fast as NumPy's pad."""
    return np.asarray(
        cv2.copyMakeBorder(ink, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    )

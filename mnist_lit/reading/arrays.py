"""Operations on pixel arrays that several modules need."""

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""float32 where nothing else is said; OpenCV's own types say less."""
Mask: TypeAlias = NDArray[np.bool_]
Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""


def reduced(pixels: Array, longest: int, interpolation: int) -> Array:
    """Scale a picture down so that its longer side has at most ``longest`` pixels."""
    return scaled(pixels, min(1.0, longest / max(pixels.shape)), interpolation)


def scaled(pixels: Array, scale: float, interpolation: int) -> Array:
    """Scale a picture, to one pixel at least; ``interpolation`` is a constant of OpenCV."""
    height, width = pixels.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=interpolation))


def quantile(values: Array, share: float) -> float:
    """Return a quantile without interpolation; faster than NumPy's for one quantile."""
    place = round(share * (values.size - 1))
    return float(np.partition(values, place, axis=None)[place])


def rim_of(pixels: Array) -> Array:
    """Return the pixels at the edges of a picture, ``(2H + 2W, ...)``, corners twice."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def extent(mask: Mask) -> Box:
    """Return the bounding box of a mask; all zeros if it is empty."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, left + width, top + height


def with_margin(ink: Array, margin: int) -> Array:
    """Pad with zeros, several times as fast as NumPy's pad."""
    return np.asarray(
        cv2.copyMakeBorder(ink, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    )

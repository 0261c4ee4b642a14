"""Prepare a digit exactly as the images of MNIST were prepared."""

import cv2
import numpy as np

from mnist_lit.reading.arrays import Array, Box, extent, scaled, with_margin

IMAGE_PX = 28  # side of an MNIST image in pixels, of which ...
DIGIT_BOX_PX = 20  # ... a digit's longer side takes this much
MIN_STROKE, MAX_STROKE = 0.09, 0.22  # widths of strokes, as shares of the digit's longer side
EDGE = 0.3  # ink level at which a digit's longer side is measured
MIN_SIZE = 60  # pixels along the longer side; of less, strokes cannot be measured
MAX_SIZE = 320  # larger digits tell no more


def fit_into_frame(ink: Array, box: Box) -> Array | None:
    """Fit a digit's ink into a frame of 28 pixels; None for a blob, or without solid ink.

    Args:
        ink: ``(H, W)`` in [0, 1].
        box: of the digit, without the margin, in the same pixels.

    Returns:
        ``(1, 28, 28)`` float32 in [0, 1].

    Source: the MNIST page, "size normalized to fit in a 20x20 pixel box while preserving their
    aspect ratio ... centered in a 28x28 image by computing the center of mass".
    """
    left, top, right, bottom = box
    # At the right size already, resampling would only blur it.
    if DIGIT_BOX_PX - 2 <= max(right - left, bottom - top) <= DIGIT_BOX_PX:
        return _centre(ink)
    ink = _sized(ink, MIN_SIZE, MAX_SIZE)
    solid = ink > 0.5
    if not solid.any():
        return None
    depth = cv2.distanceTransform(with_margin(solid.view(np.uint8), 1), cv2.DIST_L2, 5)
    longest = max(np.ptp(axis) + 1 for axis in np.nonzero(solid))
    if 2 * depth.max() > 0.7 * longest:
        return None
    ink = _with_usual_strokes(ink, depth[1:-1, 1:-1], float(longest))
    left, top, right, bottom = extent(ink > EDGE)
    if left == right:
        return None
    ink = ink[top:bottom, left:right]
    return _centre(_sized(ink, DIGIT_BOX_PX, DIGIT_BOX_PX))


def _sized(ink: Array, least: int, most: int) -> Array:
    """Scale ink so that its longer side has ``least`` to ``most`` pixels."""
    scale = min(max(max(ink.shape), least), most) / max(ink.shape)
    if scale == 1:
        return ink
    if scale < 1:
        return scaled(ink, scale, cv2.INTER_AREA)
    return np.clip(scaled(ink, scale, cv2.INTER_CUBIC), 0, 1)


def _with_usual_strokes(ink: Array, depth: Array, longest: float) -> Array:
    """Thicken or thin strokes to the widths that MNIST has.

    Args:
        ink: ``(H, W)`` in [0, 1].
        depth: distance of each pixel from the paper, in pixels.
        longest: the digit's longer side, in pixels.
    """
    thickness = max(1.0, 4 * float(depth[depth > 0].mean()) - 2)
    # The longer side changes with the strokes, which the formulas solve for.
    if thickness < MIN_STROKE * longest:
        add = (MIN_STROKE * longest - thickness) / (1 - MIN_STROKE) / 2
        margin = int(add) + 2
        padded = with_margin(ink, margin)
        outside = cv2.distanceTransform((padded <= 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        return np.asarray(np.clip(add + 1 - outside, 0, 1))
    if thickness > MAX_STROKE * longest:
        remove = (thickness - MAX_STROKE * longest) / (1 - MAX_STROKE) / 2
        remove = min(remove, float(depth.max()) / 2)
        return np.asarray(np.clip(depth - remove, 0, 1))
    return ink


def _centre(ink: Array) -> Array:
    """Crop a frame in which the centre of mass of the ink is at pixel 14, 14, up to a half.

    That is where MNIST has it, half a pixel beyond the middle: 13.99, 14.00 on average.
    """
    height, width = ink.shape
    total = max(float(ink.sum()), 1e-6)
    down = float(ink.sum(axis=1) @ np.arange(height)) / total
    right = float(ink.sum(axis=0) @ np.arange(width)) / total
    pad = IMAGE_PX  # enough for any shift
    top, left = (round(pad + place - IMAGE_PX / 2) for place in (down, right))
    padded = with_margin(ink, pad)
    return padded[None, top : top + IMAGE_PX, left : left + IMAGE_PX].astype(np.float32)

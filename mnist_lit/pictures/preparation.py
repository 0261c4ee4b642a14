"""One digit, prepared exactly as the images of MNIST were."""

import cv2
import numpy as np

from mnist_lit.pictures.arrays import Array, Box, extent, scaled, with_margin

FRAME = 28  # an MNIST image, of which ...
FIT = 20  # ... a digit's longest side takes this much
THINNEST, THICKEST = 0.09, 0.22  # strokes, as a share of the longest side
EDGE = 0.3  # ink that a digit's longest side reaches to; its faint ends are part of it
MIN_SIZE = 60  # pixels along the longest side; of less, strokes cannot be measured
MAX_SIZE = 320  # ... and a larger digit has no more to tell


def prepare(ink: Array, box: Box) -> Array | None:
    """Fit a digit's ink into the frame; None for a blob, which no pen has drawn.

    Args:
        ink: ``(H, W)`` in [0, 1].
        box: around it, without the margin, in the same pixels.

    Source: the MNIST page, "size normalized to fit in a 20x20 pixel box while preserving their
    aspect ratio ... centered in a 28x28 image by computing the center of mass".
    """
    left, top, right, bottom = box
    # If it is as large as it should be, resampling would only blur it.
    if FIT - 2 <= max(right - left, bottom - top) <= FIT:
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
    return _centre(_sized(ink, FIT, FIT))


def _sized(ink: Array, least: int, most: int) -> Array:
    """Scale ink so that its longest side, in pixels, is `least` to `most`."""
    scale = min(max(max(ink.shape), least), most) / max(ink.shape)
    if scale == 1:
        return ink
    if scale < 1:
        return scaled(ink, scale, cv2.INTER_AREA)
    return np.clip(scaled(ink, scale, cv2.INTER_CUBIC), 0, 1)


def _with_usual_strokes(ink: Array, depth: Array, longest: float) -> Array:
    """Thicken what a hair has drawn and thin what a brush has, to strokes as MNIST has them.

    Args:
        ink: ``(H, W)`` in [0, 1].
        depth: how far inside the ink each pixel is, in pixels.
        longest: the digit's longest side, in pixels.
    """
    thickness = max(1.0, 4 * float(depth[depth > 0].mean()) - 2)
    # The longest side changes with the strokes: both are at their limit together.
    if thickness < THINNEST * longest:
        add = (THINNEST * longest - thickness) / (1 - THINNEST) / 2
        margin = int(add) + 2
        padded = with_margin(ink, margin)
        outside = cv2.distanceTransform((padded <= 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        return np.asarray(np.clip(add + 1 - outside, 0, 1))
    if thickness > THICKEST * longest:
        remove = (thickness - THICKEST * longest) / (1 - THICKEST) / 2
        remove = min(remove, float(depth.max()) / 2)
        return np.asarray(np.clip(depth - remove, 0, 1))
    return ink


def _centre(ink: Array) -> Array:
    """Put ink into the frame, its centre of mass as near to pixel 14, 14 as whole pixels allow.

    There MNIST has it, half a pixel beyond the middle: 13.99, 14.00 on average.
    """
    height, width = ink.shape
    total = max(float(ink.sum()), 1e-6)
    down = float(ink.sum(axis=1) @ np.arange(height)) / total
    right = float(ink.sum(axis=0) @ np.arange(width)) / total
    pad = FRAME  # enough for any shift
    top, left = (round(pad + place - FRAME / 2) for place in (down, right))
    padded = with_margin(ink, pad)
    return padded[None, top : top + FRAME, left : left + FRAME].astype(np.float32)

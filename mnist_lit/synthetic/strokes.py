"""Signs drawn by strokes, each time a little different: +, brackets, roots, ticks, arrows."""

from collections.abc import Sequence

import cv2
import numpy as np

from mnist_lit.reading.arrays import Array, extent, reduced
from mnist_lit.synthetic.glyphs import FRAME, SIZE, Alphabet, Glyph, framed

VARIANTS = 40  # of each sign
JITTER = 0.05  # standard deviation of a point, as a share of a digit's height
POINTS = 24  # of a smooth curve
Stroke = Sequence[tuple[float, float]]
# Points x, y in heights of a digit, whose top is 0 and bottom 1. A stroke of three points or more
# is a smooth curve unless its first point is repeated, which makes it a polyline.
STROKES: dict[str, Sequence[Stroke]] = {
    "+": [[(0.0, 0.5), (0.6, 0.5)], [(0.3, 0.2), (0.3, 0.8)]],
    "±": [[(0.0, 0.4), (0.6, 0.4)], [(0.3, 0.1), (0.3, 0.7)], [(0.0, 0.9), (0.6, 0.9)]],
    "-": [[(0.0, 0.5), (0.5, 0.5)]],
    "~": [[(0.0, 0.55), (0.15, 0.4), (0.35, 0.6), (0.5, 0.45)]],
    "=": [[(0.0, 0.4), (0.5, 0.4)], [(0.0, 0.62), (0.5, 0.62)]],
    "÷": [[(0.0, 0.5), (0.5, 0.5)], [(0.25, 0.25), (0.26, 0.27)], [(0.25, 0.75), (0.26, 0.77)]],
    ":": [[(0.1, 0.35), (0.11, 0.37)], [(0.1, 0.75), (0.11, 0.77)]],
    "×": [[(0.0, 0.3), (0.4, 0.75)], [(0.4, 0.3), (0.0, 0.75)]],
    "*": [[(0.0, 0.1), (0.3, 0.5)], [(0.3, 0.1), (0.0, 0.5)], [(-0.05, 0.3), (0.35, 0.3)]],
    "✗": [[(0.0, 0.0), (0.8, 1.0)], [(0.8, 0.0), (0.0, 1.0)]],
    "✓": [[(0.0, 0.5), (0.0, 0.5), (0.25, 0.95), (0.8, 0.0)]],
    "(": [[(0.25, -0.1), (0.0, 0.25), (0.0, 0.75), (0.25, 1.1)]],
    ")": [[(0.0, -0.1), (0.25, 0.25), (0.25, 0.75), (0.0, 1.1)]],
    "[": [[(0.25, -0.1), (0.25, -0.1), (0.0, -0.1), (0.0, 1.1), (0.25, 1.1)]],
    "]": [[(0.0, -0.1), (0.0, -0.1), (0.25, -0.1), (0.25, 1.1), (0.0, 1.1)]],
    "{": [
        [(0.3, -0.1), (0.15, 0.1), (0.15, 0.4), (0.0, 0.5), (0.15, 0.6), (0.15, 0.9), (0.3, 1.1)]
    ],
    "}": [
        [(0.0, -0.1), (0.15, 0.1), (0.15, 0.4), (0.3, 0.5), (0.15, 0.6), (0.15, 0.9), (0.0, 1.1)]
    ],
    "<": [[(0.5, 0.2), (0.5, 0.2), (0.0, 0.5), (0.5, 0.8)]],
    ">": [[(0.0, 0.2), (0.0, 0.2), (0.5, 0.5), (0.0, 0.8)]],
    "/": [[(0.52, 0.0), (0.0, 1.1)]],
    "|": [[(0.0, -0.15), (0.0, 1.15)]],
    "√": [[(0.0, 0.6), (0.0, 0.6), (0.1, 0.5), (0.25, 1.0), (0.45, -0.1), (1.0, -0.1)]],
    "→": [[(0.0, 0.5), (0.9, 0.5)], [(0.65, 0.3), (0.65, 0.3), (0.9, 0.5), (0.65, 0.7)]],
    "%": [
        [(0.6, 0.0), (0.1, 1.0)],
        [(0.15, 0.1), (0.0, 0.22), (0.15, 0.35), (0.28, 0.22), (0.15, 0.1)],
        [(0.55, 0.65), (0.4, 0.8), (0.55, 0.95), (0.7, 0.8), (0.55, 0.65)],
    ],
    "x": [
        [(0.0, 0.4), (0.2, 0.45), (0.2, 0.9), (0.0, 1.0)],
        [(0.55, 0.4), (0.3, 0.45), (0.3, 0.9), (0.55, 0.95)],
    ],
    "z": [
        [(0.0, 0.4), (0.0, 0.4), (0.4, 0.4), (0.0, 1.0), (0.42, 1.0)],
        [(0.05, 0.7), (0.35, 0.7)],
    ],
    "y": [[(0.0, 0.4), (0.1, 0.75), (0.3, 0.75)], [(0.4, 0.4), (0.3, 0.9), (0.1, 1.35)]],
}


def signs(seed: int = 0) -> Alphabet:
    """Draw all signs, `VARIANTS` of each."""
    random = np.random.default_rng(seed)
    return Alphabet(
        {
            sign: [_drawn(strokes, random) for _ in range(VARIANTS)]
            for sign, strokes in STROKES.items()
        }
    )


def _drawn(strokes: Sequence[Stroke], random: np.random.Generator) -> Glyph:
    """Draw a sign with moved points and other proportions, as a mask of thin strokes."""
    stretch = np.exp(random.normal(0, (0.2, 0.1)))
    canvas = np.zeros((4 * SIZE, 4 * SIZE), np.uint8)
    for stroke in strokes:
        points: Array = np.array(stroke)
        points = (points + random.normal(0, JITTER, points.shape)) * stretch
        is_polyline = stroke[0] == stroke[1]
        curve = points[1:] if is_polyline else _smooth(points)
        pixels = np.asarray(SIZE * (curve + 1.2), np.int32)
        cv2.polylines(canvas, [pixels], False, 255, 3, cv2.LINE_AA)
    left, top, right, bottom = extent(canvas > 100)
    ink: Array = canvas[top:bottom, left:right]
    ink = reduced(ink, FRAME - 4, cv2.INTER_AREA)
    offset = (top + bottom) / 2 / SIZE - 1.2 - 0.5
    return framed(ink > 100), offset


def _smooth(points: Array) -> Array:
    """Interpolate points, ``(N, 2)``, by a cubic curve."""
    if len(points) < 3:
        return points
    at = np.linspace(0, len(points) - 1, POINTS)
    return np.stack([_catmull_rom(points[:, axis], at) for axis in (0, 1)], axis=1)


def _catmull_rom(values: Array, at: Array) -> Array:
    """Evaluate a Catmull-Rom spline through values at positions 0, 1, 2, ..."""
    padded = np.concatenate([[2 * values[0] - values[1]], values, [2 * values[-1] - values[-2]]])
    start = np.minimum(at.astype(int), len(values) - 2)
    t = at - start
    before, here, after, beyond = (padded[start + shift] for shift in range(4))
    curve: Array = 0.5 * (
        2 * here
        + (after - before) * t
        + (2 * before - 5 * here + 4 * after - beyond) * t**2
        + (3 * here - before - 3 * after + beyond) * t**3
    )
    return curve

"""Letters, signs and some digits drawn by strokes, each time a little different."""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from mnist_lit.reading.arrays import Array, extent, reduced
from mnist_lit.synthetic.glyphs import GLYPH_PX, SIZE, Alphabet, Glyph, framed

VARIANTS = 40  # of each way to write a character
JITTER = 0.05  # standard deviation of a point, as a share of a digit's height
POINTS = 24  # of a smooth curve
# Ways to write each character. A point is "x y" in hundredths of a digit's height, whose top is 0
# and bottom 100. A stroke of three points or more is a smooth curve, unless its first point is
# repeated, which makes it a polyline.
WAYS: dict[str, Sequence[str]] = {
    "1": ["3 0, 0 100"],
    "4": [
        "8 0, 8 0, 2 60, 48 58; 40 12, 37 100",
        "6 0, 6 0, 0 60, 30 58; 50 2, 47 100",
        "2 0, 2 0, 4 50, 44 50; 44 0, 44 100",
        "30 0, 30 0, 0 65, 54 62; 36 40, 34 100",
    ],
    "+": [
        "0 50, 60 50; 30 20, 30 80",
        "0 52, 50 48; 25 15, 25 85",
        "0 54, 60 46; 34 20, 26 80",
        "30 20, 30 20, 30 80, 4 54, 62 50",
    ],
    "±": ["0 40, 60 40; 30 10, 30 70; 0 90, 60 90"],
    "-": ["0 50, 50 50"],
    "~": ["0 55, 15 40, 35 60, 50 45"],
    "=": [
        "0 40, 50 40; 0 62, 50 62",
        "0 38, 40 38; 0 66, 40 66",
        "0 40, 0 40, 50 40, 4 62, 52 62",
    ],
    "÷": ["0 50, 50 50; 25 25, 26 27; 25 75, 26 77"],
    ":": ["10 35, 11 37; 10 75, 11 77"],
    "×": ["0 30, 40 75; 40 30, 0 75"],
    "*": ["0 10, 30 50; 30 10, 0 50; -5 30, 35 30"],
    "✗": ["0 0, 80 100; 80 0, 0 100"],
    "✓": ["0 50, 0 50, 25 95, 80 0"],
    "(": ["30 -10, 4 20, 4 80, 30 110"],
    ")": ["0 -10, 26 20, 26 80, 0 110"],
    "[": ["25 -10, 25 -10, 0 -10, 0 110, 25 110"],
    "]": ["0 -10, 0 -10, 25 -10, 25 110, 0 110"],
    "{": ["30 -10, 15 10, 15 40, 0 50, 15 60, 15 90, 30 110"],
    "}": ["0 -10, 15 10, 15 40, 30 50, 15 60, 15 90, 0 110"],
    "<": ["50 20, 50 20, 0 50, 50 80"],
    ">": ["0 20, 0 20, 50 50, 0 80"],
    "/": ["52 -14, 0 118"],  # higher than digits, which tells it from a slanted 1
    "|": ["0 -15, 0 115"],
    "√": ["0 60, 0 60, 10 50, 25 100, 45 -10, 100 -10"],
    "→": ["0 50, 90 50; 65 30, 65 30, 90 50, 65 70"],
    "%": ["60 0, 10 100; 15 10, 0 22, 15 35, 28 22, 15 10; 55 65, 40 80, 55 95, 70 80, 55 65"],
    "a": [
        "42 48, 15 42, 2 72, 18 98, 40 80, 45 42, 44 85, 58 98",
        "46 50, 22 40, 2 70, 16 98, 40 85, 46 48; 46 42, 46 98",
        "5 50, 25 40, 42 55, 42 100; 42 68, 15 70, 5 88, 20 100, 42 85",
    ],
    "b": [
        "5 0, 4 98; 4 70, 25 50, 46 70, 30 98, 4 92",
        "8 0, 5 60, 5 90, 24 100, 44 80, 30 58, 6 72",
    ],
    "c": ["45 50, 25 40, 2 70, 20 98, 48 90"],
    "d": [
        "42 60, 20 48, 2 74, 15 98, 40 88; 44 0, 44 98",
        "42 55, 18 48, 2 75, 18 98, 40 80, 46 0, 44 85, 56 98",
    ],
    "e": ["3 72, 42 66, 30 42, 5 60, 10 95, 48 90"],
    "f": ["45 5, 28 -2, 20 30, 20 100; 3 45, 40 45"],
    "g": ["42 50, 18 42, 2 68, 18 90, 40 75; 44 42, 42 110, 25 138, 2 125"],
    "h": ["4 0, 4 100; 4 68, 25 45, 40 60, 40 100", "6 0, 4 100, 12 60, 32 48, 40 70, 44 98"],
    "i": ["8 42, 10 85, 20 98; 8 20, 9 22"],
    "j": ["20 42, 18 120, 0 135; 20 18, 21 20"],
    "k": ["4 0, 4 100; 40 42, 40 42, 6 72, 42 100"],
    "m": ["3 42, 3 100; 3 60, 18 42, 28 58, 28 100; 28 60, 45 42, 55 58, 56 100"],
    "n": ["3 42, 3 100; 3 62, 22 42, 38 58, 40 100"],
    "p": ["4 42, 3 140; 4 58, 28 40, 45 62, 28 95, 4 88"],
    "r": ["4 42, 4 100; 4 62, 18 44, 36 46"],
    "s": ["40 48, 20 40, 5 55, 22 70, 40 85, 22 100, 2 92"],
    "t": ["20 10, 20 85, 40 98; 2 40, 42 40", "18 5, 18 100; 0 38, 38 36"],
    "u": ["2 42, 6 90, 25 98, 42 75; 44 42, 44 90, 54 98"],
    "v": ["0 42, 0 42, 20 100, 42 42"],
    "w": ["0 42, 0 42, 14 100, 28 55, 42 100, 56 42"],
    "x": [
        "0 40, 20 45, 20 90, 0 100; 55 40, 30 45, 30 90, 55 95",
        "0 42, 44 100; 42 42, 0 100",
        "0 48, 14 42, 30 92, 50 94; 44 42, 4 100",
    ],
    "y": [
        "0 40, 10 75, 30 75; 40 40, 30 90, 10 135",
        "0 42, 20 85; 42 42, 4 138",
        "0 44, 8 88, 36 84, 42 42, 36 115, 14 138, 2 120",
    ],
    "z": [
        "0 40, 0 40, 40 40, 0 100, 42 100; 5 70, 35 70",
        "0 42, 0 42, 42 42, 0 100, 44 100",
    ],
    "A": ["0 100, 0 100, 25 0, 50 100; 10 62, 42 62"],
    "B": ["3 0, 3 100; 3 2, 36 8, 34 42, 5 48; 5 48, 42 58, 40 92, 3 100"],
    "C": ["52 15, 30 -2, 2 45, 25 100, 55 88"],
    "D": ["3 0, 3 100; -4 0, 45 20, 46 78, -2 100"],
    "E": [
        "3 0, 3 100; 3 2, 40 0; 3 50, 34 50; 3 98, 42 98",
        "40 8, 14 2, 8 40, 28 48, 2 62, 8 98, 44 92",
    ],
    "F": ["3 0, 3 100; 3 2, 42 0; 3 48, 34 48"],
    "G": ["50 15, 28 -2, 2 45, 20 98, 50 90, 52 58; 30 58, 60 58"],
    "H": ["3 0, 3 100; 45 0, 45 100; 3 50, 45 50"],
    "K": ["3 0, 3 100; 45 0, 45 0, 5 55, 46 100"],
    "L": ["3 0, 3 0, 3 98, 42 98"],
    "M": ["0 100, 0 100, 6 0, 28 60, 50 0, 56 100"],
    "N": ["3 100, 3 100, 3 0, 44 100, 44 0"],
    "P": ["3 0, 3 100; 3 3, 42 10, 40 48, 3 55"],
    "Q": ["30 0, 2 45, 25 100, 52 60, 34 2; 30 74, 60 108"],
    "R": ["3 0, 3 100; 3 3, 40 10, 38 45, 3 52; 14 52, 46 100"],
    "T": ["0 2, 52 0; 26 2, 26 100"],
    "U": ["2 0, 5 80, 25 100, 46 80, 48 0"],
    "V": ["0 0, 0 0, 24 100, 48 0"],
    "W": ["0 0, 0 0, 16 100, 32 30, 48 100, 64 0"],
    "X": ["0 0, 48 100; 48 0, 0 100"],
    "Y": ["0 0, 24 50; 50 0, 8 100", "0 0, 24 48; 50 0, 50 0, 24 48, 24 100"],
    "Z": ["0 2, 0 2, 48 2, 0 98, 50 98", "0 2, 0 2, 48 2, 0 98, 50 98; 8 52, 44 48"],
}


@cache
def in_strokes() -> Alphabet:
    """Draw all characters of `WAYS`, `VARIANTS` of each way to write them."""
    random = np.random.default_rng(0)
    return Alphabet.of(
        {
            character: [_drawn(way, random) for _ in range(VARIANTS) for way in ways]
            for character, ways in WAYS.items()
        }
    )


def _drawn(way: str, random: np.random.Generator) -> Glyph:
    """Draw a character with moved points and other proportions, as a mask of thin strokes."""
    stretch = np.exp(random.normal(0, (0.2, 0.1)))
    canvas = np.zeros((4 * SIZE, 4 * SIZE), np.uint8)
    for stroke in way.split(";"):
        points: Array = np.array([point.split() for point in stroke.split(",")], float) / 100
        is_polyline = np.array_equal(points[0], points[1])
        points = (points + random.normal(0, JITTER, points.shape)) * stretch
        curve = points[1:] if is_polyline else _smooth(points)
        pixels = np.asarray(SIZE * (curve + 1.2), np.int32)
        cv2.polylines(canvas, [pixels], False, 255, 3, cv2.LINE_AA)
    left, top, right, bottom = extent(canvas > 100)
    ink: Array = canvas[top:bottom, left:right]
    ink = reduced(ink, GLYPH_PX - 4, cv2.INTER_AREA)
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

"""Small files that are meant to cost much, and what they do cost: one command, one table.

    python tests/studies/hostile.py

Each is read in a process of its own. Its seconds are the processor's, of all threads together; its
memory is what the process needed at its highest, less what it had before it read.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from stress import Array

from mnist_lit.reading.limits import MAX_PIXELS, MAX_PIXELS_AT_ONCE, MAX_PIXELS_OF_WEBP

SIDE = 1600


class Cost(NamedTuple):
    """Cost and outcome of reading one picture."""

    seconds: float
    memory_mb: float
    num_digits: int
    said: str


def noise(blur_px: float, level: float) -> bytes:
    """Blots of a size, in one bit: all of them ink that no digit explains."""
    values = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    values = np.asarray(cv2.GaussianBlur(values, (0, 0), blur_px))
    return _as_file(Image.fromarray((values < level * values.std()).astype(np.uint8) * 255), "1")


def pattern(step: tuple[int, int], draw: Callable[[Array, int, int], None]) -> bytes:
    """The same thing again and again."""
    picture = np.full((SIDE, SIDE), 255, np.uint8)
    for left in range(2, SIDE - step[0], step[0]):
        for top in range(2, SIDE - step[1], step[1]):
            draw(picture, left, top)
    return _as_file(Image.fromarray(picture), "L")


def blank(num_pixels: int, mode: str, form: str, **options: object) -> bytes:
    """As many pixels as are allowed, of one colour."""
    side = int(num_pixels**0.5)
    return _as_file(Image.new(mode, (side, side)), mode, form, **options)


def animation(num_pixels: int) -> bytes:
    """Two frames, of as many pixels each."""
    side = int(num_pixels**0.5)
    frames = [Image.new("L", (side, side), grey) for grey in (0, 255)]
    file = BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def _as_file(image: Image.Image, mode: str, form: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.convert(mode).save(file, form, **options)
    return file.getvalue()


def _tally(picture: Array, left: int, top: int) -> None:
    for n in range(3):
        cv2.line(picture, (left + 6 * n, top), (left + 6 * n, top + 20), 0, 2)


def _seven(picture: Array, left: int, top: int) -> None:
    cv2.putText(picture, "7", (left, top + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0)


PICTURES: dict[str, Callable[[], bytes]] = {
    "noise of 2 px": lambda: noise(2, -0.7),
    "noise of 4 px": lambda: noise(4, -0.7),
    "tallies": lambda: pattern((34, 34), _tally),
    "sevens": lambda: pattern((20, 20), _seven),
    "large grey PNG": lambda: blank(MAX_PIXELS, "L", "PNG"),
    "large 1-bit TIFF": lambda: blank(MAX_PIXELS, "1", "TIFF", compression="group4"),
    "large RGBA PNG": lambda: blank(MAX_PIXELS_AT_ONCE, "RGBA", "PNG"),
    "large float TIFF": lambda: blank(
        MAX_PIXELS_AT_ONCE, "F", "TIFF", compression="tiff_adobe_deflate"
    ),
    "large progressive JPEG": lambda: blank(
        MAX_PIXELS_AT_ONCE, "RGB", "JPEG", progressive=True, subsampling=0
    ),
    "large WebP": lambda: blank(MAX_PIXELS_OF_WEBP, "RGBA", "WEBP", lossless=True),
    "large HEIC": lambda: blank(MAX_PIXELS_AT_ONCE, "RGB", "HEIF"),
    "animated GIF": lambda: animation(MAX_PIXELS_AT_ONCE // 2),
    "coloured PNG, larger": lambda: blank(MAX_PIXELS, "RGB", "PNG"),
}


def cost(picture: bytes) -> Cost:
    """Measure the cost of a picture in a new process."""
    command = [sys.executable, "-c", MEASURE]
    return Cost(*json.loads(subprocess.run(command, input=picture, stdout=-1, check=True).stdout))


MEASURE = r"""
import json, re, sys, time
from pathlib import Path
from mnist_lit import Classifier
from mnist_lit.reading.limits import PictureError

def highest_mb():
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1e3

classifier, picture = Classifier.load(), sys.stdin.buffer.read()
before, start = highest_mb(), time.process_time()
try:
    reading = classifier.read(picture)
    num_digits, said = len(reading.digits), reading.note
except PictureError as error:
    num_digits, said = 0, str(error)
print(json.dumps([time.process_time() - start, highest_mb() - before, num_digits, said]))
"""


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    table = Table("picture", "kB", "s", "MB", "digits", "said", title="what a picture costs")
    for name, make in PICTURES.items():
        picture = make()
        taken = cost(picture)
        table.add_row(
            name,
            f"{len(picture) / 1e3:,.0f}",
            f"{taken.seconds:.2f}",
            f"{taken.memory_mb:.0f}",
            str(taken.num_digits),
            taken.said,
        )
    Console().print(table)


if __name__ == "__main__":
    main()

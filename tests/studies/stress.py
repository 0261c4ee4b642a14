"""Pictures as people make them, from MNIST's digits: on a canvas, or on paper and photographed.

    python tests/studies/stress.py [--split val] [--num 2000] [--ckpt_path PATH]

prints the share of them that is read without an error, and the accuracy on the images themselves
after what other pens and scanners do to them.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from torch import Tensor

from mnist_lit.data.module import SETS, MNISTDataModule
from mnist_lit.reading.classifier import Classifier

Array: TypeAlias = NDArray[Any]
BLACK, WHITE = np.zeros(3, np.float32), np.ones(3, np.float32)


@dataclass(frozen=True)
class Stress:
    """A picture, as the bytes of a file, and what is written in it."""

    file: bytes
    number: str


def stroke(digit: Array, size: float, thicken: float) -> Array:
    """Write a digit anew, large and with another pen.

    Args:
        digit: ``(28, 28)`` in [0, 1].
        size: what MNIST's 20 pixels become.
        thicken: what is added to the thickness of the strokes, as a share of `size`.

    Returns:
        Ink in [0, 1], cropped to it.
    """
    scale = size / 20
    fine = max(1.0, 160 / size)  # drawn at least so large, then reduced: edges are smooth
    side = round(28 * scale * fine)
    large = cv2.resize(np.pad(digit, 4), (side * 36 // 28,) * 2, interpolation=cv2.INTER_CUBIC)
    ink = (cv2.GaussianBlur(large, (0, 0), 0.35 * scale * fine) > 0.45).astype(np.uint8)
    change = thicken * size * fine / 2
    outside = cv2.distanceTransform(1 - ink, cv2.DIST_L2, 5)
    inside = cv2.distanceTransform(ink, cv2.DIST_L2, 5)
    distance = np.where(ink > 0, 0.5 - inside, outside - 0.5)
    change = max(change, -0.6 * float(np.quantile(inside[ink > 0], 0.9)))  # no stroke vanishes
    drawn: Array = (distance <= change).astype(np.float32)
    if fine > 1:
        drawn = cv2.resize(drawn, None, fx=1 / fine, fy=1 / fine, interpolation=cv2.INTER_AREA)
    rows, columns = (np.flatnonzero((drawn > 0).any(axis=axis)) for axis in (1, 0))
    return drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)


def write(
    digits: Sequence[Array], size: float, pen: float, random: Generator, touching: bool = False
) -> Array:
    """Write digits beside each other by one pen, close enough to touch or not; ink in [0, 1]."""
    strokes = [stroke(digit, size * random.uniform(0.88, 1.12), pen) for digit in digits]
    height = max(ink.shape[0] for ink in strokes) + round(0.16 * size)
    sheet = np.zeros((height, 0), np.float32)
    for ink in strokes:
        free = height - ink.shape[0]
        top = round(free * np.clip(0.5 + random.normal(0, 0.25), 0, 1))
        ink = np.pad(ink, ((top, free - top), (0, 0)))
        gap = round(size * random.uniform(0.1, 0.4))
        if touching and sheet.size:
            gap = -round(size * random.uniform(0.0, 0.06)) - _free_between(sheet, ink)
        left = max(0, sheet.shape[1] + gap)
        wider = np.zeros((height, max(sheet.shape[1], left + ink.shape[1])), np.float32)
        wider[:, : sheet.shape[1]] = sheet
        wider[:, left : left + ink.shape[1]] = np.maximum(wider[:, left : left + ink.shape[1]], ink)
        sheet = wider
    return sheet


def _free_between(left: Array, right: Array) -> int:
    """Compute the smallest distance between the ink of two sheets side by side."""
    free = np.argmax(left[:, ::-1] > 0.5, axis=1) + np.argmax(right > 0.5, axis=1)
    both = (left > 0.5).any(axis=1) & (right > 0.5).any(axis=1)
    return int(free[both].min()) if both.any() else 0


def place(ink: Array, height: int, width: int, random: Generator) -> Array:
    """Put ink anywhere on a sheet ``(height, width)``, at its edge at the farthest."""
    sheet = np.zeros((height, width), np.float32)
    top = int(random.integers(0, height - ink.shape[0] + 1))
    left = int(random.integers(0, width - ink.shape[1] + 1))
    sheet[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return sheet


def colours(random: Generator, contrast: float) -> tuple[Array, Array]:
    """Two colours whose brightness differs by `contrast` at least; either is the lighter one."""
    brightness = np.array([0.299, 0.587, 0.114])
    while True:
        ink, paper = random.uniform(0, 1, (2, 3))
        if abs((ink - paper) @ brightness) >= contrast:
            return ink.astype(np.float32), paper.astype(np.float32)


def mix(sheet: Array, ink: Array, paper: Array) -> Array:
    """Colours ``(H, W, 3)`` of ink on paper."""
    return np.asarray(paper + sheet[..., None] * (ink - paper))


def drawn(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """On a canvas: any size and place, pen and colours; a PNG, or a JPEG."""
    side = int(random.integers(100, 600))
    size = side * random.uniform(0.25, 0.9)
    if len(digits) > 1:
        size = side * random.uniform(0.2, 0.5)
    ink = write(digits, size, random.uniform(-0.08, 0.1), random)
    if random.random() < 0.4:
        pen, paper = (BLACK, WHITE) if random.random() < 0.5 else (WHITE, BLACK)
    else:
        pen, paper = colours(random, 0.3)
    height, width = max(side, ink.shape[0]), max(side, ink.shape[1])
    picture = mix(place(ink, height, width, random), pen, paper)
    return Stress(encode(picture, random.choice(["PNG", "JPEG"]), 85), number)


def touching(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """On a canvas, two digits that touch."""
    ink = write(digits[:2], 100, random.uniform(-0.04, 0.05), random, touching=True)
    return Stress(encode(mix(np.pad(ink, 30), BLACK, WHITE)), number[:2])


def two_lines(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """On a canvas, two lines of writing, either one as long as it happens to be."""
    end = int(random.integers(1, len(digits)))
    pen = random.uniform(-0.08, 0.1)
    rows = [write(row, 100, pen, random) for row in (digits[:end], digits[end:])]
    width = max(row.shape[1] for row in rows) + 20
    gap = round(random.uniform(10, 50))
    sheet = np.concatenate([place(row, row.shape[0] + gap, width, random) for row in rows])
    picture = mix(np.pad(sheet, 30), BLACK, WHITE)
    return Stress(encode(picture), f"{number[:end]} {number[end:]}")


def coarse(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """Digits of 9 to 18 pixels, which some screens show as blocks."""
    ink = np.pad(write(digits, 100, random.uniform(-0.05, 0.06), random), 40)
    scale = random.uniform(0.09, 0.18)
    ink = cv2.resize(ink, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if random.random() < 0.5:
        ink = ink.repeat(block := int(random.integers(6, 24)), axis=0).repeat(block, axis=1)
    return Stress(encode(mix(ink, BLACK, WHITE)), number)


def cells(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """In the cells of a form, which are printed in any grey; some are cut out close to them."""
    pen, line = random.uniform(-0.05, 0.06), int(random.integers(1, 7))
    strokes = [stroke(digit, 100 * random.uniform(0.88, 1.1), pen) for digit in digits]
    widest, highest = (max(ink.shape[axis] for ink in strokes) + 2 * line for axis in (1, 0))
    width, height = (max(int(random.integers(125, 190)), least) for least in (widest, highest))
    size = height + 1, width * len(digits) + 1
    sheet, form = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for number_before, ink in enumerate(strokes):
        left = number_before * width
        inside = place(ink, height - 2 * line, width - 2 * line, random)
        sheet[line : height - line, left + line : left + width - line] = inside
        cv2.rectangle(form, (left, 0), (left + width, height), 1, line)
    margin = int(random.choice([8, 20, 60, 200]))
    paper = mix(np.pad(form, margin), BLACK + random.uniform(0, 0.7), WHITE)
    sheet = np.pad(sheet, margin)[..., None]
    return Stress(encode(paper * (1 - sheet), random.choice(["PNG", "JPEG"]), 85), number)


WORDS = ("Total", "Name", "Age", "Date", "Euro", "Page", "Weight", "km", "cm", "kg", "min", "No.")
MARKS = "-,./:=()+#%?"


def beside_words(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """On a canvas, before a printed word or mark, or after it."""
    ink = write(digits, 100, random.uniform(-0.05, 0.05), random)
    text = _print(random.choice([*WORDS, *MARKS]), random.uniform(60, 130))
    parts = [ink, text] if random.random() < 0.5 else [text, ink]
    height = max(part.shape[0] for part in parts)
    between = round(random.uniform(25, 70))
    rows = [place(part, height, part.shape[1] + between, random) for part in parts]
    return Stress(encode(mix(np.pad(np.hstack(rows), 30), BLACK, WHITE)), number)


# Signs as strokes from point to point, x and y in heights of a digit.
SIGNS: dict[str, list[list[tuple[float, float]]]] = {
    "+": [[(0.0, 0.5), (0.6, 0.5)], [(0.3, 0.2), (0.3, 0.8)]],
    "-": [[(0.0, 0.5), (0.5, 0.5)]],
    "=": [[(0.0, 0.38), (0.5, 0.38)], [(0.0, 0.62), (0.5, 0.62)]],
    "x": [[(0.0, 0.4), (0.4, 0.9)], [(0.4, 0.4), (0.0, 0.9)]],
    "/": [[(0.4, 0.0), (0.0, 1.0)]],
    "(": [[(0.2, -0.05), (0.03, 0.25), (0.0, 0.5), (0.03, 0.75), (0.2, 1.05)]],
    ")": [[(0.0, -0.05), (0.17, 0.25), (0.2, 0.5), (0.17, 0.75), (0.0, 1.05)]],
    "y": [[(0.0, 0.4), (0.2, 0.75)], [(0.4, 0.4), (0.1, 1.2)]],
}
FORMULAS = ("#+#", "#-#=", "#x#", "(#+#)x#", "#/#", "#x+#=#", "#y-#", "x+#=#", "(#-#)=#", "#+#=x")


def formulas(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """On a canvas, signs and letters between digits by the same pen."""
    size, pen, thickness = 100, random.uniform(-0.03, 0.03), int(random.integers(8, 15))
    parts, written = [], ""
    for character in random.choice(FORMULAS):
        if character != "#":
            ink = np.zeros((round(1.5 * size), size), np.float32)
            for stroke_points in SIGNS[character]:
                moved = np.array(stroke_points) + random.normal(0, 0.03, (len(stroke_points), 2))
                points = (moved * size + [15, 25]).round().astype(np.int32)
                cv2.polylines(ink, [points], False, 1.0, thickness, cv2.LINE_AA)
            columns = np.flatnonzero(ink.any(axis=0))
            parts.append(ink[:, columns[0] : columns[-1] + 1])
            continue
        index = int(random.integers(len(digits)))
        drawn_digit = stroke(digits[index], size, pen)
        above = 25 + (size - drawn_digit.shape[0]) // 2
        below = round(1.5 * size) - above - drawn_digit.shape[0]
        parts.append(np.pad(drawn_digit, ((above, below), (0, 0))))
        written += number[index]
    gaps = [np.zeros((round(1.5 * size), int(random.integers(15, 40))), np.float32) for _ in parts]
    row = np.hstack([part for pair in zip(parts, gaps, strict=True) for part in pair])
    return Stress(encode(mix(np.pad(row, 30), BLACK, WHITE)), written)


def empty_boxes(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """In a row of boxes, of which some are empty or have a cross."""
    side, line = 150, int(random.integers(2, 7))
    boxes, written = [], ""
    for digit, name in zip(digits, number, strict=True):
        box = np.zeros((side, side), np.float32)
        kind = random.random()
        if kind < 0.5:
            inside = place(stroke(digit, 90, random.uniform(-0.03, 0.04)), 118, 118, random)
            box[16:134, 16:134] = inside
            written += name
        elif kind < 0.75:
            (x0, y0), (x1, y1) = random.integers(25, 55, 2), random.integers(95, 125, 2)
            cv2.line(box, (x0, y0), (x1, y1), 1, 9, cv2.LINE_AA)
            cv2.line(box, (x1, y0), (x0, y1), 1, 9, cv2.LINE_AA)
        cv2.rectangle(box, (0, 0), (side - 1, side - 1), random.uniform(0.5, 1), line)
        boxes.append(box)
    return Stress(encode(mix(np.pad(np.hstack(boxes), 30), BLACK, WHITE)), written)


def frame_leftovers(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """An empty cell, cut out with parts of its frame."""
    height, width = random.integers(60, 160, 2)
    cell = np.zeros((height, width), np.float32)
    for at_end in random.permutation(4)[: random.integers(1, 4)]:
        thickness, contrast = int(random.integers(1, 7)), random.uniform(0.4, 1)
        along = cell if at_end % 2 else cell.T
        depth = int(random.integers(0, 6))
        row = depth if at_end < 2 else along.shape[0] - 1 - depth
        start = int(random.integers(0, along.shape[1] // 2)) if random.random() < 0.3 else 0
        along[max(0, row - thickness) : row + 1, start:] = contrast
    return Stress(encode(mix(cell, BLACK, WHITE), random.choice(["PNG", "JPEG"]), 85), "")


def cropped_closely(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """A digit of any pen and colours, cut out with no paper around it, or hardly any."""
    ink = stroke(digits[0], random.uniform(20, 300), random.uniform(-0.08, 0.1))
    picture = mix(np.pad(ink, int(random.integers(3))), *colours(random, 0.3))
    return Stress(encode(picture), number)


def _print(text: str, size: float) -> Array:
    """A text in Pillow's own font, ink in [0, 1]."""
    font = ImageFont.load_default(size)
    width, height = (round(edge) for edge in font.getbbox(text + "p")[2:])
    sheet = Image.new("L", (width, height))
    ImageDraw.Draw(sheet).text((0, 0), text, 255, font)
    return np.asarray(sheet, np.float32) / 255


def photographed(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """With a telephone: uneven light, a shadow, a turn, paper and lens and grain; a JPEG."""
    long = int(random.integers(500, 1800))
    height, width = (long, long * 3 // 4) if random.random() < 0.5 else (long * 3 // 4, long)
    size = min(height, width) * random.uniform(0.1, 0.6)
    if len(digits) > 1:
        size = min(size, 0.9 * width / (1.3 * len(digits)))
    ink = write(digits, size, random.uniform(-0.08, 0.03), random)
    ink = _turn(ink, random.normal(0, 3))
    ink = ink[: height - 2, : width - 2]
    sheet = place(ink, height, width, random)
    paper = random.uniform(0.75, 0.95) + random.normal(0, 0.03, 3).astype(np.float32)
    pen = (paper * random.uniform(0.1, 0.45)).astype(np.float32)
    if random.random() < 0.5:
        pen[random.integers(3)] += 0.25
    picture = mix(sheet, pen, paper.astype(np.float32))
    if random.random() < 0.3:
        picture = _ruled(picture, sheet, size, random)
    picture = picture * _light(height, width, random)[..., None]
    picture = cv2.GaussianBlur(picture, (0, 0), max(0.3, random.uniform(0.1, 0.03 * size)))
    texture = cv2.GaussianBlur(random.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 1.5)
    picture = picture + texture[..., None] * random.uniform(0, 0.04)
    picture = picture + random.normal(0, random.uniform(0.005, 0.04), picture.shape)
    return Stress(encode(picture, "JPEG", int(random.integers(40, 92))), number)


def in_hard_light(digits: Sequence[Array], number: str, random: Generator) -> Stress:
    """Photographed across the edge of a shadow, on a sheet on a table, or in chalk on a board."""
    size = random.uniform(60, 150)
    ink = write(digits, size, random.uniform(-0.06, 0.03), random)
    height, width = (round(side + size * random.uniform(1, 3)) for side in ink.shape)
    sheet = place(ink, height, width, random)
    paper = random.uniform(0.75, 0.95) + random.normal(0, 0.03, 3).astype(np.float32)
    kind = random.integers(3)
    if kind == 0:
        picture = _in_shadow(mix(sheet, paper * random.uniform(0.1, 0.4), paper), size, random)
    elif kind == 1:
        picture = _on_table(mix(sheet, paper * random.uniform(0.1, 0.4), paper), size, random)
    else:
        board = random.uniform(0.1, 0.3) * paper
        picture = mix(sheet, random.uniform(0.7, 0.95) * WHITE, board)
    height, width = picture.shape[:2]
    picture = picture * _light(height, width, random, shadow=False)[..., None]
    picture = cv2.GaussianBlur(picture, (0, 0), random.uniform(0.5, 1.5))
    picture = picture + random.normal(0, random.uniform(0.005, 0.02), picture.shape)
    return Stress(encode(picture, "JPEG", int(random.integers(60, 92))), number)


def _in_shadow(picture: Array, size: float, random: Generator) -> Array:
    """Cover one side by a shadow with an edge of 2 pixels to a tenth of a digit."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    turn = random.uniform(0, 2 * np.pi)
    middle_y, middle_x = height * random.uniform(0.3, 0.7), width * random.uniform(0.3, 0.7)
    distance = np.cos(turn) * (x - middle_x) + np.sin(turn) * (y - middle_y)
    covered = np.clip(distance / random.uniform(2, 0.1 * size) + 0.5, 0, 1)
    return np.asarray(picture * (1 - random.uniform(0.3, 0.6) * covered[..., None]))


def _on_table(picture: Array, size: float, random: Generator) -> Array:
    """Lay a sheet on a dark table of grainy wood, a little aslant."""
    height, width = picture.shape[:2]
    above, below, left, right = random.integers(round(0.5 * size), round(1.5 * size), 4).tolist()
    colour = random.uniform(0.1, 0.4) * random.uniform(0.5, 1, 3)
    shape = height + above + below, width + left + right
    shades = random.normal(1, 0.25, (7, 5))
    boards: Array = cv2.resize(shades, shape[::-1], interpolation=cv2.INTER_CUBIC)
    grain: Array = cv2.GaussianBlur(random.normal(0, 0.2, shape), (0, 0), 6, sigmaY=1)
    table = colour * boards[..., None] + grain[..., None]
    table[above : above + height, left : left + width] = picture
    turn = cv2.getRotationMatrix2D((shape[1] / 2, shape[0] / 2), random.normal(0, 5), 1)
    return np.asarray(cv2.warpAffine(table, turn, shape[::-1], borderMode=cv2.BORDER_REFLECT))


def _turn(ink: Array, degrees: float) -> Array:
    height, width = ink.shape
    pad = round(abs(np.sin(np.radians(degrees))) * max(height, width)) + 1
    padded = np.pad(ink, ((pad, pad), (pad, pad)))
    centre = padded.shape[1] / 2, padded.shape[0] / 2
    turned = cv2.warpAffine(padded, cv2.getRotationMatrix2D(centre, degrees, 1), padded.shape[::-1])
    rows, columns = (np.flatnonzero((turned > 0.1).any(axis=axis)) for axis in (1, 0))
    return turned[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)


def _light(height: int, width: int, random: Generator, shadow: bool = True) -> Array:
    """Light that falls off towards one side, and maybe a shadow with a soft edge."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = np.cos(angle := random.uniform(0, 2 * np.pi)) * x / width + np.sin(angle) * y / height
    light = 1 - random.uniform(0, 0.45) * (along - along.min()) / np.ptp(along)
    if shadow and random.random() < 0.5:
        turn = random.uniform(0, 2 * np.pi)
        across = np.cos(turn) * (x / width - 0.5) + np.sin(turn) * (y / height - 0.5)
        edge = random.uniform(0.02, 0.15)
        covered = 1 / (1 + np.exp(-(across - random.uniform(-0.3, 0.4)) / edge))
        light = light * (1 - random.uniform(0.1, 0.4) * covered)
    return np.asarray(light, np.float32)


def _ruled(picture: Array, sheet: Array, size: float, random: Generator) -> Array:
    """Ruled or squared paper beneath the ink."""
    lines = np.zeros(sheet.shape, np.float32)
    distance = max(12, round(size * random.uniform(0.3, 1.5)))
    thickness = max(1, round(len(sheet) / 500))
    for offset in range(thickness):
        lines[distance // 2 + offset :: distance] = 1
        if random.random() < 0.5:
            lines[:, distance // 2 + offset :: distance] = 1
    colour = np.array([0.55, 0.65, 0.85], np.float32)
    strength = lines * (1 - sheet) * random.uniform(0.3, 1)
    return np.asarray(picture + strength[..., None] * (colour - 0.9) * 0.7)


def encode(picture: Array, form: str = "PNG", quality: int = 90) -> bytes:
    file = BytesIO()
    rounded = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    Image.fromarray(rounded).save(file, form, quality=quality)
    return file.getvalue()


Maker: TypeAlias = Callable[[Sequence[Array], str, Generator], Stress]
KINDS: dict[str, tuple[Maker, bool]] = {
    "drawn": (drawn, False),
    "photographed": (photographed, False),
    "numbers drawn": (drawn, True),
    "numbers photographed": (photographed, True),
    "in hard light": (in_hard_light, True),
    "touching": (touching, True),
    "two lines": (two_lines, True),
    "coarse": (coarse, True),
    "cells": (cells, True),
    "beside words": (beside_words, True),
    "formulas": (formulas, True),
    "empty boxes": (empty_boxes, True),
    "frame leftovers": (frame_leftovers, True),
    "cropped closely": (cropped_closely, False),
}


def _low_resolution(image: Array, side: int) -> Array:
    coarse = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(coarse, (28, 28), interpolation=cv2.INTER_LINEAR))


def _tilted(image: Array, degrees: float) -> Array:
    turn = cv2.getRotationMatrix2D((13.5, 13.5), degrees, 1)
    return np.asarray(cv2.warpAffine(image, turn, (28, 28)))


PENS_AND_SCANNERS: dict[str, Callable[[Array], Array]] = {
    "as they are": lambda image: image,
    "blurred": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5)),
    "16x16 and back": lambda image: _low_resolution(image, 16),
    "8x8 and back": lambda image: _low_resolution(image, 8),
    "thick": lambda image: np.asarray(cv2.dilate(image, np.ones((3, 3)))),
    "thin": lambda image: np.asarray(cv2.erode(image, np.ones((2, 2)))),
    "tilted left": lambda image: _tilted(image, 20),
    "tilted right": lambda image: _tilted(image, -20),
    "off centre": lambda image: np.roll(image, (2, -2), (0, 1)),
}
"""Degradations of images ``(28, 28)`` in [0, 1]."""


def accuracy(classifier: Classifier, name: str, split: str) -> float:
    """The share of all images that is told right after one of `PENS_AND_SCANNERS`."""
    images, labels = digits(split)
    changed = np.stack([PENS_AND_SCANNERS[name](image) for image in images])
    answers = classifier.probabilities(torch.from_numpy(changed)[:, None]).argmax(1)
    return (answers == labels).double().mean().item()


@cache
def digits(split: str) -> tuple[Array, Tensor]:
    """All images of a set, ``(N, 28, 28)`` in [0, 1], and their labels."""
    data = MNISTDataModule()
    data.setup()
    chosen = data.images(split)
    return (chosen.images[chosen.indices][:, 0].float() / 255).numpy(), chosen.chosen_labels


def make(kind: str, split: str, num: int, seed: int = 0) -> Iterator[Stress]:
    """Pictures of one kind.

    Args:
        kind: one of `KINDS`.
        split: whose digits, ``"train"``, ``"val"`` or ``"test"``.
        num: how many; single digits are taken in the order of the set, each once.
        seed: of everything random.
    """
    images, labels = digits(split)
    maker, several = KINDS[kind]
    for number in range(num):
        random = np.random.default_rng([seed, number])
        which = [number % len(images)]
        if several:
            which = random.integers(len(images), size=random.integers(2, 7)).tolist()
        text = "".join(str(int(labels[index])) for index in which)
        yield maker([images[index] for index in which], text, random)


OTHER_WRITERS = "other writers"


def other_writers() -> Iterator[Stress]:
    """1,797 digits by 13 writers in Turkey, scanned to 8x8 pixels and enlarged.

    Source: scikit-learn's `load_digits`, the test part of E. Alpaydin and C. Kaynak's "Optical
    Recognition of Handwritten Digits" (UCI, 1998).
    """
    digits = load_digits()
    for image, label in zip(digits.images, digits.target, strict=True):
        ink = np.pad(image.astype(np.float32) / 16, 2)
        large = np.clip(cv2.resize(ink, (240, 240), interpolation=cv2.INTER_CUBIC), 0, 1)
        yield Stress(encode(mix(large, BLACK, WHITE)), str(label))


def share_right(classifier: Classifier, pictures: Iterable[Stress]) -> float:
    """Return the share of pictures that are read without an error."""
    right = [classifier.read(picture.file).number == picture.number for picture in pictures]
    return sum(right) / len(right)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="How many pictures of a stress set are read right."
    )
    parser.add_argument("--split", choices=SETS, default="val")
    parser.add_argument("--num", type=int, default=2000, help="pictures of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ckpt_path", type=Path)
    given = parser.parse_args()
    classifier = Classifier.load(given.ckpt_path)
    sets = {kind: make(kind, given.split, given.num, given.seed) for kind in KINDS}
    for name, made in {**sets, OTHER_WRITERS: other_writers()}.items():
        pictures = list(made)
        share = share_right(classifier, pictures)
        print(f"{name:22} {share:.2%} of {len(pictures)}", flush=True)
    for name in PENS_AND_SCANNERS:
        print(f"{name:22} {accuracy(classifier, name, given.split):.2%}", flush=True)


if __name__ == "__main__":
    main()

"""Lines, scribbles and edges of a sheet, and the degradation by pens, paper and cameras."""

from dataclasses import dataclass

import cv2
import numpy as np

from mnist_lit.reading.arrays import Array, scaled
from mnist_lit.synthetic.pens import PenStyle
from mnist_lit.synthetic.sheet import HEIGHT, WIDTH, Sheet


@dataclass(frozen=True)
class Line:
    """A printed or drawn line.

    Attributes:
        width_px: its width.
        contrast: of its ink, in [0, 1].
        dash_px: length of a dash and of a gap; 0: it has none.
    """

    width_px: float
    contrast: float
    dash_px: float

    @classmethod
    def sample(cls, random: np.random.Generator, max_width_px: float = 5.0) -> "Line":
        """Sample width (log-uniform, from 0.5 pixels), contrast and, in 10 %, dashes."""
        width = float(np.exp(random.uniform(np.log(0.5), np.log(max_width_px))))
        dash = random.uniform(2, 8) if random.random() < 0.1 else 0.0
        return cls(width, random.uniform(0.15, 1.0), dash)

    def draw(self, sheet: Sheet, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw from a point x, y to another, with soft edges."""
        drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
        points = np.array([start, end])
        pairs = [(points[0], points[1])]
        if self.dash_px:
            length = float(np.linalg.norm(points[1] - points[0]))
            at = np.arange(0, 1, self.dash_px / max(length, 1))
            dashes = [points[0] + (points[1] - points[0]) * share for share in at]
            pairs = list(zip(dashes[::2], dashes[1::2], strict=False))
        for pair in pairs:
            first, last = ((16 * point).round().astype(int).tolist() for point in pair)
            cv2.line(drawn, first, last, 255, max(1, round(self.width_px)), cv2.LINE_AA, 4)
        contrast = np.float32(self.contrast * min(1.0, self.width_px) / 255)
        np.maximum(sheet.ink, drawn * contrast, out=sheet.ink)


def rule_sheet(sheet: Sheet, size: float, random: np.random.Generator) -> None:
    """Rule or square the paper, or leave it plain."""
    kind = random.random()
    line = Line.sample(random, max_width_px=2.0)
    pitch = size * random.uniform(0.4, 2.0)
    slope = random.normal(0, 0.04)
    if kind < 0.5:
        for y in np.arange(random.uniform(0, pitch), HEIGHT, pitch):
            line.draw(sheet, (0, y), (WIDTH, y + slope * WIDTH))
    if kind < 0.25:
        for x in np.arange(random.uniform(0, pitch), WIDTH, pitch):
            line.draw(sheet, (x, 0), (x - slope * HEIGHT, HEIGHT))


def scribble(
    sheet: Sheet, x: float, y: float, size: float, style: PenStyle, random: np.random.Generator
) -> None:
    """Draw a long curve or a short stroke that is not upright, where there is room."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    width = max(1, round(2 * style.radius_px))
    if random.random() < 0.5:
        knots = np.cumsum(random.normal(0, 1.2 * size, (5, 2)), axis=0)
        curve = cv2.resize(knots.astype(np.float32), (2, 60), interpolation=cv2.INTER_CUBIC)
        points = (curve + np.array([x, y])).round().astype(np.int32)
        cv2.polylines(drawn, [points], False, 255, width, cv2.LINE_AA)
    else:
        angle = random.uniform(-0.7, 0.7)
        length = size * random.uniform(0.15, 1.5)
        end = x + length * np.cos(angle), y + length * np.sin(angle)
        cv2.line(drawn, (round(x), round(y)), (round(end[0]), round(end[1])), 255, width)
    if float(sheet.ink[drawn > 0].max(initial=0)) < 0.1:
        np.maximum(sheet.ink, drawn * np.float32(style.contrast / 255), out=sheet.ink)


def crop_anywhere(sheet: Sheet, random: np.random.Generator) -> None:
    """Show a part of the sheet only, perhaps with a dark rim, as pictures do."""
    if random.random() < 0.6:
        sheet.crop(0, 0, WIDTH, HEIGHT)
        return
    if sheet.digits and random.random() < 0.7:  # around some digits, close to them
        chosen = [sheet.digits[random.integers(len(sheet.digits))][1] for _ in range(2)]
        boxes = np.array(chosen if random.random() < 0.6 else chosen[:1])
        first, last = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        max_cut = -0.25 * np.tile(last - first, 2)
        near = np.maximum(random.uniform(-4, 14, 4), max_cut)
        left, top = first - near[:2]
        right, bottom = last + near[2:]
    else:
        left, right = sorted(random.uniform(0, WIDTH, 2))
        top, bottom = sorted(random.uniform(0, HEIGHT, 2))
        left, top, right, bottom = left - 15, top - 15, right + 15, bottom + 15
    left, right = (int(np.clip(edge, 0, WIDTH)) for edge in (left, right))
    top, bottom = (int(np.clip(edge, 0, HEIGHT)) for edge in (top, bottom))
    sheet.crop(left, top, right, bottom)
    if random.random() < 0.15:
        inside = sheet.ink[top:bottom, left:right].copy()
        sheet.ink = table_top(random)
        sheet.ink[top:bottom, left:right] = inside
    if random.random() < 0.35:
        inside = sheet.ink[top:bottom, left:right]
        width, ink = int(random.integers(1, 5)), random.uniform(0.2, 1.0)
        for side in (inside[:width], inside[-width:], inside[:, :width], inside[:, -width:]):
            if random.random() < 0.5:
                np.maximum(side, ink, out=side)


def table_top(random: np.random.Generator) -> Array:
    """Draw what lies around a sheet of paper: dark, uneven and grainy, ``(HEIGHT, WIDTH)``."""
    ink = np.full((HEIGHT, WIDTH), random.uniform(-0.3, 1.0), np.float32)
    for coarseness in (2, 6, 20, 60):
        shape = HEIGHT // coarseness + 2, WIDTH // coarseness + 2
        grain = random.normal(0, abs(random.normal(0, 0.3)), shape).astype(np.float32)
        ink += cv2.resize(grain, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(ink, 0, 1)


def stamp(sheet: Sheet, size: float, random: np.random.Generator) -> None:
    """Draw the outline of a stamp, also across writing."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    middle = int(random.integers(WIDTH)), int(random.integers(HEIGHT))
    axes = (size * random.uniform(0.8, 3, 2)).astype(int).tolist()
    for shrink in (1.0, 0.8)[: random.integers(1, 3)]:
        around = [round(shrink * axis) for axis in axes]
        cv2.ellipse(drawn, middle, around, random.uniform(0, 180), 0, 360, 255, 1, cv2.LINE_AA)
    np.maximum(sheet.ink, drawn * np.float32(random.uniform(0.2, 0.8) / 255), out=sheet.ink)


def illustrate(sheet: Sheet, size: float, random: np.random.Generator) -> None:
    """Draw a printed picture where there is room: shaded shapes, perhaps in a frame."""
    width, height = (size * random.uniform(0.8, 3.5, 2)).astype(int).tolist()
    x, y = int(random.uniform(0, WIDTH - size)), int(random.uniform(0, HEIGHT - size))
    if not sheet.is_free(x, y, width, height):
        return
    coarse = random.normal(0.4, 0.6, random.integers(2, 7, 2).tolist())
    shades: Array = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    if random.random() < 0.6:  # shapes with edges
        shades = np.where(shades > 0.5, shades, shades * random.uniform(0, 0.5))
    part = sheet.ink[y : y + height, x : x + width]
    part[:] = np.clip(shades, 0, 1)[: len(part), : part.shape[1]]
    if random.random() < 0.5:
        cv2.rectangle(part, (0, 0), (part.shape[1] - 1, len(part) - 1), 1.0)


def degrade(sheet: Sheet, random: np.random.Generator) -> None:
    """Add what pens, paper and cameras do: gaps, blur, few pixels, shadows, noise, contrast."""
    shape = sheet.ink.shape
    if random.random() < 0.35:  # a pen that skips, pencil, chalk
        coarseness = int(random.integers(1, 4))
        grain = random.normal(0, 1, [side // coarseness for side in shape]).astype(np.float32)
        skips = np.abs(cv2.resize(grain, shape[::-1], interpolation=cv2.INTER_LINEAR))
        sheet.ink *= np.clip(1 - random.uniform(0.1, 0.6) * skips, 0, 1)
    blur = 2.2 * random.uniform(0, 1) ** 2
    if blur > 0.35:
        sheet.ink = cv2.GaussianBlur(sheet.ink, (0, 0), blur)
    if random.random() < 0.12:  # few pixels
        factor = random.uniform(1.5, 3.2)
        small = scaled(sheet.ink, 1 / factor, cv2.INTER_AREA)
        how = cv2.INTER_LINEAR if random.random() < 0.7 else cv2.INTER_NEAREST
        sheet.ink = cv2.resize(small, shape[::-1], interpolation=how)
    if random.random() < 0.3:  # soft remains of a shadow or a crease
        coarse = random.normal(0, 1, (3, 5)).astype(np.float32)
        sheet.ink += random.uniform(0, 0.12) * np.abs(
            cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
        )
    noise = abs(random.normal(0, 0.05))
    sheet.ink += random.normal(0, noise, shape).astype(np.float32)
    gain = random.uniform(0.9, 1.35) / max(0.2, float(np.quantile(sheet.ink, 0.995)))
    sheet.ink = np.clip(sheet.ink * min(gain, 3.0), 0, 1)

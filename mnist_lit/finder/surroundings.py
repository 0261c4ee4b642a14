"""What is on a page beside digits, and what a picture makes of a page."""

from dataclasses import dataclass

import cv2
import numpy as np

from mnist_lit.finder.page import HEIGHT, WIDTH, Page
from mnist_lit.finder.pen import Hand


@dataclass(frozen=True)
class Rule:
    """A printed or drawn line: its width in pixels, its ink, and its dashes, if it has any."""

    width: float
    strength: float
    dash: float


def any_rule(random: np.random.Generator) -> Rule:
    """From hardly seen to thick, now and then dashed."""
    width = float(np.exp(random.uniform(np.log(0.5), np.log(5.0))))
    dash = random.uniform(2, 8) if random.random() < 0.1 else 0.0
    return Rule(width, random.uniform(0.15, 1.0), dash)


def draw_line(page: Page, start: tuple[float, float], end: tuple[float, float], rule: Rule) -> None:
    """Draw a line, its edges soft."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    points = np.array([start, end])
    if rule.dash:
        length = float(np.linalg.norm(points[1] - points[0]))
        at = np.arange(0, 1, rule.dash / max(length, 1))
        dashes = [points[0] + (points[1] - points[0]) * share for share in at]
        pairs = list(zip(dashes[::2], dashes[1::2], strict=False))
    else:
        pairs = [(points[0], points[1])]
    for pair in pairs:
        first, last = ((16 * point).round().astype(int).tolist() for point in pair)
        cv2.line(drawn, first, last, 255, max(1, round(rule.width)), cv2.LINE_AA, 4)
    strength = np.float32(rule.strength * min(1.0, rule.width) / 255)
    np.maximum(page.ink, drawn * strength, out=page.ink)


def rule_sheet(page: Page, size: float, random: np.random.Generator) -> None:
    """Ruled or squared paper, or plain."""
    kind = random.random()
    rule = any_rule(random)
    rule = Rule(min(rule.width, 2.0), rule.strength, rule.dash)
    pitch = size * random.uniform(0.4, 2.0)
    slope = random.normal(0, 0.04)
    if kind < 0.5:
        for y in np.arange(random.uniform(0, pitch), HEIGHT, pitch):
            draw_line(page, (0, y), (WIDTH, y + slope * WIDTH), rule)
    if kind < 0.25:
        for x in np.arange(random.uniform(0, pitch), WIDTH, pitch):
            draw_line(page, (x, 0), (x - slope * HEIGHT, HEIGHT), rule)


def scribble(
    page: Page, x: float, y: float, size: float, hand: Hand, random: np.random.Generator
) -> None:
    """A long curve, or a short straight stroke that is no 1."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    width = max(1, round(2 * hand.pen))
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
    inked = drawn > 0
    if float(page.ink[inked].max(initial=0)) < 0.1:
        np.maximum(page.ink, drawn * np.float32(hand.strength / 255), out=page.ink)


def cut_out(page: Page, random: np.random.Generator) -> None:
    """What a picture shows of a page, its edges anywhere."""
    if random.random() < 0.6:
        page.cut(0, 0, WIDTH, HEIGHT)
        return
    if page.digits and random.random() < 0.7:  # around some digits, close to them
        chosen = [page.digits[random.integers(len(page.digits))][1:] for _ in range(2)]
        boxes = np.array(chosen if random.random() < 0.6 else chosen[:1])
        first, last = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
        most = -0.25 * np.tile(last - first, 2)  # that is cut off
        near = np.maximum(random.uniform(-4, 14, 4), most)
        left, top = first - near[:2]
        right, bottom = last + near[2:]
    else:
        left, right = sorted(random.uniform(0, WIDTH, 2))
        top, bottom = sorted(random.uniform(0, HEIGHT, 2))
        left, top, right, bottom = left - 15, top - 15, right + 15, bottom + 15
    left, right = (int(np.clip(edge, 0, WIDTH)) for edge in (left, right))
    top, bottom = (int(np.clip(edge, 0, HEIGHT)) for edge in (top, bottom))
    page.cut(left, top, right, bottom)
    if random.random() < 0.2:  # a dark rim
        inside = page.ink[top:bottom, left:right]
        width, ink = int(random.integers(1, 5)), random.uniform(0.2, 1.0)
        sides = [inside[:width], inside[-width:], inside[:, :width], inside[:, -width:]]
        for side in sides:
            if random.random() < 0.5:
                np.maximum(side, ink, out=side)


def age(page: Page, random: np.random.Generator) -> None:
    """Paper that is not white, ink that is not even, and a camera that is not sharp."""
    shape = page.ink.shape
    if random.random() < 0.35:  # a pen that skips
        grain = random.normal(0, 1, (shape[0] // 2, shape[1] // 2)).astype(np.float32)
        skips = np.abs(cv2.resize(grain, shape[::-1], interpolation=cv2.INTER_LINEAR))
        page.ink *= np.clip(1 - random.uniform(0.1, 0.5) * skips, 0, 1)
    blur = 2.2 * random.uniform(0, 1) ** 2
    if blur > 0.35:
        page.ink = cv2.GaussianBlur(page.ink, (0, 0), blur)
    if random.random() < 0.3:  # a shadow's edge, or a crease, of which something is left
        coarse = random.normal(0, 1, (3, 5)).astype(np.float32)
        page.ink += random.uniform(0, 0.12) * np.abs(
            cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
        )
    noise = abs(random.normal(0, 0.05))
    page.ink += random.normal(0, noise, shape).astype(np.float32)
    gain = random.uniform(0.9, 1.35) / max(0.2, float(np.quantile(page.ink, 0.995)))
    page.ink = np.clip(page.ink * min(gain, 3.0), 0, 1)

"""Pages of digits, and of what comes with digits, drawn one unlike the other."""

import string
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from torch import Tensor

from mnist_lit.finder.network import USUAL
from mnist_lit.finder.pen import Hand
from mnist_lit.finder.shapes import MARKS, UNLIKE_DIGITS, Shapes, handwritten, printed
from mnist_lit.pictures.arrays import Array

HEIGHT, WIDTH = 96, 192  # of a page, in pixels
SEEN, UNSEEN = 0.75, 0.3  # of a digit's box: from so much on it is one, up to so much it is none
BETWEEN = "-,./:+="  # marks that stand within numbers


@dataclass
class Page:
    """What is drawn.

    Attributes:
        ink: ``(HEIGHT, WIDTH)`` float32 in [0, 1], paper 0.
        digits: of each, which, and its box: left, top, right, bottom in pixels.
        unclear: boxes of what may be called a digit or not.
    """

    ink: Array = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH), np.float32))
    digits: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    unclear: list[tuple[float, float, float, float]] = field(default_factory=list)

    def put(self, ink: Array, left: float, top: float, label: int = -1) -> None:
        """Put a shape on the page, a digit if it has a label."""
        height, width = ink.shape
        x, y = round(left), round(top)
        x0, y0, x1, y1 = max(0, x), max(0, y), min(WIDTH, x + width), min(HEIGHT, y + height)
        if x0 < x1 and y0 < y1:
            here = self.ink[y0:y1, x0:x1]
            np.maximum(here, ink[y0 - y : y1 - y, x0 - x : x1 - x], out=here)
        if label >= 0:
            self.digits.append((label, x, y, x + width, y + height))

    def is_free(self, left: float, top: float, width: float, height: float) -> bool:
        rows = slice(max(0, int(top)), max(0, int(top + height)))
        part = self.ink[rows, max(0, int(left)) : max(0, int(left + width))]
        return part.size > 0 and float(part.max()) < 0.1

    def cut(self, left: int, top: int, right: int, bottom: int) -> None:
        """Keep a part of the page; beyond it there is nothing."""
        kept = np.zeros_like(self.ink)
        kept[top:bottom, left:right] = self.ink[top:bottom, left:right]
        self.ink = kept
        digits = []
        for label, x0, y0, x1, y1 in self.digits:
            box = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)
            seen = max(0, box[2] - box[0]) * max(0, box[3] - box[1]) / ((x1 - x0) * (y1 - y0))
            if seen >= SEEN:
                digits.append((label, *box))
            elif seen > UNSEEN:
                self.unclear.append(box)
        self.digits = digits


class Drawer:
    """Draws pages with digits of a data set.

    Args:
        images: ``(N, 1, 28, 28)`` uint8, ink 255.
        labels: ``(N,)``, 0 to 9.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.written = handwritten(images, labels)
        self.printed = printed("0123456789")
        self.letters = printed(string.ascii_letters)
        self.unlike_digits = printed(UNLIKE_DIGITS)
        self.marks = printed(MARKS)
        self.between = printed(BETWEEN)

    def draw(self, random: np.random.Generator) -> Page:
        """Draw a page."""
        page = Page()
        size = USUAL * float(np.exp(np.clip(random.normal(0, 0.2), -0.5, 0.45)))
        layouts: list[tuple[float, Callable[[Page, float, np.random.Generator], None]]] = [
            (0.45, self._lines),
            (0.33, self._table),
            (0.10, self._sparse),
            (0.08, self._single),
            (0.04, self._nothing),
        ]
        choice = random.choice(len(layouts), p=[share for share, _ in layouts])
        layouts[choice][1](page, size, random)
        self._clutter(page, size, random)
        _cut(page, random)
        _age(page, random)
        return page

    def _shape(
        self, kinds: tuple[Shapes, Shapes], hand: Hand, size: float, random: np.random.Generator
    ) -> tuple[Array, int]:
        """Some shape of a kind, and which digit it is."""
        kind = kinds[int(hand.by_pen)]
        index = int(random.integers(len(kind.labels)))
        size *= float(np.exp(random.normal(0, 0.08)))
        return hand.draw(kind, index, size, random), int(kind.labels[index])

    def _lines(self, page: Page, size: float, random: np.random.Generator) -> None:
        """Lines of numbers, with marks in them, and perhaps a rule below each."""
        hand = Hand.any(random)
        kinds = self.printed if random.random() < 0.12 else self.written
        pitch = size * random.uniform(1.05, 2.0)
        touching = random.random() < 0.4
        gap = size * (random.uniform(-0.22, 0.04) if touching else random.uniform(0.04, 1.1))
        slope = random.normal(0, 0.05)
        ruled, rule = random.random() < 0.4, _any_rule(random)
        middle = random.uniform(0, pitch)
        while middle < HEIGHT + 0.3 * size:
            x = random.uniform(-0.4 * size, WIDTH / 2)
            num_left = int(random.integers(1, 10))
            if ruled:
                below = middle + size * random.uniform(0.42, 0.75)
                ends = sorted(random.uniform(-20, WIDTH + 20, 2)) if random.random() < 0.5 else None
                start, end = ends or (-5, WIDTH + 5)
                tops = [below + slope * at for at in (start, end)]
                _line(page, (start, tops[0]), (end, tops[1]), rule)
            while num_left and x < WIDTH:
                if random.random() < 0.06:
                    ink, label = self._shape(self.between, hand, size, random)
                else:
                    ink, label = self._shape(kinds, hand, size, random)
                    num_left -= 1
                height, width = ink.shape
                top = middle + slope * x - height / 2 + random.normal(0, 0.05) * size
                if label < 0:
                    top += random.choice([0.0, 0.3, 0.45]) * size
                page.put(ink, x, top, label)
                x += width + gap * (1 if touching else random.uniform(0.6, 1.4))
            middle += pitch * random.uniform(0.95, 1.3)

    def _table(self, page: Page, size: float, random: np.random.Generator) -> None:
        """Cells, each with a digit, or without."""
        hand, other = Hand.any(random), Hand.any(random)
        wide, high = size * random.uniform(1.1, 2.3, 2)
        if random.random() < 0.6:
            wide = high
        share_printed = random.choice([0.0, 0.0, 0.5, 1.0], p=[0.5, 0.1, 0.3, 0.1])
        filled = random.uniform(0.3, 1.0)
        slope, lean = random.normal(0, 0.03, 2)
        left, top = random.uniform(-wide, 0.5 * wide), random.uniform(-high, 0.5 * high)
        columns, rows = int((WIDTH - left) / wide) + 1, int((HEIGHT - top) / high) + 1
        if random.random() < 0.3:
            columns, rows = (int(random.integers(1, most + 1)) for most in (columns, rows))

        def at(column: float, row: float) -> tuple[float, float]:
            x, y = left + column * wide, top + row * high
            return x + lean * y, y + slope * x

        self._borders(page, columns, rows, at, random)
        loose = random.uniform(0.02, 0.16)
        for column in range(columns):
            for row in range(rows):
                if random.random() > filled:
                    continue
                is_printed = random.random() < share_printed
                kinds = self.printed if is_printed else self.written
                ink, label = self._shape(kinds, other if is_printed else hand, size, random)
                x, y = at(column + 0.5, row + 0.5)
                x, y = random.normal((x, y), loose * size)
                page.put(ink, x - ink.shape[1] / 2, y - ink.shape[0] / 2, label)

    def _borders(
        self,
        page: Page,
        columns: int,
        rows: int,
        at: Callable[[float, float], tuple[float, float]],
        random: np.random.Generator,
    ) -> None:
        thin, thick = _any_rule(random), _any_rule(random)
        every = int(random.choice([1, 3, 3, 100]))
        start = int(random.integers(3))
        gap = 0.0 if random.random() < 0.8 else random.uniform(0.03, 0.12)  # boxes apart
        for column in range(columns + 1):
            rule = thick if (column + start) % every == 0 else thin
            _line(page, at(column - gap, 0), at(column - gap, rows), rule)
            if gap:
                _line(page, at(column + gap, 0), at(column + gap, rows), rule)
        for row in range(rows + 1):
            rule = thick if (row + start) % every == 0 else thin
            _line(page, at(0, row), at(columns, row), rule)

    def _sparse(self, page: Page, size: float, random: np.random.Generator) -> None:
        """Digits anywhere, on sheets of any kind."""
        hand = Hand.any(random)
        _sheet(page, size, random)
        for _ in range(random.integers(1, 12)):
            ink, label = self._shape(self.written, hand, size, random)
            height, width = ink.shape
            x, y = random.uniform(-8, WIDTH - width + 8), random.uniform(-8, HEIGHT - height + 8)
            boxes = [digit[1:] for digit in page.digits]
            if all(
                x + width < x0 - 1 or x > x1 + 1 or y + height < y0 - 1 or y > y1 + 1
                for x0, y0, x1, y1 in boxes
            ):
                page.put(ink, x, y, label)

    def _single(self, page: Page, size: float, random: np.random.Generator) -> None:
        """One digit, perhaps in a box."""
        hand = Hand.any(random)
        ink, label = self._shape(self.written, hand, size, random)
        height, width = ink.shape
        x, y = random.uniform(0, WIDTH - width), random.uniform(0, max(1, HEIGHT - height))
        if random.random() < 0.5:
            rule = _any_rule(random)
            left, top, right, below = (size * random.uniform(0.02, 0.6, 4)).tolist()
            corners = [
                (x - left, y - top),
                (x + width + right, y - top),
                (x + width + right, y + height + below),
                (x - left, y + height + below),
            ]
            for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
                if random.random() < 0.8:
                    _line(page, start, end, _any_rule(random) if random.random() < 0.2 else rule)
        page.put(ink, x, y, label)

    def _nothing(self, page: Page, size: float, random: np.random.Generator) -> None:
        _sheet(page, size, random)

    def _clutter(self, page: Page, size: float, random: np.random.Generator) -> None:
        """Words, marks and scribbles where there is room."""
        if random.random() < 0.5:
            return
        hand = Hand.any(random)
        for _ in range(random.integers(1, 5)):
            x, y = random.uniform(-10, WIDTH - 5), random.uniform(-10, HEIGHT - 5)
            kind = random.random()
            if kind < 0.4:
                self._word(page, x, y, size * random.uniform(0.35, 1.3), hand, random)
            elif kind < 0.75:
                ink, _ = self._shape(self.marks, hand, size * random.uniform(0.5, 1.2), random)
                if page.is_free(x, y, ink.shape[1], ink.shape[0]):
                    page.put(ink, x, y)
            else:
                _scribble(page, x, y, size, hand, random)

    def _word(
        self,
        page: Page,
        x: float,
        y: float,
        size: float,
        hand: Hand,
        random: np.random.Generator,
    ) -> None:
        gap = size * random.uniform(-0.1, 0.3)
        num_letters = int(random.integers(1, 9))
        # In a word, an o is no 0.
        letters = self.unlike_digits if num_letters < 4 else self.letters
        for _ in range(num_letters):
            ink, _ = self._shape(letters, hand, size, random)
            if not page.is_free(x, y, ink.shape[1], ink.shape[0]):
                return
            page.put(ink, x, y + size - ink.shape[0])
            x += ink.shape[1] + gap


@dataclass(frozen=True)
class Rule:
    """A printed or drawn line: its width in pixels, its ink, and its dashes, if it has any."""

    width: float
    strength: float
    dash: float


def _any_rule(random: np.random.Generator) -> Rule:
    width = float(np.exp(random.uniform(np.log(0.5), np.log(5.0))))
    dash = random.uniform(2, 8) if random.random() < 0.1 else 0.0
    return Rule(width, random.uniform(0.15, 1.0), dash)


def _line(page: Page, start: tuple[float, float], end: tuple[float, float], rule: Rule) -> None:
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


def _sheet(page: Page, size: float, random: np.random.Generator) -> None:
    """Ruled or squared paper, or plain."""
    kind = random.random()
    rule = _any_rule(random)
    rule = Rule(min(rule.width, 2.0), rule.strength, rule.dash)
    pitch = size * random.uniform(0.4, 2.0)
    slope = random.normal(0, 0.04)
    if kind < 0.5:
        for y in np.arange(random.uniform(0, pitch), HEIGHT, pitch):
            _line(page, (0, y), (WIDTH, y + slope * WIDTH), rule)
    if kind < 0.25:
        for x in np.arange(random.uniform(0, pitch), WIDTH, pitch):
            _line(page, (x, 0), (x - slope * HEIGHT, HEIGHT), rule)


def _scribble(
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


def _cut(page: Page, random: np.random.Generator) -> None:
    """What a picture shows of a page, its edges anywhere."""
    if random.random() < 0.6:
        page.cut(0, 0, WIDTH, HEIGHT)
        return
    if page.digits and random.random() < 0.7:  # around some digits, close to them
        chosen = [page.digits[random.integers(len(page.digits))][1:] for _ in range(2)]
        boxes = np.array(chosen if random.random() < 0.6 else chosen[:1])
        near = random.uniform(1, 16, 4)
        left, top = boxes[:, :2].min(axis=0) - near[:2]
        right, bottom = boxes[:, 2:].max(axis=0) + near[2:]
    else:
        left, right = sorted(random.uniform(0, WIDTH, 2))
        top, bottom = sorted(random.uniform(0, HEIGHT, 2))
        left, top, right, bottom = left - 15, top - 15, right + 15, bottom + 15
    left, top = max(0, int(left)), max(0, int(top))
    right, bottom = min(WIDTH, int(right)), min(HEIGHT, int(bottom))
    page.cut(left, top, right, bottom)
    if random.random() < 0.2:  # a dark rim
        inside = page.ink[top:bottom, left:right]
        width, ink = int(random.integers(1, 5)), random.uniform(0.2, 1.0)
        sides = [inside[:width], inside[-width:], inside[:, :width], inside[:, -width:]]
        for side in sides:
            if random.random() < 0.5:
                np.maximum(side, ink, out=side)
    page.ink = np.ascontiguousarray(page.ink)


def _age(page: Page, random: np.random.Generator) -> None:
    """Paper that is not white, ink that is not even, and a camera that is not sharp."""
    shape = page.ink.shape
    if random.random() < 0.35:  # a pen that skips
        grain = random.normal(0, 1, (shape[0] // 2, shape[1] // 2)).astype(np.float32)
        skips = np.abs(cv2.resize(grain, shape[::-1], interpolation=cv2.INTER_LINEAR))
        page.ink *= np.clip(1 - random.uniform(0.1, 0.5) * skips, 0, 1)
    blur = 1.7 * random.uniform(0, 1) ** 2
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

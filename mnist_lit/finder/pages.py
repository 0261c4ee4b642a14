"""Pages of digits, and of what comes with digits, drawn one unlike the other."""

import string
from collections.abc import Callable

import numpy as np
from torch import Tensor

from mnist_lit.finder.network import USUAL
from mnist_lit.finder.page import HEIGHT, WIDTH, Page, where_they_touch
from mnist_lit.finder.pen import Hand
from mnist_lit.finder.shapes import (
    CURSIVE,
    CURSIVE_FONTS,
    MARKS,
    UNLIKE_DIGITS,
    Shapes,
    handwritten,
    printed,
)
from mnist_lit.finder.surroundings import age, any_rule, cut_out, draw_line, rule_sheet, scribble
from mnist_lit.pictures.arrays import Array

BETWEEN = "-,./:+=()*"  # marks that stand within numbers


class Drawer:
    """Draws pages with digits of a data set.

    Args:
        images: ``(N, 1, H, W)`` uint8, ink 255.
        labels: ``(N,)``, 0 to 9.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.written = handwritten(images, labels)
        self.printed = printed("0123456789")
        self.letters = printed(string.ascii_letters)
        self.unlike_digits = printed(UNLIKE_DIGITS)
        self.cursive = printed(CURSIVE, CURSIVE_FONTS)
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
        cut_out(page, random)
        age(page, random)
        return page

    def _shape(
        self, kinds: tuple[Shapes, Shapes], hand: Hand, size: float, random: np.random.Generator
    ) -> tuple[Array, int, float]:
        """Some shape of a kind, which digit it is, and how far below the middle of a line it is."""
        kind = kinds[int(hand.by_pen)]
        index = int(random.integers(len(kind.labels)))
        size *= float(np.exp(random.normal(0, 0.08)))
        lower = size * float(kind.lower[index])
        return hand.draw(kind, index, size, random), int(kind.labels[index]), lower

    def _lines(self, page: Page, size: float, random: np.random.Generator) -> None:
        """Lines of numbers, with marks and letters in them, and perhaps a rule below each."""
        hand = Hand.any(random)
        kinds = self.printed if random.random() < 0.12 else self.written
        pitch = size * random.uniform(1.05, 2.0)
        touching = 0.75 if random.random() < 0.4 else 0.0  # that a digit touches the one before it
        gap = size * random.uniform(0.04, 0.25 if touching else 1.1)
        slope = random.normal(0, 0.05)
        ruled, rule = random.random() < 0.4, any_rule(random)
        words, marks = random.choice([0.0, 0.5]), random.choice([0.02, 0.2])
        worded = hand if random.random() < 0.5 else Hand.any(random)
        middle = random.uniform(0, pitch)
        while middle < HEIGHT + 0.3 * size:
            x = random.uniform(-0.4 * size, WIDTH / 2)
            num_left = int(random.integers(1, 10))
            before: tuple[Array, float, float] | None = None
            if random.random() < words:
                x = self._word(page, x, middle + slope * x, size, worded, random)
            if ruled:
                below = middle + size * random.uniform(0.42, 0.75)
                ends = sorted(random.uniform(-20, WIDTH + 20, 2)) if random.random() < 0.5 else None
                start, end = ends or (-5, WIDTH + 5)
                tops = [below + slope * at for at in (start, end)]
                draw_line(page, (start, tops[0]), (end, tops[1]), rule)
            while num_left and x < WIDTH:
                among = kinds
                if random.random() < marks:
                    among = self.between if random.random() < 0.7 else self.unlike_digits
                ink, label, lower = self._shape(among, hand, size, random)
                num_left -= among is kinds
                height, width = ink.shape
                top = middle + slope * x + lower - height / 2 + random.normal(0, 0.05) * size
                if before and random.random() < touching:
                    x = where_they_touch(*before, ink, top) - size * random.uniform(-0.02, 0.12)
                page.put(ink, x, top, label)
                before = ink, x, top
                x += width + gap * random.uniform(0.6, 1.4)
            if random.random() < words:
                self._word(page, x + 0.1 * size, middle + slope * x, size, worded, random)
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
        share_letters = random.choice([0.0, 0.3], p=[0.7, 0.3])
        for column in range(columns):
            for row in range(rows):
                if random.random() > filled:
                    continue
                is_printed = random.random() < share_printed
                kinds = self.printed if is_printed else self.written
                if random.random() < share_letters:
                    kinds = self.unlike_digits
                ink, label, _ = self._shape(kinds, other if is_printed else hand, size, random)
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
        thin, thick = any_rule(random), any_rule(random)
        every = int(random.choice([1, 3, 3, 100]))
        start = int(random.integers(3))
        gap = 0.0 if random.random() < 0.8 else random.uniform(0.03, 0.12)  # boxes apart
        for column in range(columns + 1):
            rule = thick if (column + start) % every == 0 else thin
            draw_line(page, at(column - gap, 0), at(column - gap, rows), rule)
            if gap:
                draw_line(page, at(column + gap, 0), at(column + gap, rows), rule)
        for row in range(rows + 1):
            rule = thick if (row + start) % every == 0 else thin
            draw_line(page, at(0, row), at(columns, row), rule)

    def _sparse(self, page: Page, size: float, random: np.random.Generator) -> None:
        """Digits anywhere, on sheets of any kind."""
        hand = Hand.any(random)
        rule_sheet(page, size, random)
        for _ in range(random.integers(1, 12)):
            ink, label, _ = self._shape(self.written, hand, size, random)
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
        ink, label, _ = self._shape(self.written, hand, size, random)
        height, width = ink.shape
        x, y = random.uniform(0, WIDTH - width), random.uniform(0, max(1, HEIGHT - height))
        if random.random() < 0.5:
            rule = any_rule(random)
            left, top, right, below = (size * random.uniform(0.02, 0.6, 4)).tolist()
            corners = [
                (x - left, y - top),
                (x + width + right, y - top),
                (x + width + right, y + height + below),
                (x - left, y + height + below),
            ]
            for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
                if random.random() < 0.8:
                    draw_line(page, start, end, any_rule(random) if random.random() < 0.2 else rule)
        page.put(ink, x, y, label)

    def _nothing(self, page: Page, size: float, random: np.random.Generator) -> None:
        rule_sheet(page, size, random)

    def _clutter(self, page: Page, size: float, random: np.random.Generator) -> None:
        """Words, marks and scribbles where there is room."""
        if random.random() < 0.4:
            return
        hand = Hand.any(random)
        for _ in range(random.integers(1, 5)):
            x, y = random.uniform(-10, WIDTH - 5), random.uniform(-10, HEIGHT - 5)
            kind = random.random()
            if kind < 0.4:
                self._word(page, x, y, size, hand, random)
            elif kind < 0.75:
                ink, *_ = self._shape(self.marks, hand, size * random.uniform(0.5, 1.2), random)
                if page.is_free(x, y, ink.shape[1], ink.shape[0]):
                    page.put(ink, x, y)
            else:
                scribble(page, x, y, size, hand, random)

    def _word(
        self,
        page: Page,
        x: float,
        middle: float,
        size: float,
        hand: Hand,
        random: np.random.Generator,
    ) -> float:
        """Letters, as far as there is room for them, or marks; where they end, and a space."""
        size *= random.uniform(0.4, 1.3)
        middle += size * random.normal(0, 0.15)
        gap = size * random.uniform(-0.1, 0.3)
        num_letters = int(random.integers(1, 9))
        are_marks = num_letters < 3 and random.random() < 0.5
        after = self.cursive if num_letters > 3 and random.random() < 0.3 else self.letters
        for number in range(num_letters):
            # After another letter, an o is no 0.
            kinds = self.marks if are_marks else after if number else self.unlike_digits
            ink, _, lower = self._shape(kinds, hand, size, random)
            height, width = ink.shape
            top = middle + lower - height / 2
            if not page.is_free(x, top, width, height):
                break
            page.put(ink, x, top)
            x += width + gap
        return x + size * random.uniform(0.1, 0.8)

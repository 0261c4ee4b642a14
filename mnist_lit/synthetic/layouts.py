"""`SheetDrawer`: draws sheets with digits and other writing."""

import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from mnist_lit.models.characters import AMBIGUOUS, NUM_DIGITS
from mnist_lit.models.detector import DIGIT_PX
from mnist_lit.reading.arrays import Array
from mnist_lit.synthetic import texts
from mnist_lit.synthetic.glyphs import Glyphs, handwritten, in_fonts
from mnist_lit.synthetic.letters import in_letters
from mnist_lit.synthetic.pens import PenStyle
from mnist_lit.synthetic.sheet import HEIGHT, WIDTH, Sheet, touching_x
from mnist_lit.synthetic.strokes import in_strokes
from mnist_lit.synthetic.surroundings import (
    Line,
    crop_anywhere,
    degrade,
    illustrate,
    rule_sheet,
    scribble,
    stamp,
)

CHARACTERS = string.ascii_letters + string.digits + string.punctuation + "×÷±€£§°"
MARKS = "-+=,.:;*<>~'\"$@{}()[]????!#%&"  # a 7 is nearly a "?"; no slashes: alone, they may be a 1
BETWEEN = "-,./:+=()*"  # marks that stand within numbers
# Shares of the digits that are drawn by strokes, in ways that MNIST has few of: a 1 as a single
# straight stroke, a 4 open at the top.
DIGITS_BY_STROKES = {"1": 0.25, "4": 0.2}
WRITTEN = 0.5  # share of the sheets whose small letters were written by people
STROKES = 0.5  # share of the sheets whose other letters and signs are drawn by strokes, not a font
FONT_BEND = 0.03  # more than of digits: each letter of a font is the same, and smooth
CROSSES = "✗✗✗x-✓"  # in boxes where there is no digit
SHIFTS = {"^": -0.42, "_": 0.42}  # of the next character, down, in heights of a digit


class SheetDrawer:
    """Draws sheets with the digits of a data set.

    Args:
        images: ``(N, 1, H, W)`` uint8, ink 255.
        labels: ``(N,)``, 0 to 9.
        fonts: files of handwriting fonts for letters and signs; none: matplotlib's printed ones.
        letters: package with handwritten letters; None: letters of fonts and strokes only.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        fonts: tuple[Path, ...] = (),
        letters: Path | None = None,
    ) -> None:
        self.digits = handwritten(images, labels)
        numbers = labels.numpy()
        self.images_of = [np.flatnonzero(numbers == digit) for digit in range(NUM_DIGITS)]
        self.printed = in_fonts(CHARACTERS)
        self.written = in_fonts(CHARACTERS, fonts) if fonts else self.printed
        self.strokes = in_strokes()
        self.letters = in_letters(letters) if letters else None

    def draw(self, random: np.random.Generator) -> Sheet:
        """Draw a sheet."""
        size = DIGIT_PX * float(np.exp(np.clip(random.normal(0, 0.2), -0.5, 0.45)))
        layouts: list[tuple[float, Callable[[SheetWriter], None]]] = [
            (0.22, numbers),
            (0.22, table),
            (0.29, formulas),
            (0.15, notes),
            (0.05, scattered),
            (0.05, single),
            (0.02, nothing),
        ]
        choice = random.choice(len(layouts), p=[share for share, _ in layouts])
        writer = SheetWriter(self, size, random)
        if writer.chance(0.1):
            writer.show_through()
        layouts[choice][1](writer)
        writer.clutter()
        crop_anywhere(writer.sheet, random)
        degrade(writer.sheet, random)
        return writer.sheet


class SheetWriter:
    """Draw characters, words and clutter on one new sheet.

    Args:
        drawer: supplies the shapes of characters.
        size: usual height of a digit, in pixels.
        random: random generator; it also picks pen style and font.
    """

    def __init__(self, drawer: SheetDrawer, size: float, random: np.random.Generator) -> None:
        self.drawer, self.size, self.random = drawer, size, random
        self.sheet = Sheet()
        self.style = PenStyle.sample(random)
        self.font = int(random.integers(1000))
        self.by_people, self.by_strokes = self.chance(WRITTEN), self.chance(STROKES)

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def shape(
        self, character: str, size: float, style: PenStyle, printed: bool = False
    ) -> tuple[Array, int, float]:
        """Draw a character.

        Returns:
            Its ink, its class, and how far its middle lies below a digit's, in pixels.
        """
        glyphs, index = self._glyph(character, style, printed)
        if glyphs in self.drawer.written.kinds and not printed:
            style = replace(style, bend=style.bend + FONT_BEND)
        size *= float(np.exp(self.random.normal(0, 0.08)))
        ink = style.draw(glyphs, index, size, self.random)
        return ink, int(glyphs.labels[index]), size * float(glyphs.offsets[index])

    def _glyph(self, character: str, style: PenStyle, printed: bool) -> tuple[Glyphs, int]:
        drawer = self.drawer
        share = DIGITS_BY_STROKES.get(character)
        if share and not printed and self.chance(share):
            strokes, number = drawer.strokes, int(self.random.integers(1000))
            return strokes.kinds[style.skeleton], strokes.index(character, number)
        if character.isdigit() and not printed and not self.chance(0.06):
            return drawer.digits[style.skeleton], int(
                self.random.choice(drawer.images_of[int(character)])
            )
        if self.by_people and not printed and drawer.letters and character in drawer.letters:
            number = int(self.random.integers(1 << 30))
            return drawer.letters.kinds[style.skeleton], drawer.letters.index(character, number)
        alphabet, font = drawer.printed if printed else drawer.written, self.font
        by_strokes = character not in alphabet or (self.by_strokes and not printed)
        if by_strokes and character in drawer.strokes:
            alphabet, font = drawer.strokes, int(self.random.integers(1000))
        elif character not in alphabet:
            alphabet = drawer.printed
        return alphabet.kinds[style.skeleton], alphabet.index(character, font)

    def digit(self) -> str:
        return str(self.random.integers(NUM_DIGITS))

    def any_of(self, characters: str) -> str:
        return characters[self.random.integers(len(characters))]

    def put(
        self, character: str, ink: Array, label: int, left: float, top: float, in_word: bool = False
    ) -> None:
        """Put a character onto the sheet; ambiguous letters outside words are ignored."""
        if character in AMBIGUOUS and not in_word:
            self.sheet.ignored.append(self.sheet.put(ink, left, top))
        else:
            self.sheet.put(ink, left, top, label)

    def write(
        self,
        text: str,
        x: float,
        middle: float,
        size: float,
        style: PenStyle,
        slope: float = 0.0,
        spacing: float = 0.12,
        printed: bool = False,
    ) -> float:
        """Write a line of text; stop at the first character that has no room.

        Args:
            text: with ``^`` before a raised character, as an exponent, ``_`` before a lowered one.
            x: left edge.
            middle: y of the digits' centre line, in pixels.
            size: height of a digit, in pixels.
            style: pen style.
            slope: pixels down per pixel to the right.
            spacing: between characters, as a share of the size; words get half of it.
            printed: True: use a printed font.

        Returns:
            x where the next character would start, in pixels.
        """
        start, shift = x, 0.0
        for number, character in enumerate(text):
            if character == " ":
                x += size * self.random.uniform(0.3, 0.9)
                continue
            if character in SHIFTS:
                shift = SHIFTS[character]
                continue
            scale, lift = (0.62, shift) if shift else (1.0, 0.0)
            shift = 0.0
            ink, label, offset = self.shape(character, scale * size, style, printed)
            height, width = ink.shape
            top = middle + slope * (x - start) + lift * size + offset - height / 2
            top += self.random.normal(0, 0.03) * size
            if x > WIDTH or not self.sheet.is_free(x, top, width, height):
                break
            beside = text[max(0, number - 1) : number] + text[number + 1 : number + 2]
            in_word = character.isalpha() and any(
                other.isalpha() and other not in AMBIGUOUS for other in beside
            )
            self.put(character, ink, label, x, top, in_word)
            gap = spacing * (0.5 if in_word else 1.0) * size
            x += width + gap * self.random.uniform(0.5, 1.5)
        return x

    def show_through(self) -> None:
        """Draw the faint, mirrored writing of the sheet's back, without labels."""
        back = SheetWriter(self.drawer, self.size, self.random)
        numbers(back)
        ink = cv2.GaussianBlur(back.sheet.ink[:, ::-1], (0, 0), self.random.uniform(0.8, 2.0))
        faint = np.float32(self.random.uniform(0.04, 0.09))  # less than `Sheet.is_free` minds
        self.sheet.ink = ink * (faint / max(float(ink.max()), float(faint)))

    def clutter(self) -> None:
        """Add words, marks and scribbles where there is room."""
        random = self.random
        if self.chance(0.4):
            return
        other = PenStyle.sample(random)
        for _ in range(random.integers(1, 5)):
            x, y = random.uniform(-10, WIDTH - 5), random.uniform(-10, HEIGHT - 5)
            kind = random.random()
            if kind < 0.08:
                self.fraction(x, y, self.size * random.uniform(0.5, 1.0), other)
            elif kind < 0.4:
                size = self.size * random.uniform(0.4, 1.2)
                self.write(texts.word(random), x, y, size, other, printed=self.chance(0.5))
            elif kind < 0.75:
                mark = self.any_of(MARKS + string.ascii_letters)
                ink, label, _ = self.shape(mark, self.size * random.uniform(0.5, 1.2), other)
                if self.sheet.is_free(x, y, ink.shape[1], ink.shape[0]):
                    self.put(mark, ink, label, x, y)
            else:
                scribble(self.sheet, x, y, self.size, other, random)
        if self.chance(0.06):
            stamp(self.sheet, self.size, random)
        if self.chance(0.05):
            illustrate(self.sheet, self.size, random)

    def fraction(self, x: float, middle: float, size: float, style: PenStyle) -> None:
        """Draw a number above another one, with a line between them."""
        above, below = (texts.digits(self.random, 2) for _ in range(2))
        end = max(
            self.write(above, x, middle - 0.65 * size, size, style),
            self.write(below, x, middle + 0.65 * size, size, style),
        )
        Line(2 * style.radius_px, style.contrast, 0).draw(
            self.sheet, (x - 0.1 * size, middle), (end, middle + self.random.normal(0, 0.05) * size)
        )


def numbers(writer: SheetWriter) -> None:
    """Draw lines of numbers, with marks and letters in them, perhaps on ruled lines."""
    random, size, sheet = writer.random, writer.size, writer.sheet
    printed = writer.chance(0.12)
    pitch = size * random.uniform(1.05, 2.0)
    touching = 0.75 if writer.chance(0.4) else 0.0  # probability that a digit touches the last
    gap = size * random.uniform(0.04, 0.25 if touching else 1.1)
    slope = random.normal(0, 0.05)
    ruled, line = writer.chance(0.4), Line.sample(random)
    words, marks = random.choice([0.0, 0.5]), random.choice([0.02, 0.2])
    word_style = writer.style if writer.chance(0.5) else PenStyle.sample(random)
    middle = random.uniform(0, pitch)
    while middle < HEIGHT + 0.3 * size:
        x = random.uniform(-0.4 * size, WIDTH / 2)
        num_left = int(random.integers(1, 10))
        before: tuple[Array, float, float] | None = None
        if writer.chance(words):
            x = _word_beside(writer, x, middle + slope * x, word_style)
        if ruled:
            _underline(writer, middle, slope, line)
        while num_left and x < WIDTH:
            character = writer.digit()
            if writer.chance(marks):
                is_mark = writer.chance(0.7)
                character = writer.any_of(BETWEEN if is_mark else string.ascii_letters)
            else:
                num_left -= 1
            ink, label, offset = writer.shape(character, size, writer.style, printed)
            height, width = ink.shape
            top = middle + slope * x + offset - height / 2 + random.normal(0, 0.05) * size
            if before and writer.chance(touching):
                x = touching_x(*before, ink, top) - size * random.uniform(-0.02, 0.12)
            writer.put(character, ink, label, x, top)
            before = ink, x, top
            x += width + gap * random.uniform(0.6, 1.4)
        if writer.chance(words):
            _word_beside(writer, x + 0.1 * size, middle + slope * x, word_style)
        middle += pitch * random.uniform(0.95, 1.3)
    if writer.chance(0.05) and sheet.digits:
        _cross_out(writer)


def _word_beside(writer: SheetWriter, x: float, middle: float, style: PenStyle) -> float:
    """Write a word or a mark in another size; return where what follows it may begin."""
    random = writer.random
    size = writer.size * random.uniform(0.4, 1.3)
    text = writer.any_of(MARKS) if writer.chance(0.25) else texts.word(random)
    middle += size * random.normal(0, 0.15)
    spacing = random.uniform(-0.05, 0.3)
    x = writer.write(text, x, middle, size, style, spacing=spacing, printed=writer.chance(0.5))
    return x + size * random.uniform(0.1, 0.8)


def _underline(writer: SheetWriter, middle: float, slope: float, line: Line) -> None:
    random = writer.random
    below = middle + writer.size * random.uniform(0.42, 0.75)
    start, end = -5.0, WIDTH + 5.0
    if writer.chance(0.5):
        start, end = sorted(random.uniform(-20, WIDTH + 20, 2))
    line.draw(writer.sheet, (start, below + slope * start), (end, below + slope * end))


def _cross_out(writer: SheetWriter) -> None:
    """Draw a stroke or two through a digit; its box is ignored by the loss."""
    random, sheet = writer.random, writer.sheet
    label, box = sheet.digits[random.integers(len(sheet.digits))]
    left, top, right, bottom = box
    line = Line(2 * writer.style.radius_px, writer.style.contrast, 0)
    line.draw(
        sheet, (left - 3, top + random.uniform(0, 9)), (right + 3, bottom - random.uniform(0, 9))
    )
    if writer.chance(0.5):
        line.draw(sheet, (right + 3, top), (left - 3, bottom))
    sheet.characters.remove((label, box))
    sheet.ignored.append(box)


def formulas(writer: SheetWriter) -> None:
    """Draw formulas, one below the other, perhaps behind a brace."""
    _lines_of(writer, texts.formula, spacing=(-0.02, 0.45))
    if writer.chance(0.1):
        x = writer.random.uniform(0, 8)
        ink, label, _ = writer.shape("{", writer.random.uniform(1.5, 3) * writer.size, writer.style)
        if writer.sheet.is_free(x, 10, ink.shape[1], ink.shape[0]):
            writer.put("{", ink, label, x, 10)


def notes(writer: SheetWriter) -> None:
    """Draw lines of words and of digits beside units, signs and words."""

    def text(random: np.random.Generator) -> str:
        if random.random() < 0.35:
            return " ".join(texts.word(random) for _ in range(random.integers(1, 4)))
        return texts.note(random)

    _lines_of(writer, text, spacing=(-0.02, 0.3))


def _lines_of(
    writer: SheetWriter,
    text: Callable[[np.random.Generator], str],
    spacing: tuple[float, float],
) -> None:
    """Write random texts in lines, perhaps on faint or drawn rules.

    Args:
        writer: the sheet.
        text: draws a text at random.
        spacing: range of the gaps between characters, as shares of a digit's height.
    """
    random, size = writer.random, writer.size
    if writer.chance(0.35):
        rule_sheet(writer.sheet, size, random)
        writer.sheet.ink *= random.uniform(0.05, 0.09) / max(0.05, float(writer.sheet.ink.max()))
    printed = writer.chance(0.08)
    pitch = size * random.uniform(1.25, 2.2)
    slope = random.uniform(-0.4, 0.4) if writer.chance(0.08) else random.normal(0, 0.05)
    between = random.uniform(*spacing)
    x = random.uniform(-0.3 * size, WIDTH / 4)
    middle = random.uniform(0.3 * size, pitch)
    line, ruled = Line.sample(random, 2.0), writer.chance(0.2)
    while middle < HEIGHT + 0.2 * size:
        start = x + random.normal(0, 0.2) * size
        end = start
        for _ in range(3):
            end = writer.write(
                text(random),
                end,
                middle + slope * (end - start),
                size,
                writer.style,
                slope,
                between,
                printed,
            )
            end += size * random.uniform(0.5, 2.0)
            if end > WIDTH or writer.chance(0.5):
                break
        if ruled:
            _underline(writer, middle, slope, line)
        middle += pitch * random.uniform(0.95, 1.2)


def table(writer: SheetWriter) -> None:
    """Draw cells, each with a digit, a cross, a letter, or empty; perhaps with a heading."""
    random, size = writer.random, writer.size
    print_style = PenStyle.sample(random)
    wide, high = size * random.uniform(1.1, 2.3, 2)
    if writer.chance(0.6):
        wide = high
    share_printed = random.choice([0.0, 0.5, 1.0], p=[0.6, 0.3, 0.1])
    filled = random.uniform(0.3, 1.0)
    share_crosses = random.choice([0.0, 0.3], p=[0.75, 0.25])
    share_letters = random.choice([0.0, 0.3], p=[0.7, 0.3])
    slope, lean = random.normal(0, 0.03, 2)
    left, top = random.uniform(-wide, 0.5 * wide), random.uniform(-high, 0.5 * high)
    columns, rows = int((WIDTH - left) / wide) + 1, int((HEIGHT - top) / high) + 1
    if writer.chance(0.4):
        columns, rows = (int(random.integers(1, most + 1)) for most in (columns, rows))

    def at(column: float, row: float) -> tuple[float, float]:
        x, y = left + column * wide, top + row * high
        return x + lean * y, y + slope * x

    _borders(writer, columns, rows, at)
    loose = random.uniform(0.02, 0.16)
    for column in range(columns):
        for row in range(rows):
            if not writer.chance(filled):
                continue
            is_printed = writer.chance(share_printed)
            character = writer.digit()
            if writer.chance(share_letters):
                character = writer.any_of(string.ascii_letters)
            if writer.chance(share_crosses):
                character, is_printed = writer.any_of(CROSSES), False
            style = print_style if is_printed else writer.style
            ink, label, _ = writer.shape(character, size, style, is_printed)
            x, y = at(column + 0.5, row + 0.5)
            x, y = random.normal((x, y), loose * size)
            writer.put(character, ink, label, x - ink.shape[1] / 2, y - ink.shape[0] / 2)
    if writer.chance(0.3):
        x, y = at(0, rows + 0.3)
        small = size * random.uniform(0.3, 0.7)
        writer.write(
            f"{texts.word(random)} {texts.word(random)}", x, y, small, print_style, printed=True
        )


def _borders(
    writer: SheetWriter,
    columns: int,
    rows: int,
    at: Callable[[float, float], tuple[float, float]],
) -> None:
    """Draw a table's lines; every third one may be thick, cells may stand apart."""
    random, sheet = writer.random, writer.sheet
    thin, thick = Line.sample(random), Line.sample(random)
    every = int(random.choice([1, 3, 3, 100]))
    start = int(random.integers(3))
    gap = 0.0 if writer.chance(0.8) else random.uniform(0.03, 0.12)
    for column in range(columns + 1):
        line = thick if (column + start) % every == 0 else thin
        line.draw(sheet, at(column - gap, 0), at(column - gap, rows))
        if gap:
            line.draw(sheet, at(column + gap, 0), at(column + gap, rows))
    for row in range(rows + 1):
        line = thick if (row + start) % every == 0 else thin
        line.draw(sheet, at(0, row), at(columns, row))


def scattered(writer: SheetWriter) -> None:
    """Draw digits, letters and signs anywhere, on plain or ruled paper."""
    random, sheet = writer.random, writer.sheet
    rule_sheet(sheet, writer.size, random)
    share_others = random.choice([0.0, 0.5])
    taken: list[tuple[float, float, float, float]] = []
    for _ in range(random.integers(1, 14)):
        others = string.ascii_letters + "+-=()√%{}[]×÷"
        character = writer.any_of(others) if writer.chance(share_others) else writer.digit()
        ink, label, _ = writer.shape(character, writer.size, writer.style)
        height, width = ink.shape
        x, y = random.uniform(-8, WIDTH - width + 8), random.uniform(-8, HEIGHT - height + 8)
        if all(
            x + width < x0 - 1 or x > x1 + 1 or y + height < y0 - 1 or y > y1 + 1
            for x0, y0, x1, y1 in taken
        ):
            writer.put(character, ink, label, x, y)
            taken.append((x, y, x + width, y + height))


def single(writer: SheetWriter) -> None:
    """Draw one digit, perhaps in a box; or an empty box, or one with a cross."""
    random, size = writer.random, writer.size
    character = writer.digit()
    if writer.chance(0.15):
        character = writer.any_of(CROSSES)
    ink, label, _ = writer.shape(character, size, writer.style)
    height, width = ink.shape
    x, y = random.uniform(0, WIDTH - width), random.uniform(0, max(1, HEIGHT - height))
    if writer.chance(0.55):
        line = Line.sample(random)
        left, top, right, below = (size * random.uniform(0.02, 0.6, 4)).tolist()
        corners = [
            (x - left, y - top),
            (x + width + right, y - top),
            (x + width + right, y + height + below),
            (x - left, y + height + below),
        ]
        for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
            if writer.chance(0.8):
                side = Line.sample(random) if writer.chance(0.2) else line
                side.draw(writer.sheet, start, end)
        if writer.chance(0.2):
            return
    writer.put(character, ink, label, x, y)


def nothing(writer: SheetWriter) -> None:
    """Draw paper without writing."""
    rule_sheet(writer.sheet, writer.size, writer.random)

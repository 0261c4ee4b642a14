"""Results: the `Reading` of a picture with its digits, and the `Classification` of a whole one."""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

from PIL import Image
from torch import Tensor

from mnist_lit.reading.arrays import Box

MIN_LINE_OVERLAP = 0.1  # of two digits in a line, vertically, as a share of the smaller height


@dataclass(frozen=True)
class Digit:
    """A digit that was read.

    Attributes:
        digit: 0 to 9.
        confidence: its probability.
        box: left, top, right, bottom in pixels of the picture as seen (EXIF orientation applied).
        probabilities: of all ten digits, ``(10,)``.
        image: the classifier's input, ``(1, 28, 28)`` in [0, 1].
        line: number of the line of writing, from 0 at the top.
    """

    digit: int
    confidence: float
    box: Box
    probabilities: Tensor = field(repr=False)
    image: Tensor = field(repr=False)
    line: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "digit": self.digit,
            "confidence": round(self.confidence, 6),
            "box": self.box,
            "probabilities": [round(prob, 6) for prob in self.probabilities.tolist()],
        }

    def as_png(self) -> bytes:
        """Encode the classifier's input as PNG, ink white on black."""
        png = io.BytesIO()
        Image.fromarray((self.image[0] * 255).round().byte().numpy()).save(png, format="PNG")
        return png.getvalue()

    def _repr_html_(self) -> str:
        """Show the classifier's input and the digit in a notebook."""
        source = f"data:image/png;base64,{base64.b64encode(self.as_png()).decode()}"
        return (
            '<figure style="display: inline-block; margin: 0.5em; text-align: center">'
            f'<img src="{source}" alt="" width="56" height="56" style="image-rendering: pixelated">'
            f"<figcaption>{self.digit}<br><small>{self.confidence:.1%}</small></figcaption></figure>"
        )


@dataclass(frozen=True)
class Reading:
    """All digits of a picture, in reading order.

    Attributes:
        number: the digits as text, a space between lines; "" for none.
        digits: the digits one by one.
        note: what was left out, and why; "" for nothing.
    """

    number: str
    digits: tuple[Digit, ...]
    note: str = ""

    @classmethod
    def of(cls, digits: Sequence[Digit], note: str = "") -> "Reading":
        """Put digits into reading order."""
        read = [
            [replace(digits[index], line=number) for index in line]
            for number, line in enumerate(text_lines([digit.box for digit in digits]))
        ]
        number = " ".join("".join(str(digit.digit) for digit in line) for line in read)
        return cls(number, tuple(digit for line in read for digit in line), note)

    @property
    def text(self) -> str:
        """The number."""
        return self.number

    @property
    def confidence(self) -> float:
        """Probability that all digits are right; 1 without any."""
        return math.prod(digit.confidence for digit in self.digits)

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        answer = {"number": self.number, "digits": [digit.as_dict() for digit in self.digits]}
        return {**answer, "note": self.note} if self.note else answer

    def _repr_html_(self) -> str:
        """Show the number and each digit as the classifier sees it in a notebook."""
        number = html.escape(self.number) or "no digit found"
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        digits = "".join(digit._repr_html_() for digit in self.digits)
        return f'<p style="font-size: 2em">{number}</p>{note}<div>{digits}</div>'


@dataclass(frozen=True)
class Classification:
    """The class of a whole picture.

    Attributes:
        label: name of the class.
        confidence: its probability.
        probabilities: of all classes, by their names, the most probable first.
        note: which pages were left out; "" for none.
    """

    label: str
    confidence: float
    probabilities: Mapping[str, float]
    note: str = ""

    @classmethod
    def of(cls, classes: Sequence[str], probs: Tensor, note: str = "") -> "Classification":
        """Make it from the probabilities of K classes, ``(K,)``."""
        order = probs.argsort(descending=True, stable=True).tolist()
        by_name = {classes[index]: float(probs[index]) for index in order}
        return cls(classes[order[0]], float(probs[order[0]]), by_name, note)

    @property
    def text(self) -> str:
        """The class."""
        return self.label

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        rounded = {name: round(prob, 6) for name, prob in self.probabilities.items()}
        confidence = round(self.confidence, 6)
        answer = {"class": self.label, "confidence": confidence, "probabilities": rounded}
        return {**answer, "note": self.note} if self.note else answer


def joined(pages: Sequence[Reading]) -> Reading:
    """Join the readings of a file's pages into one, the lines of a page after those before it."""
    digits: list[Digit] = []
    for page in pages:
        first = digits[-1].line + 1 if digits else 0
        digits += [replace(digit, line=first + digit.line) for digit in page.digits]
    return Reading(
        " ".join(page.number for page in pages if page.number),
        tuple(digits),
        "; ".join(dict.fromkeys(page.note for page in pages if page.note)),
    )


def text_lines(boxes: Sequence[Box]) -> list[list[int]]:
    """Group boxes into lines of writing, which may slope.

    From left to right, a box joins the line whose last box overlaps it most in height.

    Returns:
        Indices of the boxes of each line from left to right, lines from top to bottom.
    """

    def overlap(line: list[int], box: Box) -> float:
        _, top, _, bottom = boxes[line[-1]]
        common = min(bottom, box[3]) - max(top, box[1])
        return common / min(bottom - top, box[3] - box[1])

    found: list[list[int]] = []
    for index in sorted(range(len(boxes)), key=lambda index: sum(boxes[index][::2])):
        box = boxes[index]
        line = max(found, key=lambda line: overlap(line, box), default=None)
        if line is None or overlap(line, box) < MIN_LINE_OVERLAP:
            found.append([index])
        else:
            line.append(index)
    return sorted(found, key=lambda line: mean(sum(boxes[index][1::2]) for index in line))

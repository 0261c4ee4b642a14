"""What a picture says: `Reading`, and the digits it is made of."""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image
from torch import Tensor

from mnist_lit.pictures import Box


@dataclass(frozen=True)
class Digit:
    """A digit that was read.

    Attributes:
        digit: which, 0 to 9.
        confidence: its probability.
        box: where it is, in pixels of the picture as seen (EXIF orientation applied).
        probabilities: of all ten, ``(10,)``.
        image: what the network saw, ``(1, 28, 28)`` in [0, 1].
        line: which line of writing it stands in, from 0 at the top.
    """

    digit: int
    confidence: float
    box: Box
    probabilities: Tensor
    image: Tensor
    line: int = 0

    def as_dict(self) -> dict[str, Any]:
        """What programs get, ready for JSON."""
        return {
            "digit": self.digit,
            "confidence": round(self.confidence, 6),
            "box": self.box,
            "probabilities": [round(prob, 6) for prob in self.probabilities.tolist()],
        }

    def as_png(self) -> bytes:
        """What the network saw, ink white on black."""
        png = io.BytesIO()
        Image.fromarray((self.image[0] * 255).round().byte().numpy()).save(png, format="PNG")
        return png.getvalue()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        source = f"data:image/png;base64,{base64.b64encode(self.as_png()).decode()}"
        return (
            '<figure style="display: inline-block; margin: 0.5em; text-align: center">'
            f'<img src="{source}" alt="" width="56" height="56" style="image-rendering: pixelated">'
            f"<figcaption>{self.digit}<br><small>{self.confidence:.1%}</small></figcaption></figure>"
        )


@dataclass(frozen=True)
class Reading:
    """What a picture says.

    Attributes:
        number: the digits of a line one after the other, a space between lines; "" for none.
        digits: the same, one by one.
        note: what was left out, and why; "" for nothing.
    """

    number: str
    digits: tuple[Digit, ...]
    note: str = ""

    @property
    def confidence(self) -> float:
        """The probability that all digits are right; 1 where there is none."""
        return math.prod(digit.confidence for digit in self.digits)

    def as_dict(self) -> dict[str, Any]:
        """What programs get, ready for JSON."""
        answer = {"number": self.number, "digits": [digit.as_dict() for digit in self.digits]}
        return {**answer, "note": self.note} if self.note else answer

    def _repr_html_(self) -> str:
        """What a notebook shows: the number, and below it what the network saw of each digit."""
        number = html.escape(self.number) or "no digit found"
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        digits = "".join(digit._repr_html_() for digit in self.digits)
        return f'<p style="font-size: 2em">{number}</p>{note}<div>{digits}</div>'


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

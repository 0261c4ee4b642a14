"""The HTML that pages are made of: text is escaped, pictures are inside."""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

STYLE = Path(__file__).with_name("page.css")


def document(title: str, heading: str, sections: Iterable[str]) -> str:
    """Build a whole page, which loads nothing; after its heading comes a table of contents.

    Surrogates, as in the name of a folder that is not UTF-8, are written as escapes.
    """
    body = "".join(sections)
    contents = "".join(
        f'<li><a href="#{anchor}">{name}</a></li>'
        for anchor, name in re.findall(r'<h2 id="(.*?)">(.*?)</h2>', body)
    )
    page = f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{heading}<nav><ul>{contents}</ul></nav>
{body}</main>
</body>
</html>
"""
    return page.encode(errors="backslashreplace").decode()


def section(title: str, how_to_read: str, *parts: str) -> str:
    """Build a section: its heading, a paragraph that explains it, and HTML."""
    anchor = re.sub(r"\W+", "-", title.lower())
    explained = f"<p>{escape(how_to_read)}</p>\n" if how_to_read else ""
    head = f'<h2 id="{anchor}">{escape(title)}</h2>'
    return f"<section>\n{head}\n{explained}{''.join(parts)}</section>\n"


def columns(*parts: str) -> str:
    """Put parts side by side where there is room, else one below the other."""
    return f'<div class="columns">\n{"".join(parts)}</div>\n'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Build a table whose first column names its rows."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>\n"
        for first, *rest in rows
    )
    head = f"<thead><tr>{head}</tr></thead>"
    return f'<div class="wide"><table class="{kind}">{head}\n<tbody>{body}</tbody></table></div>\n'


def grid(figures: Iterable[str], kind: str = "") -> str:
    """Small pictures beside one another."""
    return f'<div class="grid {kind}">\n{"".join(figures)}</div>\n'


def figure(picture: str, caption: str, kind: str = "") -> str:
    """A picture and what is below it, a line for each line of `caption`."""
    lines = "<br>".join(escape(line) for line in caption.splitlines())
    return f'<figure class="{kind}">{picture}<figcaption>{lines}</figcaption></figure>\n'


def picture(pixels: Tensor, description: str) -> str:
    """An image of a data set, in its own pixels.

    Args:
        pixels: ``(C, H, W)`` uint8; a single channel is ink, 255, on paper, 0.
        description: for whom cannot see it.
    """
    values = 255 - pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
    return embedded(values.numpy(), description)


def embedded(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], description: str) -> str:
    """An ``<img>`` of pixels, ``(H, W)`` or ``(H, W, 3)`` uint8."""
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, format="PNG")
    height, width = pixels.shape[:2]
    source = base64.b64encode(png.getvalue()).decode()
    return (
        f'<img src="data:image/png;base64,{source}" alt="{escape(description)}"'
        f' width="{width}" height="{height}">'
    )

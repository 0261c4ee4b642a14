"""Draw pictures that the packaged networks misread.

    python tests/studies/misread.py .github/misread.png [--num 200]

draws the first pictures of each kind of `stress.py` that are misread, made from test images.
"""

import argparse
from io import BytesIO
from pathlib import Path

import stress
from matplotlib.figure import Figure
from PIL import Image
from rich.progress import track

from mnist_lit.reading.classifier import Classifier

EACH = 2  # of a kind
COLUMNS = 6


def misread(kind: str, num: int, known: set[str]) -> list[tuple[stress.Stress, str]]:
    """Pictures of a kind and how they are read, of numbers that are not `known` yet."""
    classifier = Classifier.load()
    found: list[tuple[stress.Stress, str]] = []
    for picture in stress.make(kind, "test", num):
        read = classifier.read(picture.file).number
        if read != picture.number and picture.number not in known:
            known.add(picture.number)
            found.append((picture, read))
            if len(found) == EACH:
                break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw what is misread.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--num", type=int, default=200, help="pictures of each kind to look at")
    given = parser.parse_args()
    known: set[str] = set()
    kinds = track(stress.KINDS, "reading")
    shown = [(kind, *both) for kind in kinds for both in misread(kind, given.num, known)]
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots(-(-len(shown) // COLUMNS), COLUMNS).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, (kind, picture, read) in zip(axes, shown, strict=False):
        axis.imshow(Image.open(BytesIO(picture.file)).convert("RGB"))
        title = f"{kind}\n{picture.number or 'nothing'}, read {read or 'as nothing'}"
        axis.set_title(title, fontsize=9)
    figure.savefig(given.output, dpi=80)


if __name__ == "__main__":
    main()

"""What the packaged networks still misread, in one picture.

    python tests/misread.py .github/misread.png [--num 200]

draws the first of each kind of `tests/stress.py`, made from test images, that is not read right.
"""

import argparse
from io import BytesIO
from itertools import islice
from pathlib import Path

import stress
from matplotlib.figure import Figure
from PIL import Image
from rich.progress import track

from mnist_lit.classifier import Classifier

EACH = 2  # of a kind


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw what is misread.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--num", type=int, default=200, help="pictures of each kind to look at")
    given = parser.parse_args()
    classifier = Classifier.load()
    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = iter(figure.subplots(EACH, len(stress.KINDS)).T.flatten())
    for kind in track(stress.KINDS, "reading"):
        pictures = stress.make(kind, "test", given.num)
        answers = ((picture, classifier.read(picture.file).number) for picture in pictures)
        wrong = ((picture, read) for picture, read in answers if read != picture.number)
        for axis, (picture, read) in zip(islice(axes, EACH), wrong, strict=False):
            axis.imshow(Image.open(BytesIO(picture.file)), cmap="gray")
            axis.set_title(f"{kind}\n{picture.number}\nread: {read or 'nothing'}", fontsize=8)
            axis.axis("off")
    figure.savefig(given.output, dpi=80)


if __name__ == "__main__":
    main()

"""`predict` with a network of other classes than digits: the class of each whole picture."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from mnist_lit.commands.output import path_cell, print_json, print_kaggle
from mnist_lit.commands.truth import MIN_WIDTH, MOST_LISTED, SURE, Labelled, interval
from mnist_lit.errors import printable
from mnist_lit.reading.classifier import Classifier
from mnist_lit.reading.limits import PictureError
from mnist_lit.reading.result import Classification

BATCH_SIZE = 64  # pictures that are classified at once
NUM_THREADS = 2  # that decode
UNSURE = 0.9  # a class with a smaller probability is marked


class Classified(NamedTuple):
    """A picture's path and its class, or the error if it could not be read."""

    path: str
    answer: Classification | PictureError


def classify(classifier: Classifier, paths: Sequence[str]) -> Iterator[Classified]:
    """Classify picture files in batches, in their order; of several pages, the first."""

    def read(path: str) -> torch.Tensor | PictureError:
        try:
            if Path(path).is_dir():
                raise PictureError(f"{path} is a folder without pictures")
            return classifier.preprocessing(path)
        except PictureError as error:
            return error

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for start in range(0, len(paths), BATCH_SIZE):
            batch = paths[start : start + BATCH_SIZE]
            read_ones = list(threads.map(read, batch))
            images = [image for image in read_ones if isinstance(image, torch.Tensor)]
            rows = iter(classifier.probabilities(torch.stack(images)) if images else ())
            for path, found in zip(batch, read_ones, strict=True):
                if isinstance(found, PictureError):
                    yield Classified(path, found)
                else:
                    yield Classified(path, Classification.of(classifier.classes, next(rows)))


def measure(results: Iterable[Classified], pictures: Sequence[Labelled], by: str | None) -> int:
    """Print how many pictures are classified right, then those that are not.

    Args:
        results: of all pictures.
        pictures: the same ones, with their classes as truth.
        by: name of the column of groups; None: no groups.

    Returns:
        The exit code: 1 where a picture could not be read.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    outcomes = list(zip(pictures, (answer for _, answer in results), strict=True))
    console = Console(highlight=False, width=max(MIN_WIDTH, Console().width))
    table = Table(Column(by or "", overflow="fold"), "pictures", "right", "", "95 %")

    def add(name: str, some: Sequence[tuple[Labelled, Classification | PictureError]]) -> None:
        right = sum(_is_right(*outcome) for outcome in some)
        low, high = interval(right, len(some))
        share = f"{right / len(some):.1%}"
        table.add_row(Text(name), f"{len(some):,}", f"{right:,}", share, f"{low:.0%}-{high:.0%}")

    for group in sorted({picture.group for picture in pictures}) if by else []:
        add(printable(group), [outcome for outcome in outcomes if outcome[0].group == group])
    table.add_section()
    add("all", outcomes)
    console.print(table)
    sure = [one for one in outcomes if _confidence(one[1]) > SURE]
    num_right = sum(_is_right(*one) for one in sure)
    console.print(f"of {len(sure)} with more than {SURE:.0%} confidence, {num_right} are right")
    wrong = sorted((o for o in outcomes if not _is_right(*o)), key=lambda o: -_confidence(o[1]))
    if wrong:
        listed = Table(*(Column(name, overflow="fold") for name in ("file", "truth", "class", "")))
        for picture, answer in wrong[:MOST_LISTED]:
            found = answer.label if isinstance(answer, Classification) else str(answer)
            cells = (Path(picture.path).name, picture.truth, found)
            listed.add_row(*(Text(printable(c)) for c in cells), f"{_confidence(answer):.1%}")
        console.print(listed)
    return int(any(isinstance(answer, PictureError) for _, answer in outcomes))


def _is_right(picture: Labelled, answer: Classification | PictureError) -> bool:
    return isinstance(answer, Classification) and answer.label == picture.truth


def _confidence(answer: Classification | PictureError) -> float:
    return answer.confidence if isinstance(answer, Classification) else 0.0


# --- forms of output: each prints all results and returns the exit code ---------------------------


def _print_json(results: Iterable[Classified]) -> int:
    exit_code = 0
    for path, answer in results:
        if isinstance(answer, PictureError):
            row, exit_code = {"path": path, "error": str(answer)}, 1
        else:
            row = {"path": path, **answer.as_dict()}
        print_json(row)
    return exit_code


def _print_csv(results: Iterable[Classified]) -> int:
    exit_code = 0
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["path", "class", "confidence", "error"])
    for path, answer in results:
        if isinstance(answer, PictureError):
            rows.writerow([path_cell(path), "", "", path_cell(str(answer))])
            exit_code = 1
        else:
            rows.writerow([path_cell(path), answer.label, f"{answer.confidence:.6f}", ""])
        sys.stdout.flush()
    return exit_code


def _print_kaggle(results: Iterable[Classified]) -> int:
    return print_kaggle(
        (Path(path).stem, answer if isinstance(answer, PictureError) else answer.label)
        for path, answer in results
    )


def _print_table(results: Iterable[Classified]) -> int:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(name, overflow="fold") for name in ("file", "class", "confidence")))
    exit_code = 0
    for path, answer in results:
        name = Text(printable(path))
        if isinstance(answer, PictureError):
            problem = printable(str(answer).removeprefix(path).strip())
            table.add_row(name, Text(problem, "red"), "")
            exit_code = 1
        else:
            style = "yellow" if answer.confidence < UNSURE else ""
            confidence = f"{min(answer.confidence, 0.999):.1%}"
            table.add_row(name, Text(answer.label, f"bold {style}"), Text(confidence, style))
    Console().print(table)
    return exit_code


FORMATS: dict[str, Callable[[Iterable[Classified]], int]] = {
    "table": _print_table,
    "json": _print_json,
    "csv": _print_csv,
    "kaggle": _print_kaggle,
}

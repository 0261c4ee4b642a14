"""`predict`: the digits in picture files, or their classes; as a table, as JSON or as CSV."""

import csv
import glob
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mnist_lit.commands.arguments import ArgumentParser, add_network_arguments, checkpoint_path
from mnist_lit.commands.output import path_cell, print_json, print_kaggle
from mnist_lit.commands.truth import Outcome, labelled, show
from mnist_lit.errors import listed, printable
from mnist_lit.files import user_path, write_asked
from mnist_lit.models import named_class
from mnist_lit.reading.classifier import Classifier
from mnist_lit.reading.decode import SUFFIXES, Page, pages_of
from mnist_lit.reading.ink import Ink, find_ink
from mnist_lit.reading.limits import PictureError
from mnist_lit.reading.result import Classification, Reading, joined

PAGES_AHEAD = 8  # decoded while others are read
NUM_THREADS = 2  # that decode
BATCH_SIZE = 64  # pictures that are classified at once
MIN_PAGES_OF_BAR = 64  # fewer are read at once
UNSURE = 0.9  # an answer with a smaller probability is marked


class Result(NamedTuple):
    """The answer to one page of a file, or the error of reading it.

    Attributes:
        path: the file.
        answer: one of these.
        outcome: the answer compared with the truth; None: unknown.
        page: counted from 1; None of a file with one page, or where all are taken together.
    """

    path: str
    answer: Reading | Classification | PictureError
    outcome: Outcome | None = None
    page: int | None = None


def main(args: Sequence[str]) -> int:
    """Read files and print what they say; `args` begins with the command's name.

    Returns:
        The exit code: 1 where a file could not be read.
    """
    parser = ArgumentParser(
        "predict",
        "Reads the digits in picture files: drawn, scanned or photographed. With a network that was"
        " trained on other classes, tells the class of each picture.",
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="a picture, a folder or a pattern")
    add_network_arguments(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="table",
        help="what to print; kaggle: the columns id and label; default: %(default)s",
    )
    parser.add_argument(
        "--save_seen", metavar="DIR", type=Path, help="write there what the network saw, as PNG"
    )
    parser.add_argument(
        "--truth",
        metavar="CSV",
        type=user_path,
        help="measure on the pictures that its column file names, in its folder or in FILE; their"
        " numbers, or classes, are in its column truth",
    )
    parser.add_argument(
        "--by", metavar="COLUMN", help="with --truth: another column, to count its values apart"
    )
    given = parser.parse_args(args[1:])
    if not given.files and not given.truth:
        parser.error("name a picture, a folder or a pattern")
    if given.by and not given.truth:
        parser.error("--by goes with --truth")
    classifier = Classifier.load(checkpoint_path(given.ckpt_path), named_class(given.network))
    classes = None if classifier.reads_digits else classifier.classes
    pictures = labelled(given.truth, given.by, given.files, classes) if given.truth else []
    if given.save_seen and classes:
        parser.error("--save_seen goes with networks that read digits")
    paths = [picture.path for picture in pictures] or list(_expand(given.files))
    with warnings.catch_warnings():
        # Pillow's, on odd metadata and on sizes, which `check_size` limits.
        warnings.filterwarnings("ignore", module="PIL")
        if classes:
            results = _with_progress(_classify(classifier, paths), len(paths))
        else:
            files = [pages_of(path) for path in paths]
            pages = [page for of_one in files for page in of_one]
            results = _with_progress(_read(classifier, pages), len(pages))
            if given.save_seen:
                results = _saving(results, given.save_seen)
            if pictures:
                results = _whole_files(iter(results), map(len, files))
        if pictures:
            results = (
                result._replace(outcome=Outcome(picture, result.answer))
                for result, picture in zip(results, pictures, strict=True)
            )
            if given.format == "table":
                return show([result.outcome for result in results if result.outcome], given.by)
        return FORMATS[given.format](results, "class" if classes else "number")


def _whole_files(results: Iterator[Result], nums_pages: Iterable[int]) -> Iterator[Result]:
    """Take the pages of each file together, or the first error among them."""
    for num_pages in nums_pages:
        pages = list(islice(results, num_pages))
        answers = [page.answer for page in pages]
        error = next((answer for answer in answers if isinstance(answer, PictureError)), None)
        readings = [answer for answer in answers if isinstance(answer, Reading)]
        yield Result(pages[0].path, error or joined(readings))


def _expand(patterns: Iterable[str]) -> Iterator[str]:
    """The files that were meant: a folder's pictures, a pattern's matches, each sorted.

    A folder without any stands for itself, so that it is said of it.
    """
    for pattern in patterns:
        if os.path.isdir(pattern):
            yield from _pictures_in(pattern) or [pattern]
        else:
            matches = [] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
            yield from sorted(path for path in matches if not os.path.isdir(path)) or [pattern]


def _pictures_in(folder: str) -> list[str]:
    """List the pictures in a folder and say what else is skipped; hidden files are not counted."""
    try:
        inside = sorted(path for path in Path(folder).iterdir() if not path.name.startswith("."))
    except OSError:  # which is met again, and said, where the folder stands for itself
        return []
    pictures: list[Path] = []
    skipped: list[Path] = []
    for path in inside:
        is_picture = path.suffix.lower() in SUFFIXES | {".pdf"} and path.is_file()
        (pictures if is_picture else skipped).append(path)
    if skipped:
        names = [f"{path.name}/" if path.is_dir() else path.name for path in skipped]
        line = f"{folder}: skipped, as no pictures: {listed(names)}"
        print(printable(line), file=sys.stderr)
    return [str(path) for path in pictures]


def _read(classifier: Classifier, pages: Sequence[Page]) -> Iterator[Result]:
    """Read pages in their order; the next ones are decoded meanwhile."""
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        waiting = iter(pages)
        ahead = deque(threads.submit(_find, page) for page in islice(waiting, PAGES_AHEAD))
        for page in pages:
            found = ahead.popleft().result()
            ahead += [threads.submit(_find, following) for following in islice(waiting, 1)]
            answer = classifier.read_ink(found) if isinstance(found, Ink) else found
            yield Result(str(page.picture), answer, page=page.number)


def _find(page: Page) -> Ink | PictureError:
    try:
        _refuse_folder(str(page.picture))
        return find_ink(page)
    except PictureError as error:
        return error


def _refuse_folder(path: str) -> None:
    if os.path.isdir(path) and os.access(path, os.R_OK):
        raise PictureError(f"{path} is a folder without pictures")


def _classify(classifier: Classifier, paths: Sequence[str]) -> Iterator[Result]:
    """Classify picture files in batches, in their order; of several pages, the first."""

    def read(path: str) -> torch.Tensor | PictureError:
        try:
            _refuse_folder(path)
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
                    yield Result(path, found)
                else:
                    yield Result(path, Classification.of(classifier.classes, next(rows)))


def _with_progress(results: Iterable[Result], num_pages: int) -> Iterable[Result]:
    """Show a progress bar on standard error if it is a terminal and there are many pages."""
    if num_pages < MIN_PAGES_OF_BAR or not sys.stderr.isatty():
        return results
    from rich.console import Console
    from rich.progress import track

    return track(results, "reading", num_pages, console=Console(stderr=True), transient=True)


def _saving(results: Iterable[Result], folder: Path) -> Iterator[Result]:
    """Write each digit as the network saw it: ``0001_name_2_7.png``, page, place and digit."""
    for number, result in enumerate(results, start=1):
        if isinstance(result.answer, Reading):
            name = re.sub(r"[^\w.-]", "_", Path(result.path).stem)[:80]
            for place, digit in enumerate(result.answer.digits, start=1):
                path = folder / f"{number:04}_{name}_{place}_{digit.digit}.png"
                write_asked(path, digit.as_png(), "--save_seen")
        yield result


# --- forms of output: each prints all results, of a kind, and returns the exit code ---------------


def _print_json(results: Iterable[Result], kind: str) -> int:
    exit_code = 0
    for path, answer, outcome, page in results:
        row: dict[str, Any] = {"path": path} if page is None else {"path": path, "page": page}
        if outcome:
            row |= outcome.as_dict()
        if isinstance(answer, PictureError):
            row["error"] = str(answer)
            exit_code = 1
        else:
            row |= answer.as_dict()
        print_json(row)
    return exit_code


def _print_csv(results: Iterable[Result], kind: str) -> int:
    exit_code = 0
    rows = csv.writer(sys.stdout, lineterminator="\n")
    header = ["path", kind, "confidence", "error", "note", "page"]
    for number, (path, answer, outcome, page) in enumerate(results):
        truth = outcome.as_dict() if outcome else {}
        if number == 0:
            rows.writerow([*header, *truth])
        beside = ["" if page is None else page, *truth.values()]
        if isinstance(answer, PictureError):
            rows.writerow([path_cell(path), "", "", path_cell(str(answer)), "", *beside])
            exit_code = 1
        else:
            confidence = f"{answer.confidence:.6f}" if answer.text else ""
            rows.writerow([path_cell(path), answer.text, confidence, "", answer.note, *beside])
        sys.stdout.flush()
    return exit_code


def _print_kaggle(results: Iterable[Result], kind: str) -> int:
    def name(result: Result) -> str:
        page = "" if result.page is None else f"-{result.page}"
        return f"{Path(result.path).stem}{page}"

    return print_kaggle(
        (
            name(result),
            result.answer if isinstance(result.answer, PictureError) else result.answer.text,
        )
        for result in results
    )


def _print_table(results: Iterable[Result], kind: str) -> int:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    # Folded, because digits that a narrow terminal cut off would be missing.
    columns = [Column(name, overflow="fold") for name in ("file", kind, "confidence")]
    table = Table(*columns)
    exit_code = 0
    for path, answer, _, page in results:
        name = Text(printable(path) if page is None else f"{printable(path)}, page {page}")
        if isinstance(answer, PictureError):
            problem = printable(str(answer).removeprefix(path).strip())
            table.add_row(name, Text(problem, "red"), "")
            exit_code = 1
        elif not answer.text:
            table.add_row(name, Text("no digit found", "yellow"), Text(answer.note, "yellow"))
        elif answer.confidence < UNSURE:
            unsure = f"{answer.confidence:.1%} not sure\n{answer.note}".strip()
            table.add_row(name, Text(printable(answer.text), "bold yellow"), Text(unsure, "yellow"))
        else:
            sure = f"{min(answer.confidence, 0.999):.1%}\n{answer.note}".strip()
            table.add_row(name, Text(printable(answer.text), "bold"), sure)
    Console().print(table)
    return exit_code


FORMATS: dict[str, Callable[[Iterable[Result], str], int]] = {
    "table": _print_table,
    "json": _print_json,
    "csv": _print_csv,
    "kaggle": _print_kaggle,
}

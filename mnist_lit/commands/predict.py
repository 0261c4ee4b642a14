"""`predict`: the digits in picture files, or their classes; as a table, as JSON or as CSV."""

import glob
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from mnist_lit.commands.arguments import ArgumentParser, add_network_arguments, checkpoint_path
from mnist_lit.commands.output import FORMATS, Result
from mnist_lit.commands.truth import Outcome, labelled, print_outcomes
from mnist_lit.errors import join_names, printable
from mnist_lit.files import user_path, write_output
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


D = TypeVar("D", Ink, torch.Tensor)


def main(args: Sequence[str]) -> int:
    """Read files and print the results; `args` begins with the command's name.

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
        "--save_seen",
        metavar="DIR",
        type=user_path,
        help="write the network's inputs there, as PNG",
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
    if given.by and not (given.truth and given.format == "table"):
        parser.error("--by needs --truth and --format table")
    classifier = Classifier.load(checkpoint_path(given.ckpt_path), named_class(given.network))
    classes = None if classifier.reads_digits else classifier.classes
    pictures = labelled(given.truth, given.by, given.files, classes) if given.truth else []
    if given.save_seen and classes:
        parser.error("--save_seen needs a network that reads digits")
    paths = [picture.path for picture in pictures] or list(_expand(given.files))
    with warnings.catch_warnings():
        # Pillow's, on odd metadata and on sizes, which `check_size` limits.
        warnings.filterwarnings("ignore", module="PIL")
        # A labelled picture of a class is one page; the number in a file may go over several.
        files = [pages_of(path, 1) if classes and pictures else pages_of(path) for path in paths]
        pages = [page for of_one in files for page in of_one]
        read = _classify if classes else _read
        results = _with_progress(read(classifier, pages), len(pages))
        if given.save_seen:
            results = _saving(results, given.save_seen)
        if pictures and not classes:
            results = _whole_files(iter(results), map(len, files))
        if pictures:
            results = (
                result._replace(outcome=Outcome(picture, result.answer))
                for result, picture in zip(results, pictures, strict=True)
            )
            if given.format == "table":
                return print_outcomes(
                    [result.outcome for result in results if result.outcome], given.by
                )
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
    """Yield the files that were meant: a folder's pictures, a pattern's matches, each sorted.

    A folder without pictures is yielded as it is, so that reading it reports the error.
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
    except OSError:  # raised again, and reported, when the folder itself is read
        return []
    pictures: list[Path] = []
    skipped: list[Path] = []
    for path in inside:
        is_picture = path.suffix.lower() in SUFFIXES | {".pdf"} and path.is_file()
        (pictures if is_picture else skipped).append(path)
    if skipped:
        names = [f"{path.name}/" if path.is_dir() else path.name for path in skipped]
        line = f"{folder}: skipped, not pictures: {join_names(names)}"
        print(printable(line), file=sys.stderr)
    return [str(path) for path in pictures]


def _read(classifier: Classifier, pages: Sequence[Page]) -> Iterator[Result]:
    """Read pages in their order; the next ones are decoded meanwhile."""
    find = partial(_decoded, find_ink)
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        waiting = iter(pages)
        ahead = deque(threads.submit(find, page) for page in islice(waiting, PAGES_AHEAD))
        for page in pages:
            found = ahead.popleft().result()
            ahead += [threads.submit(find, following) for following in islice(waiting, 1)]
            answer = classifier.read_ink(found) if isinstance(found, Ink) else found
            yield Result(str(page.picture), answer, page=page.number)


def _decoded(decode: Callable[[Page], D], page: Page) -> D | PictureError:
    """Decode a page; return the error of one that cannot be read."""
    path = str(page.picture)
    if os.path.isdir(path) and os.access(path, os.R_OK):
        return PictureError(f"{path} is a folder without pictures")
    try:
        return decode(page)
    except PictureError as error:
        return error


def _classify(classifier: Classifier, pages: Sequence[Page]) -> Iterator[Result]:
    """Classify pages in batches, in their order."""
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for start in range(0, len(pages), BATCH_SIZE):
            batch = pages[start : start + BATCH_SIZE]
            decoded = list(threads.map(partial(_decoded, classifier.preprocessing), batch))
            images = [image for image in decoded if isinstance(image, torch.Tensor)]
            rows = iter(classifier.probabilities(torch.stack(images)) if images else ())
            for page, found in zip(batch, decoded, strict=True):
                if isinstance(found, PictureError):
                    answer: Classification | PictureError = found
                else:
                    answer = Classification.of(classifier.classes, next(rows), page.note)
                yield Result(str(page.picture), answer, page=page.number)


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
                write_output(path, digit.as_png(), "--save_seen")
        yield result

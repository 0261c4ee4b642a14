"""Measure readings against known numbers: `predict --truth`."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from mnist_lit.errors import UserError, listed, printable
from mnist_lit.reading.limits import PictureError
from mnist_lit.reading.result import Reading

SURE = 0.99
MOST_LISTED = 50
MIN_WIDTH = 80  # characters that the table of counts takes
WRONG_COLUMNS = ("file", "truth", "read", "wrong", "confidence")
NORMAL_95 = 1.959964  # standard deviations, either way, that hold 95 %


class Labelled(NamedTuple):
    """A picture whose number is known.

    Attributes:
        path: where it is.
        truth: its digits, a space between lines; or its class.
        group: value of the column ``--by``.
    """

    path: str
    truth: str
    group: str

    @property
    def digits(self) -> str:
        """Return the digits of all lines."""
        return "".join(self.truth.split())


class Outcome(NamedTuple):
    """The reading of a picture whose number is known."""

    picture: Labelled
    answer: Reading | PictureError

    @property
    def number(self) -> str:
        return self.answer.number if isinstance(self.answer, Reading) else ""

    @property
    def confidence(self) -> float:
        return self.answer.confidence if isinstance(self.answer, Reading) else 0.0

    @property
    def is_whole(self) -> bool:
        """True if all digits and lines are right."""
        return (
            isinstance(self.answer, Reading) and self.number.split() == self.picture.truth.split()
        )

    @property
    def digits_wrong(self) -> int:
        """Number of missing, additional or wrong digits, whatever their lines."""
        return edit_distance("".join(self.number.split()), self.picture.digits)


def labelled(
    path: Path, by: str | None, folders: Sequence[str], classes: Sequence[str] | None = None
) -> list[Labelled]:
    """Pictures and their numbers, from a CSV file with the columns ``file`` and ``truth``.

    Args:
        path: the file.
        by: another column, whose values say what is counted together.
        folders: where the pictures are, at most one; by default where the file is.
        classes: allowed truth values; None: the truth is a number.

    Raises:
        UserError: it cannot be read, or says something else.
    """
    folder = Path(folders[0]) if folders else path.parent
    if len(folders) > 1:
        raise UserError(f"with --truth, name at most one folder: {' '.join(folders)}")
    if folders and not folder.is_dir():
        raise UserError(f"with --truth, name the folder of the pictures: {folder} is none")
    if path.exists() and not path.is_file():
        raise UserError(f"--truth {path} is no file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            for column in ("file", "truth", *([by] if by else [])):
                if column not in columns:
                    raise UserError(
                        f"--truth {path} has no column {column}; it has {', '.join(columns)}"
                    )
                if columns.count(column) > 1:
                    raise UserError(
                        f"--truth {path} has the column {column} twice: rename or remove one"
                    )
            found = [
                _labelled(f"--truth {path}, line {rows.line_num}", folder, row, by, classes)
                for row in rows
            ]
    except OSError as error:
        raise UserError(f"--truth {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--truth {path} is no CSV: {error}") from error
    if not found:
        raise UserError(f"--truth {path} names no pictures")
    return found


def _labelled(
    place: str,
    folder: Path,
    row: Mapping[str, str | None],
    by: str | None,
    classes: Sequence[str] | None,
) -> Labelled:
    file, truth, group = row["file"], row["truth"], row[by] if by else ""
    if classes:
        is_truth, expected = truth in classes, f"class are expected, one of {listed(classes, 8)}"
    else:
        is_truth = truth is not None and set(truth) <= set("0123456789 ")
        expected = "truth are expected, digits with a space between lines"
    if not file or truth is None or not is_truth:
        raise UserError(f"{place}: a file and its {expected}, not {file!r} and {truth!r}")
    return Labelled(str(folder / file), truth, group or "")


def edit_distance(one: str, other: str) -> int:
    """Count insertions, deletions and substitutions that turn one text into the other.

    Source: Levenshtein, "Binary codes capable of correcting deletions, insertions and reversals"
    (1966), by Wagner and Fischer's table, a row at a time.
    """
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, start=1):
        before, row = row, [i]
        for j, another in enumerate(other, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (char != another)))
    return row[-1]


def interval(right: int, total: int) -> tuple[float, float]:
    """Compute the 95 % confidence interval of a share.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    share, z = right / total, NORMAL_95
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def show(outcomes: Sequence[Outcome], by: str | None) -> None:
    """Print how many numbers are read whole, and how many digits wrong; then what went wrong.

    Args:
        outcomes: of all pictures.
        by: name of the column of groups; None: no groups.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    # On a narrower terminal columns would be left out; there, the terminal breaks the lines.
    console = Console(highlight=False, width=max(MIN_WIDTH, Console().width))
    counts = ("pictures", "whole", "", "95 %", "digits", "wrong", "")
    table = Table(Column(by or "", overflow="fold"), *counts)
    groups = sorted({outcome.picture.group for outcome in outcomes}) if by else []
    for group in groups:
        some = [outcome for outcome in outcomes if outcome.picture.group == group]
        table.add_row(Text(printable(group)), *_counts(some))
    table.add_section()
    table.add_row("all", *_counts(outcomes))
    console.print(table)
    sure = [outcome for outcome in outcomes if outcome.number and outcome.confidence > SURE]
    right = sum(outcome.is_whole for outcome in sure)
    console.print(f"of {len(sure)} read with more than {SURE:.0%} confidence, {right} are right")
    wrong = sorted((outcome for outcome in outcomes if not outcome.is_whole), key=_badness)
    if wrong:
        listed = Table(*(Column(name, overflow="fold") for name in WRONG_COLUMNS))
        for outcome in wrong[:MOST_LISTED]:
            listed.add_row(*map(Text, _described(outcome)))
        console.print(listed)
    if len(wrong) > MOST_LISTED:
        console.print(f"and {len(wrong) - MOST_LISTED} more: --format csv lists all")


def _counts(outcomes: Sequence[Outcome]) -> Iterator[str]:
    whole = sum(outcome.is_whole for outcome in outcomes)
    digits = sum(len(outcome.picture.digits) for outcome in outcomes)
    wrong = sum(outcome.digits_wrong for outcome in outcomes)
    low, high = interval(whole, len(outcomes))
    yield f"{len(outcomes):,}"
    yield f"{whole:,}"
    yield f"{whole / len(outcomes):.1%}"
    yield f"{low:.0%}-{high:.0%}"
    yield f"{digits:,}"
    yield f"{wrong:,}"
    yield f"{wrong / digits:.1%}" if digits else ""


def _badness(outcome: Outcome) -> tuple[float, float]:
    """Sorts the worst first: the larger share of digits wrong, then the surer."""
    length = max(1, len(outcome.picture.digits))
    return -outcome.digits_wrong / length, -outcome.confidence


def _described(outcome: Outcome) -> Iterable[str]:
    is_read = isinstance(outcome.answer, Reading)
    yield printable(Path(outcome.picture.path).name)
    yield outcome.picture.truth or "no digit"
    problem = printable(str(outcome.answer).removeprefix(outcome.picture.path).strip())
    yield outcome.number or ("no digit found" if is_read else problem)
    yield str(outcome.digits_wrong)
    yield f"{outcome.confidence:.1%}" if outcome.number else ""

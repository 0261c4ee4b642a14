"""Measure answers against known numbers or classes: `predict --truth`."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mnist_lit.errors import UserError, join_names, printable
from mnist_lit.reading.limits import PictureError
from mnist_lit.reading.result import Classification, Reading
from mnist_lit.reports.intervals import wilson_interval

HIGH_CONFIDENCE = 0.99
MOST_LISTED = 50
MIN_WIDTH = 80  # characters that the table of counts takes


class LabelledPicture(NamedTuple):
    """A picture whose number or class is known.

    Attributes:
        path: where it is.
        truth: its digits, a space between lines; or its class.
        group: value of the column ``--by``.
        is_class: True if the truth is a class.
    """

    path: str
    truth: str
    group: str
    is_class: bool

    @property
    def digits(self) -> str:
        """Return the digits of all lines."""
        return "".join(self.truth.split())


class Outcome(NamedTuple):
    """The answer to a picture whose number or class is known."""

    picture: LabelledPicture
    answer: Reading | Classification | PictureError

    @property
    def text(self) -> str:
        return "" if isinstance(self.answer, PictureError) else self.answer.text

    @property
    def confidence(self) -> float:
        return 0.0 if isinstance(self.answer, PictureError) else self.answer.confidence

    @property
    def is_right(self) -> bool:
        """True if the class, or all digits and lines, are right."""
        is_read = not isinstance(self.answer, PictureError)
        return is_read and self.text.split() == self.picture.truth.split()

    @property
    def digits_wrong(self) -> int:
        """Number of missing, additional or wrong digits, whatever their lines."""
        return edit_distance("".join(self.text.split()), self.picture.digits)

    def as_dict(self) -> dict[str, Any]:
        """Convert to the columns that follow the answer's."""
        if self.picture.is_class:
            return {"truth": self.picture.truth}
        return {"truth": self.picture.truth, "digits_wrong": self.digits_wrong}


def labelled(
    path: Path, by: str | None, folders: Sequence[str], classes: Sequence[str] | None = None
) -> list[LabelledPicture]:
    """Read a CSV file with the columns ``file`` and ``truth``, a number or a class.

    Args:
        path: the file.
        by: another column, whose values say what is counted together.
        folders: where the pictures are, at most one; by default where the file is.
        classes: allowed truth values; None: the truth is a number.

    Raises:
        UserError: it cannot be read, or a row is invalid.
    """
    folder = Path(folders[0]) if folders else path.parent
    if len(folders) > 1:
        raise UserError(f"with --truth, name at most one folder: {' '.join(folders)}")
    if folders and not folder.is_dir():
        raise UserError(f"with --truth, name the folder of the pictures: {folder} is not one")
    if path.exists() and not path.is_file():
        raise UserError(f"--truth {path} is not a file")
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
        raise UserError(f"--truth {path} is not CSV: {error}") from error
    if not found:
        raise UserError(f"--truth {path} names no pictures")
    return found


def _labelled(
    place: str,
    folder: Path,
    row: Mapping[str, str | None],
    by: str | None,
    classes: Sequence[str] | None,
) -> LabelledPicture:
    file, truth, group = row["file"], row["truth"], row[by] if by else ""
    if classes:
        is_truth = truth in classes
        expected = f"class are expected, one of {join_names(classes, 8)}"
    else:
        is_truth = truth is not None and set(truth) <= set("0123456789 ")
        expected = "truth are expected, digits with a space between lines"
    if not file or truth is None or not is_truth:
        raise UserError(f"{place}: a file and its {expected}, not {file!r} and {truth!r}")
    return LabelledPicture(str(folder / file), truth, group or "", bool(classes))


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


def print_outcomes(outcomes: Sequence[Outcome], by: str | None) -> int:
    """Print how many answers are right, of numbers also how many digits; then what is wrong.

    Args:
        outcomes: of all pictures, one at least.
        by: name of the column of groups; None: no groups.

    Returns:
        The exit code: 1 where a picture could not be read.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    of_digits = () if outcomes[0].picture.is_class else ("digits", "wrong", "")
    # On a narrower terminal columns would be left out; there, the terminal breaks the lines.
    console = Console(highlight=False, width=max(MIN_WIDTH, Console().width))
    table = Table(Column(by or "", overflow="fold"), "pictures", "right", "", "95 %", *of_digits)
    groups = sorted({outcome.picture.group for outcome in outcomes}) if by else []
    for group in groups:
        some = [outcome for outcome in outcomes if outcome.picture.group == group]
        table.add_row(Text(printable(group)), *_counts(some))
    table.add_section()
    table.add_row("all", *_counts(outcomes))
    console.print(table)
    sure = [
        outcome for outcome in outcomes if outcome.text and outcome.confidence > HIGH_CONFIDENCE
    ]
    right = sum(outcome.is_right for outcome in sure)
    console.print(
        f"of {len(sure)} with more than {HIGH_CONFIDENCE:.0%} confidence, {right} are right"
    )
    wrong = sorted((outcome for outcome in outcomes if not outcome.is_right), key=_badness)
    if wrong:
        columns = ("file", "truth", "read", *(["wrong"] if of_digits else []), "confidence")
        listed = Table(*(Column(name, overflow="fold") for name in columns))
        for outcome in wrong[:MOST_LISTED]:
            listed.add_row(*map(Text, _described(outcome)))
        console.print(listed)
    if len(wrong) > MOST_LISTED:
        console.print(f"and {len(wrong) - MOST_LISTED} more: --format csv lists all")
    return int(any(isinstance(outcome.answer, PictureError) for outcome in outcomes))


def _counts(outcomes: Sequence[Outcome]) -> Iterator[str]:
    right = sum(outcome.is_right for outcome in outcomes)
    low, high = wilson_interval(right, len(outcomes))
    yield f"{len(outcomes):,}"
    yield f"{right:,}"
    yield f"{right / len(outcomes):.1%}"
    yield f"{low:.0%}-{high:.0%}"
    if not outcomes[0].picture.is_class:
        digits = sum(len(outcome.picture.digits) for outcome in outcomes)
        wrong = sum(outcome.digits_wrong for outcome in outcomes)
        yield f"{digits:,}"
        yield f"{wrong:,}"
        yield f"{wrong / digits:.1%}" if digits else ""


def _badness(outcome: Outcome) -> tuple[float, float]:
    """Sort the worst first: the larger share of digits wrong, then the surer."""
    length = max(1, len(outcome.picture.digits))
    share = 0 if outcome.picture.is_class else outcome.digits_wrong / length
    return -share, -outcome.confidence


def _described(outcome: Outcome) -> Iterable[str]:
    is_read = not isinstance(outcome.answer, PictureError)
    yield printable(Path(outcome.picture.path).name)
    yield printable(outcome.picture.truth) or "no digit"
    problem = printable(str(outcome.answer).removeprefix(outcome.picture.path).strip())
    yield printable(outcome.text) or ("no digit found" if is_read else problem)
    if not outcome.picture.is_class:
        yield str(outcome.digits_wrong)
    yield f"{outcome.confidence:.1%}" if outcome.text else ""

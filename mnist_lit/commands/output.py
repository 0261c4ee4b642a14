"""Print the results of `predict`: as a table, as JSON or CSV, or in Kaggle's two columns."""

import csv
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mnist_lit.commands.truth import Outcome
from mnist_lit.errors import printable
from mnist_lit.reading.limits import PictureError
from mnist_lit.reading.result import Classification, Reading

UNSURE = 0.9  # a prediction with a smaller probability is marked


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


def _path_cell(path: str) -> str:
    """Escape a CSV cell that starts with a path, so that no spreadsheet runs it as a formula."""
    path = f"./{path}" if path.startswith(("=", "+", "-", "@", "\t", "\r")) else path
    return printable(path) if sys.stdout.isatty() else path


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
        print(json.dumps(row), flush=True)  # ASCII: no control characters either
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
            rows.writerow([_path_cell(path), "", "", _path_cell(str(answer)), "", *beside])
            exit_code = 1
        else:
            confidence = f"{answer.confidence:.6f}" if answer.text else ""
            rows.writerow([_path_cell(path), answer.text, confidence, "", answer.note, *beside])
        sys.stdout.flush()
    return exit_code


def _print_kaggle(results: Iterable[Result], kind: str) -> int:
    """Print CSV with the columns id and label; of an unreadable file, its error alone."""
    rows = [["id", "label"]]
    for path, answer, _, page in results:
        if isinstance(answer, PictureError):
            print(f"mnist-lit: error: {printable(str(answer))}", file=sys.stderr)
            return 1
        name = Path(path).stem
        rows.append([name if page is None else f"{name}-{page}", answer.text])
    csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    return 0


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

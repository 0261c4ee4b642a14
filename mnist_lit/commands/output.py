"""Print answers for other programs: JSON, cells of CSV, and Kaggle's two columns."""

import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from mnist_lit.errors import printable
from mnist_lit.reading.limits import PictureError


def print_json(row: Mapping[str, Any]) -> None:
    """Print a line of JSON, whose control characters no terminal obeys."""
    line = json.dumps(row, ensure_ascii=False)
    print(re.sub(r"[\x7f-\x9f]", lambda char: f"\\u{ord(char[0]):04x}", line), flush=True)


def path_cell(path: str) -> str:
    """A path, or what begins with one, that no spreadsheet takes for a formula."""
    path = f"./{path}" if path.startswith(("=", "+", "-", "@", "\t", "\r")) else path
    return printable(path) if sys.stdout.isatty() else path


def print_kaggle(answers: Iterable[tuple[str, str | PictureError]]) -> int:
    """Print CSV with the columns id and label; stop with 1 at an unreadable file."""
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["id", "label"])
    for name, label in answers:
        if isinstance(label, PictureError):  # an incomplete submission is none
            print(f"mnist-lit: error: {printable(str(label))}", file=sys.stderr)
            return 1
        rows.writerow([name, label])
    return 0

"""Paths and atomic writes."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnist_lit.errors import UserError


def user_path(text: str | os.PathLike[str]) -> Path:
    """Expand ``~`` in a path.

    Raises:
        UserError: there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: no such user") from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path; once written and on the disk, it replaces ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a table; missing values stay empty."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_output(path: Path, content: bytes, option: str) -> None:
    """Write a file to a path that the user has chosen; a link is followed.

    Args:
        path: the file.
        content: its bytes.
        option: the option that named it, for messages.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        target = Path(os.path.realpath(path))
        is_special = path.exists() and not (path.is_file() or path.is_dir())  # a pipe, say
        if is_special or target.is_symlink():  # a link to itself
            raise UserError(f"cannot write {path} (not a regular file): choose another {option}")
        with atomic_write(target) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}): choose another {option}"
        ) from error

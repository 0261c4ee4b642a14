"""`UserError`, and formatting of messages."""

from collections.abc import Sequence


class UserError(ValueError):
    """An error that the user can correct; its message is one line that says how."""


def one_line(error: object) -> str:
    """Put another library's error or message on one line, for a `UserError`."""
    return " ".join(str(error).split())


def printable(text: str) -> str:
    r"""Escape control characters, as ``\x1b``, so that a file name cannot control the terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def join_names(names: Sequence[str], most: int = 3) -> str:
    """Join the first names with commas, and count the others."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])

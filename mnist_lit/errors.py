"""`UserError`, and formatting of messages."""

from collections.abc import Sequence


class UserError(ValueError):
    """An error that the user can correct; its message is one line that says how."""


def one_line(error: Exception) -> str:
    """Shorten another library's error to a line, for a `UserError`."""
    return " ".join(str(error).split())


def printable(text: str) -> str:
    r"""Text that a terminal only shows: control characters as ``\x1b`` and the like.

    A file may be called anything, and a terminal obeys what it is shown.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def listed(names: Sequence[str], most: int = 3) -> str:
    """Join the first names with commas, and count the others."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])

"""Console output that cannot end a training: encodings, closed pipes, and one-line warnings."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO

from mnist_lit.errors import one_line, printable

if TYPE_CHECKING:  # `mnist-lit --help` loads none of it
    from rich.console import Console


def escape_unencodable() -> None:
    """Make stdout escape characters that its encoding lacks, as stderr does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def plain_console() -> "Console":
    """A rich console for tables and text: paths and names in it are neither markup nor emoji."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def warn(message: str) -> None:
    print(f"mnist-lit: warning: {printable(message)}", file=sys.stderr)


@contextmanager
def warning_if_failed(what: str) -> Iterator[None]:
    """Print a warning in place of an exception: for what comes after the results are saved.

    Args:
        what: the step, as the warning names it.
    """
    try:
        yield
    except Exception as error:
        warn(f"{what} failed: {type(error).__name__}: {one_line(error)}")


def discard(stream: TextIO) -> None:
    """Redirect a stream to the null device, with its buffered text."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class _Dispensable:
    """A stream that is discarded, with a warning, as soon as it cannot be written."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stream, attribute)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        discard(self._stream)
        warn(f"{self._name} cannot be written ({error.strerror}): going on without it")


@contextmanager
def ignore_closed_output() -> Iterator[None]:
    """Go on without stdout or stderr if nobody reads it any more, as in ``fit | head -1``."""
    # A stream that was closed when Python started is None, and print() skips it.
    stdout: Any = sys.stdout and _Dispensable(sys.stdout, "standard output")
    stderr: Any = sys.stderr and _Dispensable(sys.stderr, "standard error")
    with redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            yield
        finally:
            for stream in filter(None, (stdout, stderr)):
                stream.flush()  # here, where it may fail

"""Entry point: runs the module of a command; imports only what that needs."""

import difflib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from mnist_lit import __version__
from mnist_lit.console import discard, escape_unencodable
from mnist_lit.errors import UserError, printable
from mnist_lit.memory import keep_freed_memory


class Command(NamedTuple):
    """The module of a command in `mnist_lit.commands`, and a line about it."""

    module: str
    help: str


COMMANDS = {
    "fit": Command("fit", "train a network, test it and draw what it learned"),
    "validate": Command("fit", "loss and accuracy of a checkpoint on the validation images"),
    "test": Command("fit", "loss and accuracy of a checkpoint on the test images"),
    "report": Command("report", "one page about a run, or several side by side"),
    "predict": Command("predict", "the digits in pictures: drawn, scanned, photographed"),
    "serve": Command("serve", "a web page that reads digits while you draw them"),
    "export": Command("export", "a network as ONNX, or as a page without a server"),
    "sweep": Command("sweep", "search the options that validate best, then test those"),
    "repeat": Command("repeat", "fit over several seeds: n, mean, standard deviation"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0; 1, some files failed; 2, a user error; 130, interrupted; 141,
        the output was closed.
    """
    escape_unencodable()
    if argv is None:  # this process is the program's own
        # Figures only go into files. A notebook's backend, which `!mnist-lit` inherits, may not be
        # installed here, and then matplotlib could not even be imported.
        os.environ["MPLBACKEND"] = "agg"
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        try:
            return _run(command, rest)
        finally:
            if sys.stdout:  # else it was closed
                sys.stdout.flush()  # here, so that a failure is reported
    except UserError as error:
        print(f"mnist-lit: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader closed the pipe, as head does
        discard(sys.stdout)  # or Python would try again when it ends
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EBADF):
            raise
        what = (
            "the disk is full"
            if error.errno == errno.ENOSPC
            else "standard output cannot be written"
        )
        print(f"mnist-lit: error: {what}", file=sys.stderr)
        discard(sys.stdout)
        return 2


def _run(command: str, options: list[str]) -> int:
    if command in ("-h", "--help"):
        print(_overview())
        return 0
    if command == "--version":
        print(f"mnist-lit {__version__}")
        return 0
    if command not in COMMANDS:
        raise UserError(_unknown(command))
    sys.path.append(os.getcwd())  # classes of one's own are found; at the end, they hide nobody's
    keep_freed_memory()
    # If another process dies, one line says so; hide torch's C++ log.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    exit_code: int = import_module(f"mnist_lit.commands.{COMMANDS[command].module}").main(
        [command, *options]
    )
    return exit_code


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mnist-lit COMMAND [options]",
            "",
            *lines,
            "",
            "mnist-lit COMMAND --help lists a command's options.",
        ]
    )


def _unknown(command: str) -> str:
    near = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else "mnist-lit --help lists the commands"
    return f"no command {command!r}: {hint}"


if __name__ == "__main__":
    sys.exit(main())

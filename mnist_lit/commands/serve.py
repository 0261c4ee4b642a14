"""`serve`: a web page that reads digits while they are drawn, and HTTP for programs."""

import socket
from collections.abc import Sequence
from importlib.util import find_spec

from mnist_lit.commands.arguments import ArgumentParser, add_network_arguments, checkpoint_path
from mnist_lit.errors import UserError
from mnist_lit.files import user_path


def main(args: Sequence[str]) -> int:
    """Serve until Ctrl-C or SIGTERM; `args` begins with the command's name."""
    parser = ArgumentParser("serve", "Serves a web page that reads digits while you draw them.")
    add_network_arguments(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="who can reach it; default: %(default)s, this machine only; 0.0.0.0: everyone",
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="default: %(default)s; 0: any that is free"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes; default: %(default)s"
    )
    parser.add_argument(
        "--collect",
        metavar="FOLDER",
        type=user_path,
        help="keep there, on this machine, the digits that are corrected on the page, to train on"
        " them: fit --config personal --data.dataset FOLDER",
    )
    given = parser.parse_args(args[1:])
    if given.workers < 1:
        raise UserError(f"--workers {given.workers}: at least one is needed")
    if not all(find_spec(package) for package in ("fastapi", "uvicorn")):
        raise UserError("serve needs FastAPI and uvicorn: pip install 'mnist-lit[serve]'")
    path = checkpoint_path(given.ckpt_path)
    with _listen(given.host, given.port) as listener:
        from mnist_lit.serve.server import run

        run(listener, path, given.network, given.workers, given.collect)
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; connections queue until the server is ready.

    Raises:
        UserError: the address cannot be bound.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: ports go from 0 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
        reason = getattr(error, "strerror", None) or "no such host"
        reason, *_ = reason.split(" (while ")  # the address again
        raise UserError(f"cannot listen on {host}, port {port}: {reason}") from error

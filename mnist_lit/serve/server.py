"""The web server around the app."""

import contextlib
import ipaddress
import logging
import signal
import socket
import warnings
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.supervisors import Multiprocess

from mnist_lit.serve.protocol import EXCHANGE_TIMEOUT_S, Protocol, backlog

if TYPE_CHECKING:
    from fastapi import FastAPI

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # so that a newer version's page and script fit together
}


def run(listener: socket.socket, ckpt_path: str | None, network: str | None, workers: int) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that have been accepted are answered first.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    from mnist_lit.classifier import Classifier
    from mnist_lit.models import named_class

    # What is wrong with the network is said here, once, and not by each worker.
    Classifier.load(ckpt_path, named_class(network)).read_found([])
    host, port = listener.getsockname()[:2]
    only_host = host if ipaddress.ip_address(host).is_loopback else None
    config = uvicorn.Config(
        partial(_create_app, ckpt_path, network, only_host),
        factory=True,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=list(HEADERS.items()),
        workers=workers,
        timeout_worker_healthcheck=60,  # a worker that loads torch is slow to answer
        backlog=backlog(),
        timeout_graceful_shutdown=EXCHANGE_TIMEOUT_S + 5,  # after which nothing is left to do
    )
    print(f"http://{_in_url(_reachable(host))}:{port} (Ctrl-C stops it)", flush=True)
    if workers == 1:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, once all is answered
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listener])
    else:
        Multiprocess(config, [listener]).run()


def _reachable(host: str) -> str:
    """An address that others know; of all of this machine's, the one by which it reaches them."""
    if not ipaddress.ip_address(host).is_unspecified:
        return host
    family, elsewhere, here = socket.AF_INET, "192.0.2.1", "127.0.0.1"
    if ":" in host:
        family, elsewhere, here = socket.AF_INET6, "2001:db8::1", "::1"
    with socket.socket(family, socket.SOCK_DGRAM) as outwards:
        try:
            outwards.connect((elsewhere, 9))  # sends nothing: it only chooses a way
        except OSError:
            return here  # no network
        return str(outwards.getsockname()[0])


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _create_app(ckpt_path: str | None, network: str | None, only_host: str | None) -> "FastAPI":
    """The app of a worker, who has to answer its supervisor before it has loaded torch."""
    from mnist_lit.serve.app import create_app

    # Pillow's, on odd metadata and on sizes that `find_digits` has its own limit for.
    warnings.filterwarnings("ignore", module="PIL")
    # asyncio says so once for each connection that waits, and again every second.
    logging.getLogger("asyncio").addFilter(
        lambda record: "out of system resource" not in record.getMessage()
    )
    return create_app(ckpt_path, network, only_host and _in_url(only_host))

"""The web server around the app."""

import contextlib
import ipaddress
import logging
import signal
import socket
import sys
import warnings
from functools import cache, partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI

from mnist_lit.serve.app import create_app
from mnist_lit.serve.protocol import EXCHANGE_TIMEOUT_S, Protocol, backlog

CHECK_INTERVAL_S = 0.5  # between two looks at the workers
STOP_TIMEOUT_S = EXCHANGE_TIMEOUT_S + 5  # by then, every accepted request has been answered
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # so that a newer version's page and script fit together
}


def run(
    listener: socket.socket,
    ckpt_path: str | None,
    network: str | None,
    workers: int,
    collect: Path | None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that have been accepted are answered first.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    host, port = listener.getsockname()[:2]
    only_host = host if ipaddress.ip_address(host).is_loopback else None
    create = partial(_create_app, ckpt_path, network, only_host, collect)
    create()  # reports a wrong checkpoint here, once, and not in each worker
    config = uvicorn.Config(
        create,
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
        backlog=backlog(),
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )
    print(f"http://{_in_url(_reachable(host))}:{port} (Ctrl-C stops it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        if workers == 1:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
            uvicorn.Server(config).run([listener])
        else:
            _supervise(config, listener)


def _supervise(config: uvicorn.Config, listener: socket.socket) -> None:
    """Keep `config.workers` processes serving until Ctrl-C or SIGTERM.

    uvicorn's own supervisor asks one worker after the other for a sign of life. While it waits for
    one that was killed after being asked, or that is loading, it notices nothing about the others.
    """
    # A forked worker has torch and the network already, and serves at once; a new one would take
    # seconds. Elsewhere, system libraries do not allow forking, or there is none.
    context = get_context("fork") if sys.platform == "linux" else get_context("spawn")
    # Nobody reads from this pipe: as soon as there is something to read, all stop.
    stop, stopper = context.Pipe(duplex=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopper.send_bytes(b"stop"))

    def start() -> BaseProcess:
        worker = context.Process(target=_work, args=(config, listener, stop, stopper), daemon=True)
        worker.start()
        return worker

    workers = [start() for _ in range(config.workers)]
    while not wait([stop], CHECK_INTERVAL_S):
        workers = [worker if worker.is_alive() else start() for worker in workers]
    listener.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C stops at once
    try:
        for worker in workers:
            worker.join(STOP_TIMEOUT_S)
    finally:
        for worker in workers:
            worker.kill()


def _work(
    config: uvicorn.Config, listener: socket.socket, stop: Connection, stopper: Connection
) -> None:
    """Serve until the supervisor writes to the pipe, or has died and so closed it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stopper.close()
    # A fork leaves torch without its thread pool. Each thread that finds none makes one, and fails
    # if another one is at it: so it is made here, where there are no others.
    torch.set_num_threads(1)
    config.configure_logging()  # a spawned process has not done so yet
    server = Worker(config)

    def stop_with_supervisor() -> None:
        wait([stop])
        server.should_exit = True

    Thread(target=stop_with_supervisor, daemon=True).start()
    server.run([listener])


class Worker(uvicorn.Server):
    """A server that leaves Ctrl-C, which reaches all processes of a terminal, to its supervisor.

    Told to stop by both, it would not finish its answers.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGINT:
            super().handle_exit(sig, frame)


def _reachable(host: str) -> str:
    """Return an address to print: for 0.0.0.0 or ::, this machine's outgoing one."""
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


@cache
def _create_app(
    ckpt_path: str | None, network: str | None, only_host: str | None, collect: Path | None
) -> FastAPI:
    """The app of this process, and of the workers that are forked from it."""
    # Pillow's, on odd metadata and on sizes, which `check_size` limits.
    warnings.filterwarnings("ignore", module="PIL")
    # asyncio says so once for each connection that waits, and again every second.
    logging.getLogger("asyncio").addFilter(
        lambda record: "out of system resource" not in record.getMessage()
    )
    return create_app(ckpt_path, network, only_host and _in_url(only_host), collect)

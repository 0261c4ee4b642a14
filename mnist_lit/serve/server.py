"""The web server around the app."""

import asyncio
import contextlib
import ipaddress
import socket
import warnings
from functools import partial

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from mnist_lit.classifier import Classifier
from mnist_lit.serve.app import REQUEST_TIMEOUT_S, create_app

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # so that a newer version's page and script fit together
}


class Protocol(H11Protocol):
    """HTTP that closes a connection whose sender takes too long to say what it wants."""

    head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does so only for sockets that were made with a protocol's number. Without it, the
        # body of an answer waits for the client to acknowledge the head, which takes 40 ms.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watching()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:  # the head is whole; the app watches the body
            self._stop_watching()
        elif self.head_timer is None:
            self.head_timer = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.close)

    def _stop_watching(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


def run(listener: socket.socket, ckpt_path: str | None, workers: int) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that have been accepted are answered first.

    Raises:
        UserError: the checkpoint cannot be read.
    """
    Classifier.load(ckpt_path)  # what is wrong with it is said here, once, and not by each worker
    host, port = listener.getsockname()[:2]
    is_local = ipaddress.ip_address(host).is_loopback
    config = uvicorn.Config(
        partial(create_app, ckpt_path, is_local),
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
        timeout_graceful_shutdown=2 * REQUEST_TIMEOUT_S,
    )
    # Pillow's, on odd metadata and on sizes that `find_digits` has its own limit for.
    warnings.filterwarnings("ignore", module="PIL")
    print(f"http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C stops it)", flush=True)
    if workers == 1:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listener])
    else:
        Multiprocess(config, [listener]).run()

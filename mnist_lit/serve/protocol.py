"""HTTP as uvicorn speaks it, with two things that it leaves to others."""

import asyncio
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_TIMEOUT_S = 10  # for a request's head, and again for its body


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

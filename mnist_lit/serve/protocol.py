"""uvicorn's HTTP/1.1 protocol, with limits on connections and time."""

import asyncio
import socket
import sys
from functools import cache

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_TIMEOUT_S = 10  # for a request's head, and again for its body
ANSWER_TIMEOUT_S = 10  # from the body to the answer
EXCHANGE_TIMEOUT_S = 30  # from the head until the answer has been sent
MAX_CONNECTIONS = 256  # of one process; a connection more is closed at once
BACKLOG = 128  # connections that wait to be accepted, all of which asyncio accepts at once
OTHER_FILES = 64  # that a process has open


class Protocol(H11Protocol):
    """Close connections that are too slow, or more than the limit."""

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > max_connections():
            transport.abort()
            return
        # asyncio does so only for sockets that were made with a protocol's number. Without it, the
        # body of an answer waits for the client to acknowledge the head, which takes 40 ms.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._limit(REQUEST_TIMEOUT_S)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:  # a request's head is whole
            self._limit(EXCHANGE_TIMEOUT_S)

    def on_response_complete(self) -> None:
        if self.conn.their_state is h11.SEND_BODY:  # for longer than `DrainRequestBody` waits
            self.transport.close()
        self._limit(REQUEST_TIMEOUT_S)  # for the head of the next request
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Send 400 unless a response has started; drop the app's pending response."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timer:
            self.timer.cancel()

    def _limit(self, seconds: float) -> None:
        if self.timer:
            self.timer.cancel()
        self.timer = self.loop.call_later(seconds, self.transport.abort)


@cache
def max_connections() -> int:
    """Return the connection limit, bounded by the process's limit of open files."""
    return min(MAX_CONNECTIONS, max(1, (_max_files() - OTHER_FILES) // 2))


def backlog() -> int:
    return min(BACKLOG, max_connections())


def _max_files() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 512
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit

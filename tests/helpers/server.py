"""A real server in a process of its own, and requests to it."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Server(NamedTuple):
    """A server that runs."""

    process: subprocess.Popen[str]
    url: str

    @property
    def host(self) -> str:
        host = urlsplit(self.url).hostname
        assert host is not None
        return host

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            with connection.getresponse() as response:
                return response.status, response.headers, response.read()
        finally:
            connection.close()

    def predict(self, picture: Any, query: str = "") -> tuple[int, dict[str, Any]]:
        """Status and answer."""
        status, _, body = self.request("POST", f"/predict{query}", picture)
        return status, json.loads(body)


@contextmanager
def running(*options: str, max_files: int | None = None) -> Iterator[Server]:
    """A server on a free port, or with an option ``--port`` on another one."""
    command = [sys.executable, "-m", "mnist_lit", "serve", "--port=0", *options]
    if max_files:
        command = ["bash", "-c", f'ulimit -n {max_files} && exec "$0" "$@"', *command]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            yield Server(process, process.stdout.readline().split(" ")[0])
        finally:
            process.kill()

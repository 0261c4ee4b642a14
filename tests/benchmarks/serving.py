"""Measure the latency, throughput and memory of `serve`: one command, one table.

    python tests/benchmarks/serving.py [--num_requests 50000] [--workers 2]

A server of its own answers clients on the same machine, who share its cores: leave the machine
alone meanwhile. Each client keeps one connection and sends the picture of a canvas of 280x280, as
the page does, with all that the page asks for.
"""

import argparse
import http.client
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import fastapi
import machine
import uvicorn
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mnist_lit import __version__

NUM_STARTS = 3
NUM_CLIENTS = 16


class Load(NamedTuple):
    """Latencies and failures of concurrent clients."""

    name: str
    latencies_ms: list[float]
    requests_per_s: float
    num_failed: int
    memory_mib: float  # of the server, afterwards


def canvas() -> bytes:
    """A 7 and a 1, drawn with a pen."""
    image = Image.new("RGB", (280, 280), "white")
    draw = ImageDraw.Draw(image)
    for points in ([(40, 60), (110, 60), (70, 220)], [(200, 60), (190, 220)]):
        draw.line(points, "black", width=14, joint="curve")
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@contextmanager
def server(workers: int) -> Iterator[tuple[int, int]]:
    """A server's process id and port."""
    options = ["--port=0", f"--workers={workers}"]
    command = [sys.executable, "-m", "mnist_lit", "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r":(\d+) ", process.stdout.readline())
        assert found is not None
        try:
            yield process.pid, int(found[1])
        finally:
            process.terminate()


def ask(connection: http.client.HTTPConnection, picture: bytes) -> bool:
    """Return True if a picture is read right."""
    connection.request("POST", "/predict?details=true", picture)
    with connection.getresponse() as response:
        return response.status == 200 and b'"number":"71"' in response.read()


def seconds_to_start(workers: int) -> tuple[float, float]:
    """Time `import torch`, and the server until its first answer."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    torch_s = time.perf_counter() - start
    start = time.perf_counter()
    with server(workers) as (_, port):
        assert ask(http.client.HTTPConnection("127.0.0.1", port), canvas())
        return torch_s, time.perf_counter() - start


def memory_mib(process_id: int) -> float:
    """Resident memory of a process and its children."""
    processes = Path("/proc", str(process_id), "task").glob("*/children")
    ids = [str(process_id), *(child for file in processes for child in file.read_text().split())]
    texts = [Path("/proc", child, "status").read_text(encoding="utf-8") for child in ids]
    return sum(int(text.split("VmRSS:")[1].split()[0]) for text in texts) / 1024


def load(
    name: str, at: tuple[int, int], num_clients: int, num_requests: int, bar: Progress
) -> Load:
    process_id, port = at
    picture = canvas()
    task = bar.add_task(name, total=num_requests)
    turns = iter(range(num_requests))

    def client(_: int) -> list[float]:
        """The latencies of what succeeded."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        latencies = []
        for _ in turns:
            start = time.perf_counter()
            try:
                if ask(connection, picture):
                    latencies.append(1000 * (time.perf_counter() - start))
            except OSError:
                connection.close()
            bar.advance(task)
        return latencies

    start = time.perf_counter()
    with ThreadPoolExecutor(num_clients) as threads:
        latencies = [ms for each in threads.map(client, range(num_clients)) for ms in each]
    rate = num_requests / (time.perf_counter() - start)
    return Load(name, latencies, rate, num_requests - len(latencies), memory_mib(process_id))


def print_table(starts: list[tuple[float, float]], loads: list[Load], workers: int) -> None:
    shown = Table()
    for heading in ("", "p50 ms", "p99 ms", "requests/s", "requests", "failed", "MiB"):
        shown.add_column(heading, justify="right" if heading else "left")
    for name, latencies, rate, num_failed, mib in loads:
        cuts = quantiles(latencies, n=100)
        shown.add_row(
            name,
            *(f"{cuts[49]:.1f}", f"{cuts[98]:.1f}", f"{rate:.0f}"),
            *(f"{len(latencies) + num_failed:,}", f"{num_failed}", f"{mib:.0f}"),
        )
    console = Console(width=100)
    console.print(shown)
    torch_s, first_s = (median(column) for column in zip(*starts, strict=True))
    console.print(
        f"start to first answer {first_s:.2f} s, {first_s / torch_s:.2f} times `import torch`"
        f" ({torch_s:.2f} s); medians of {len(starts)}",
        highlight=False,
    )
    console.print(
        f"mnist_lit {__version__}, FastAPI {fastapi.__version__}, uvicorn {uvicorn.__version__},"
        f" Python {platform.python_version()}, {workers} workers, {machine.describe()}",
        highlight=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_requests", type=int, default=2000, help="of 16 clients")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    with Progress(console=Console(stderr=True)) as bar:
        rounds = bar.track(range(NUM_STARTS), description="starting")
        starts = [seconds_to_start(args.workers) for _ in rounds]
        with server(args.workers) as at:
            loads = [
                load(name, at, num_clients, num_requests, bar)
                for name, num_clients, num_requests in (
                    ("warming up", NUM_CLIENTS, 500),
                    ("1 client", 1, 1000),
                    (f"{NUM_CLIENTS} clients", NUM_CLIENTS, args.num_requests),
                )
            ]
    print_table(starts, loads, args.workers)


if __name__ == "__main__":
    main()

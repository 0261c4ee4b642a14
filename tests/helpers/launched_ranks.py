"""Start commands, also as ranks of torchrun, forked from a process that has imported everything."""

import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mnist_lit import __main__

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["launched_ranks", "kill", "mnist_lit.commands.fit"])


@dataclass
class LaunchedRanks:
    """Started ranks of one command.

    Args:
        processes: the ranks, in their order.
        folder: files with each rank's output.
    """

    processes: Sequence[ForkServerProcess]
    folder: Path

    def end(self, within_s: float = 60) -> list[int]:
        """Wait until all have ended; return their exit codes."""
        until = time.monotonic() + within_s
        for process in self.processes:
            process.join(max(0, until - time.monotonic()))
        alive = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        for process in self.processes:
            process.kill()
        assert not alive, f"ranks {alive} have not ended; output: {self.lines('err')}"
        return [process.exitcode or 0 for process in self.processes]

    def lines(self, stream: str = "err") -> list[str]:
        """Return the lines that all of them wrote to ``err`` or ``out``."""
        texts = [path.read_text() for path in sorted(self.folder.glob(f"*.{stream}"))]
        return [line for text in texts for line in text.splitlines() if line.strip()]


class Finished(NamedTuple):
    """Exit code, negative for a signal, and output of a command."""

    returncode: int
    stdout: str
    stderr: str


def run_command(*arguments: str) -> Finished:
    """Run ``mnist-lit`` in a process of its own.

    Imports are most of what a short training costs, and this process has them already.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        environment = {"TORCH_HOME": os.environ["TORCH_HOME"]}
        process = _context.Process(
            target=_be, args=(arguments, environment, torch.get_num_threads(), said)
        )
        process.start()
        process.join()
        output = (said.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
        return Finished(process.exitcode or 0, *output)


def start(folder: Path, *arguments: str, num_ranks: int = 2) -> LaunchedRanks:
    """Start a command on several ranks.

    Args:
        folder: for their output.
        arguments: of ``mnist-lit``.
        num_ranks: number; 1: a plain process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {"TORCH_HOME": os.environ["TORCH_HOME"]}
    if num_ranks > 1:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": num_ranks}
        common |= {**place, "TORCHELASTIC_RUN_ID": "tests", "GROUP_RANK": 0}
    # One is said too: by a config that says two, Lightning would start the tests again as a rank.
    arguments = (*arguments, "--trainer.accelerator=cpu", f"--trainer.devices={num_ranks}")
    processes = []
    for rank in range(num_ranks):
        own = {"RANK": rank, "LOCAL_RANK": rank} if num_ranks > 1 else {}
        process = _context.Process(
            target=_be, args=(arguments, {**common, **own}, 1, folder / f"{rank}")
        )
        process.start()
        processes.append(process)
    return LaunchedRanks(processes, folder)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _be(
    arguments: Sequence[str], environment: dict[str, Any], num_threads: int, said: Path
) -> None:
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}.{stream}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(num_threads)
    sys.argv = [__main__.__file__, *arguments]
    sys.exit(__main__.main())

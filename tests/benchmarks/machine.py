"""Measure a process, and describe the machine of a measurement."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Measured(NamedTuple):
    """A training in a process of its own."""

    images_per_s: float  # in its fastest epoch
    test_acc: float
    train_s: float  # training, with validation if there is any
    wall_s: float  # from start to exit
    peak_mib: float  # of the process that took most


def measure(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Run Python with arguments: ``fit``, or a loop that prints such results as JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "fit" in arguments:
            arguments = [*arguments, f"--trainer.default_root_dir={folder}"]
        command = [sys.executable, *arguments]
        start = time.perf_counter()
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            variables = {**os.environ, **(environment or {})}
            process = subprocess.Popen(command, env=variables, stdout=out, stderr=err)
            _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        if status:
            raise RuntimeError((folder / "err").read_text())
        results = list(folder.rglob("results.json"))
        result = json.loads((results[0] if results else folder / "out").read_text())
    return Measured(
        images_per_s=result["images_per_s"],
        test_acc=result["test/acc"],
        train_s=result["fit_seconds"],
        wall_s=wall_s,
        peak_mib=usage.ru_maxrss / 1024,
    )


def describe() -> str:
    """Architecture, number of cores, and the processor's name."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}"


def _processor() -> str:
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if os.path.exists("/proc/cpuinfo")
        else []
    )
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

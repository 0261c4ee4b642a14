"""Measure training with several processes and with more images: two tables.

    python tests/benchmarks/scaling.py processes
    python tests/benchmarks/scaling.py growth

`processes` trains each network on one process with one core, on two with one core each, and on one
with two, turn by turn. The ratio, taken within each round, is what a second device gives: here, a
core. `growth` trains the packaged config for an epoch on 1, 2 and 4 times the images of MNIST,
repeated, and shows time and memory. Four minutes a round on 2 cores, and one: leave the machine
alone meanwhile.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import machine
import torch
from machine import Measured, measure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mnist_lit.data.module import MNISTDataModule

HERE = Path(__file__).parent
COPIES = (1, 2, 4)


def copies(times: int, train: bool) -> tuple[Tensor, Tensor]:
    """MNIST's images and labels, this many times over; of the test images, one time."""
    data = MNISTDataModule()
    data.setup()
    images = data.images("train" if train else "test")
    times = times if train else 1
    return images.pixels.repeat(times, 1, 1, 1), images.labels.repeat(times)


def once(train: bool) -> tuple[Tensor, Tensor]:
    return copies(COPIES[0], train)


def twice(train: bool) -> tuple[Tensor, Tensor]:
    return copies(COPIES[1], train)


def four_times(train: bool) -> tuple[Tensor, Tensor]:
    return copies(COPIES[2], train)


def fit(options: Sequence[str], num_threads: int) -> Measured:
    """Train for two epochs, with so many threads in each process."""
    fixed = ("--trainer.accelerator=cpu", "--trainer.max_epochs=2")
    environment = {
        "OMP_NUM_THREADS": str(num_threads),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
    }
    return measure(["-m", "mnist_lit", "fit", *fixed, *options], environment)


def processes(rounds: int, say: Callable[[str], None]) -> Table:
    ways = {"1 process": (1, 1), "2 processes": (2, 1), "1 process, 2 threads": (1, 2)}
    wide = ["--model.network=Wide", "--data.val_size=56000", "--trainer.max_epochs=1"]
    tasks = {
        "cnn, batch 100": [],
        "cnn, batch 1000": ["--data.batch_size=1000"],
        "wide, batch 100": wide,
        "wide, batch 1000": [*wide, "--data.batch_size=1000", "--trainer.log_every_n_steps=2"],
    }
    table = Table(title=f"training images a second, medians of {rounds} rounds")
    for heading in ("", *ways, "2 to 1"):
        table.add_column(heading, justify="right" if heading else "left")
    for task, options in tasks.items():
        found: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, (num_ranks, num_threads) in ways.items():
                measured = fit([*options, f"--trainer.devices={num_ranks}"], num_threads)
                found[way].append(measured.images_per_s)
                say(f"{task}, {way}: {measured.images_per_s:,.0f} images/s")
        ratio = median(
            two / one for one, two in zip(found["1 process"], found["2 processes"], strict=True)
        )
        table.add_row(task, *(f"{median(found[way]):,.0f}" for way in ways), f"{ratio:.2f}")
    return table


def growth(rounds: int, say: Callable[[str], None]) -> Table:
    table = Table(title=f"an epoch of the packaged config, medians of {rounds} rounds")
    for heading in ("training images", "images/s", "training s", "process s", "MiB"):
        table.add_column(heading, justify="right")
    found: dict[int, list[Measured]] = {times: [] for times in COPIES}
    for _ in range(rounds):
        for times, load in zip(COPIES, (once, twice, four_times), strict=True):
            dataset = f"--data.dataset=scaling.{load.__name__}"
            options = [dataset, "--trainer.max_epochs=1"]
            found[times].append(fit(options, torch.get_num_threads()))
            say(f"{times} times: {found[times][-1]}")
    for times, measured in found.items():
        middle = Measured(*map(median, zip(*measured, strict=True)))
        table.add_row(
            f"{60_000 * times - 5000:,}",
            f"{middle.images_per_s:,.0f}",
            *(f"{middle.train_s:.1f}", f"{middle.wall_s:.1f}", f"{middle.peak_mib:,.0f}"),
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("processes", "growth"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    console = Console(stderr=True)
    table = {"processes": processes, "growth": growth}[args.what](args.rounds, console.print)
    shown = Console(width=100)
    shown.print(table)
    shown.print(f"torch {torch.__version__}, {machine.describe()}", highlight=False)


if __name__ == "__main__":
    main()

"""Measure training beside a bare PyTorch loop: one command, one table.

    python tests/benchmarks/training.py

Every measurement is a process of its own. In each round all rows are measured one after the other,
and a row's ratio is taken within its round, so that a machine that gets slower or faster changes
both sides; the table shows medians over the rounds. About 9 minutes a round on 2 cores: leave the
machine alone meanwhile. Each measurement is also said on standard error as soon as it is there.
"""

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import machine
import torch
from machine import Measured, measure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mnist_lit import __version__

ROOT = Path(__file__).parents[2]


class Row(NamedTuple):
    """A measurement and the row that it is compared with."""

    name: str
    arguments: Sequence[str]
    against: str = "bare loop"


def _loop(name: str, *options: object) -> list[str]:
    return [str(Path(__file__).with_name("loops.py")), name, *map(str, options)]


def _fit(config: str, *options: object) -> list[str]:
    config_file = ROOT / "configs" / f"{config}.yaml"
    return ["-m", "mnist_lit", "fit", "--config", str(config_file), *map(str, options)]


def rows() -> list[Row]:
    short = "--trainer.max_epochs=2"
    table = [
        Row("bare loop", _loop("bare")),
        Row("bare loop, usual network", _loop("usual")),
        Row("reference loop", _loop("reference")),
        Row("fit, default config", _fit("default", short)),
        Row("reference loop, 10 epochs", _loop("reference", "--epochs", 10)),
        Row("fit, 10 epochs", _fit("default"), against="reference loop, 10 epochs"),
        Row("speedrun, 1 epoch", _fit("speedrun", "--trainer.max_epochs=1")),
        Row("speedrun", _fit("speedrun")),
    ]
    for part in (4, 2):
        limit = f"--trainer.limit_train_batches={550 // part}"
        table.append(Row(f"fit, 1/{part} of the images", _fit("default", short, limit)))
    for batch_size in (32, 256, 1024):
        bare = f"bare loop, batch {batch_size}"
        table.append(Row(bare, _loop("bare", "--batch_size", batch_size)))
        options = (short, f"--data.batch_size={batch_size}", "--trainer.log_every_n_steps=50")
        table.append(Row(f"fit, batch {batch_size}", _fit("default", *options), against=bare))
    return table


def print_table(table: Sequence[Row], rounds: Sequence[dict[str, Measured]]) -> None:
    def ratio(row: Row, field: str) -> str:
        pairs = [(getattr(r[row.name], field), getattr(r[row.against], field)) for r in rounds]
        return f"{median(own / base for own, base in pairs):.2f}"

    def middle(row: Row, field: str) -> float:
        value: float = median(getattr(r[row.name], field) for r in rounds)
        return value

    shown = Table(title=f"medians of {len(rounds)} rounds; ratios against the row in brackets")
    for heading in ("", "images/s", "ratio", "training s", "process s", "ratio", "MiB", "ratio"):
        shown.add_column(heading, justify="right" if heading else "left")
    shown.add_column("test accuracy", justify="right")
    for row in table:
        shown.add_row(
            row.name if row.against in ("bare loop", row.name) else f"{row.name} [{row.against}]",
            f"{middle(row, 'images_per_s'):,.0f}",
            ratio(row, "images_per_s"),
            f"{middle(row, 'train_s'):.1f}",
            f"{middle(row, 'wall_s'):.1f}",
            ratio(row, "wall_s"),
            f"{middle(row, 'peak_mib'):,.0f}",
            ratio(row, "peak_mib"),
            f"{middle(row, 'test_acc'):.2%}",
        )
    console = Console(width=132)
    console.print(shown, markup=False)
    console.print(
        f"mnist_lit {__version__}, torch {torch.__version__}, Python {platform.python_version()},"
        f" {torch.get_num_threads()} threads, {machine.describe()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="ROW",
        help="names of rows; those that they are compared with are added",
    )
    args = parser.parse_args()
    chosen = [row for row in rows() if not args.only or row.name in args.only]
    names = {name for row in chosen for name in ("bare loop", row.name, row.against)}
    table = [row for row in rows() if row.name in names]
    console = Console(stderr=True)
    progress = track(
        [(number, row) for number in range(args.rounds) for row in table],
        description="measuring",
        console=console,
    )
    rounds: list[dict[str, Measured]] = [{} for _ in range(args.rounds)]
    for number, row in progress:
        rounds[number][row.name] = measured = measure(row.arguments)
        console.print(
            f"{row.name}: {measured.images_per_s:,.0f} images/s, process {measured.wall_s:.1f} s,"
            f" {measured.peak_mib:,.0f} MiB"
        )
    print_table(table, rounds)


if __name__ == "__main__":
    main()

"""`repeat`: one recipe over several seeds, and what comes of it: n, mean and standard deviation."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table

from mnist_lit.arguments import ArgumentParser
from mnist_lit.cli import CLI
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.training import limits
from mnist_lit.training.learner import Learner
from mnist_lit.training.resuming import Interrupted

MAX_SEED = 2**32 - 1  # NumPy's

COLUMNS: Mapping[str, tuple[str, str]] = {
    "train/acc": ("training accuracy", ".3%"),
    "val/acc": ("validation accuracy", ".3%"),
    "test/acc": ("test accuracy", ".3%"),
    "test/loss": ("test loss", ".4f"),
    "epochs": ("epochs", ".1f"),
    "fit_seconds": ("training s", ".1f"),
}


class NewRun(CLI):
    """A ``fit`` that goes on with none."""

    def fit(self, model: Learner, datamodule: MNISTDataModule, ckpt_path: str | None) -> None:
        limits.check_one_process(self.trainer, "repeat")
        if ckpt_path:
            raise UserError("repeat takes no ckpt_path: it starts a run of its own for each seed")
        super().fit(model, datamodule, ckpt_path)


def main(args: Sequence[str]) -> int:
    """Train once for each seed, then print a table; `args` begins with the command's name."""
    parser = ArgumentParser(
        "repeat", "Trains one recipe once for each seed; every option of fit may follow."
    )
    parser.add_argument(
        "--seeds", default="1,2,3,4,5", metavar="N,N,…", help="default: %(default)s"
    )
    given, options = parser.parse_known_args(args[1:])
    seeds = _parse_seeds(given.seeds)
    for option in ("--seed_everything", "--ckpt_path"):
        if any(text.split("=")[0] == option for text in options):
            raise UserError(f"repeat takes no {option}: it starts a run of its own for each seed")
    console = Console(highlight=False)
    results: list[Mapping[str, float]] = []
    try:
        for number, seed in enumerate(seeds, start=1):
            console.print(f"seed {seed}, {number} of {len(seeds)}")
            cli = NewRun(["fit", *options, f"--seed_everything={seed}"])
            if cli.run is None:
                raise UserError("repeat needs complete runs: leave out trainer.fast_dev_run")
            results.append(json.loads(cli.run.results.read_text()))
    except Interrupted:
        rest = ",".join(map(str, seeds[len(results) + 1 :]))
        if rest:
            print(f"then repeat the rest with --seeds {rest}", file=sys.stderr)
        raise
    finally:
        if results:
            console.print(_table(results))
    return 0


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds takes whole numbers with commas between, not {text!r}") from None
    if not 0 <= min(seeds) <= max(seeds) <= MAX_SEED or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds takes different numbers from 0 to {MAX_SEED}, not {text}")
    return seeds


def _table(results: Sequence[Mapping[str, float]]) -> Table:
    """A row for each seed, then mean and standard deviation (of a sample: n - 1)."""
    table = Table("seed", *(label for label, _ in COLUMNS.values()))
    for result in results:
        cells = (format(result[name], form) for name, (_, form) in COLUMNS.items())
        table.add_row(str(result["seed"]), *cells)
    table.add_section()
    table.add_row(f"mean, n = {len(results)}", *_summary(results, mean))
    if len(results) > 1:
        table.add_row("standard deviation", *_summary(results, stdev))
    return table


def _summary(
    results: Sequence[Mapping[str, float]], statistic: Callable[[list[float]], float]
) -> list[str]:
    return [
        format(statistic([result[name] for result in results]), form)
        for name, (_, form) in COLUMNS.items()
    ]

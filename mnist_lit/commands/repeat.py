"""`repeat`: train with several seeds; print n, mean and standard deviation."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pytorch_lightning import LightningModule
from rich.table import Table

from mnist_lit.commands.arguments import ArgumentParser
from mnist_lit.commands.fit import CLI
from mnist_lit.console import ignore_closed_output, plain_console, warning_if_failed
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.files import write_csv
from mnist_lit.training import checks
from mnist_lit.training.callbacks import Interrupted
from mnist_lit.training.run_folders import Run

MAX_SEED = 2**32 - 1  # NumPy's

Row = Mapping[str, Any]  # results of one run

# Headers of two lines: with all columns, the table fits into 80 characters.
COLUMNS: Mapping[str, tuple[str, str]] = {
    "train/acc": ("train\nacc", ".3%"),
    "val/acc": ("val\nacc", ".3%"),
    "test/acc": ("test\nacc", ".3%"),
    "test/loss": ("test\nloss", ".4f"),
    "epochs": ("epochs", ".1f"),
    "fit_seconds": ("train\ns", ".1f"),
}


class NewRun(CLI):
    """A ``fit`` that never resumes."""

    def fit(
        self, model: LightningModule, datamodule: MNISTDataModule, ckpt_path: str | None
    ) -> None:
        checks.check_one_process(self.trainer, "repeat")
        if ckpt_path:
            raise UserError("repeat takes no ckpt_path: it starts a run of its own for each seed")
        super().fit(model, datamodule, ckpt_path)


def main(args: Sequence[str]) -> int:
    """Train once for each seed; print and save a table. `args` begins with the command's name."""
    parser = ArgumentParser(
        "repeat", "Trains one config once for each seed; every option of fit may follow."
    )
    parser.add_argument(
        "--seeds", default="1,2,3,4,5", metavar="N,N,...", help="default: %(default)s"
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="cross-validation: train K times with the first seed, each time validating on another"
        " of K parts of the training images",
    )
    given, options = parser.parse_known_args(args[1:])
    seeds = _parse_seeds(given.seeds)
    for option in ("--seed_everything", "--ckpt_path", *(["--data.fold"] if given.folds else [])):
        if any(text.split("=")[0] == option for text in options):
            raise UserError(f"repeat takes no {option}: it starts runs of its own")
    if given.folds is not None:
        if given.folds < 2:
            raise UserError(f"--folds {given.folds}: take two or more")
        folds = [f"--data.fold={number}/{given.folds}" for number in range(1, given.folds + 1)]
        _repeat([(seeds[0], fold) for fold in folds], options)
    else:
        _repeat([(seed, None) for seed in seeds], options)
    return 0


@ignore_closed_output()
def _repeat(trainings: Sequence[tuple[int, str | None]], options: Sequence[str]) -> None:
    """Train with each seed, or on each fold; then print and save the table."""
    console, rows = plain_console(), list[Row]()
    table = Path()  # known with the first run
    try:
        for number, (seed, fold) in enumerate(trainings, start=1):
            what = fold.removeprefix("--data.").replace("=", " ") if fold else f"seed {seed}"
            console.print(f"{what}, {number} of {len(trainings)}")
            own = [f"--seed_everything={seed}", *([fold] if fold else [])]
            cli = NewRun(["fit", *options, *own])
            if cli.run is None:
                raise UserError("repeat needs complete runs: leave out trainer.fast_dev_run")
            rows.append(_row(cli.run))
            if number == 1:
                table = cli.run.folder.with_name(f"repeat_{cli.run.folder.name}.csv")
            with warning_if_failed("saving the table"):
                write_csv(table, rows, list(rows[0]))
    except Interrupted:
        rest = trainings[len(rows) + 1 :]
        if rest and rest[0][1] is None:
            print(
                f"then repeat the rest with --seeds {','.join(str(s) for s, _ in rest)}",
                file=sys.stderr,
            )
        raise
    finally:
        if rows:
            console.print(_table(rows))
            console.print(f"table  {table}")


def _row(run: Run) -> Row:
    results = json.loads(run.results.read_text(encoding="utf-8"))
    measured = {name: results[name] for name in COLUMNS if name in results}
    return {"seed": results["seed"], "run": run.folder.name, **measured}


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds takes whole numbers with commas between, not {text!r}") from None
    if not 0 <= min(seeds) <= max(seeds) <= MAX_SEED or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds takes different numbers from 0 to {MAX_SEED}, not {text}")
    return seeds


def _table(rows: Sequence[Row]) -> Table:
    """Make a table with a row for each seed, mean and standard deviation (of a sample: n - 1)."""
    table = Table("seed", "run", title=f"n = {len(rows)}")
    for name, (label, _) in COLUMNS.items():
        if name in rows[0]:
            table.add_column(label, justify="right")
    for row in rows:
        table.add_row(str(row["seed"]), row["run"], *_cells(row))
    table.add_section()
    table.add_row("mean", "", *_cells(_summary(rows, mean)))
    if len(rows) > 1:
        table.add_row("sd", "", *_cells(_summary(rows, stdev)))
    return table


def _cells(row: Row) -> Iterator[str]:
    return (format(row[name], form) for name, (_, form) in COLUMNS.items() if name in row)


def _summary(rows: Sequence[Row], statistic: Callable[[list[float]], float]) -> Row:
    return {name: statistic([row[name] for row in rows]) for name in COLUMNS if name in rows[0]}

"""Loggers that resume: each step is logged once, in TensorBoard and in metrics.csv."""

import csv
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning import LightningModule, Trainer, loggers
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from mnist_lit.errors import UserError
from mnist_lit.files import whole_file, write_csv
from mnist_lit.training.runs import Run

# Where TensorBoard shows these: behind train, val and test. It opens the first groups only.
BEHIND = {name: f"z_trainer/{name}" for name in ("epoch", "images_per_s", "lr")}


@contextmanager
def silencing_disk_errors() -> Iterator[None]:
    """Silence disk errors of TensorBoard's thread, which the training reports too."""

    def complain(failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            previous(failure)

    previous = threading.excepthook
    threading.excepthook = complain
    try:
        yield
    finally:
        threading.excepthook = previous


class ContinuingCSVLogger(loggers.CSVLogger):
    """Lightning's CSVLogger, but it appends to an existing ``metrics.csv``."""

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _ContinuingWriter(log_dir=self.log_dir)
        assert isinstance(self._experiment, ExperimentWriter)
        return self._experiment


class _ContinuingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Keep existing files."""

    def save(self) -> None:
        if self.metrics:
            self.metrics_keys = _columns(_read_lines(Path(self.metrics_file_path)))
        super().save()

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        write_csv(path, rows, fieldnames)


class OrderedTensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's TensorBoardLogger, but losses and accuracies come first in its sorted list."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        renamed = {BEHIND.get(name, name): value for name, value in metrics.items()}
        super().log_metrics(renamed, step)


class LogPositions(Callback):
    """Store in each checkpoint how much was logged when it was saved.

    Attributes:
        run: the run.
    """

    def __init__(self) -> None:
        self.run: Run | None = None  # until its folder is known

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for logger in trainer.loggers:
            logger.save()
            if isinstance(logger, loggers.TensorBoardLogger):
                logger.experiment.flush()
        if self.run is None:
            return
        events = _event_files(self.run)
        for path in [self.run.metrics, *events]:
            _wait_until_on_disk(path)  # as the checkpoint will be
        checkpoint["logged"] = {
            "csv_lines": len(_read_lines(self.run.metrics)),
            "event_bytes": {path.name: path.stat().st_size for path in events},
        }


def _wait_until_on_disk(path: Path) -> None:
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


class Rewinding:
    """Remove what a run logged after the checkpoint that it resumes from.

    It is made before the loggers write again: what they add until `rewind` is kept, except rows
    of ``metrics.csv``.
    """

    def __init__(self, run: Run, checkpoint: dict[str, Any] | None) -> None:
        nothing: dict[str, Any] = {"csv_lines": 0, "event_bytes": {}}
        self._logged = (checkpoint or {}).get("logged", nothing)
        self._run, self._events = run, _event_files(run)
        # TensorBoard reads files in the order of their names: each has the second of its making.
        if any(path.name.split(".")[3] == str(int(time.time())) for path in self._events):
            time.sleep(1)

    def rewind(self) -> None:
        metrics = self._run.metrics
        if metrics.is_file():
            lines = _whole_rows(_read_lines(metrics))
            with whole_file(metrics) as temporary:
                temporary.write_bytes(b"".join(lines[: self._logged["csv_lines"]]))
        for path in self._events:
            if path.name in self._logged["event_bytes"]:
                os.truncate(path, min(self._logged["event_bytes"][path.name], path.stat().st_size))
            else:
                path.unlink()


def history(run: Run) -> dict[str, list[tuple[int, float]]]:
    """Read ``metrics.csv``: metric -> (step, value) pairs, in the order of the steps.

    Raises:
        UserError: the file is damaged.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    if run.metrics.is_file():
        try:
            with run.metrics.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    for name, value in row.items():
                        if value:
                            found.setdefault(name, []).append((int(row["step"]), float(value)))
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(
                f"{run.metrics} is damaged: delete it, and there is a report without curves"
            ) from error
    return found


def _event_files(run: Run) -> list[Path]:
    return sorted(run.folder.glob("events.out.tfevents.*"))


def _read_lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.is_file() else []


def _columns(lines: list[bytes]) -> list[str]:
    return next(csv.reader([lines[0].decode()])) if lines else []


def _whole_rows(lines: list[bytes]) -> list[bytes]:
    """Return the header and all rows before the first incomplete one."""
    try:
        columns = _columns(lines)
    except (UnicodeDecodeError, csv.Error, StopIteration):
        columns = []
    if "step" not in columns or not lines[0].endswith(b"\n"):
        return []

    def is_whole(line: bytes) -> bool:
        try:
            (cells,) = csv.reader([line.decode()])
            int(cells[columns.index("step")])
            [float(cell) for cell in cells if cell]
        except (ValueError, IndexError, csv.Error):
            return False
        return len(cells) == len(columns) and line.endswith(b"\n")

    return [lines[0], *takewhile(is_whole, lines[1:])]

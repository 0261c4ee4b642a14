"""Curves that go on where a run was interrupted: each step once, in TensorBoard and in CSV."""

import csv
import os
import time
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning import LightningModule, Trainer, loggers
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from mnist_lit.files import whole_file
from mnist_lit.training.runs import Run


def run_loggers(run: Run) -> list[loggers.Logger]:
    """The loggers of a run: both write into its folder."""
    root, folder, name = run.folder.parent.parent, run.folder.parent.name, run.folder.name
    return [
        loggers.TensorBoardLogger(root, folder, name, default_hp_metric=False),
        CSVLogger(root, folder, name),
    ]


class CSVLogger(loggers.CSVLogger):
    """Lightning's, but going on with a ``metrics.csv`` that is there; Lightning's deletes it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _ContinuingWriter(log_dir=self.log_dir)
        assert isinstance(self._experiment, ExperimentWriter)
        return self._experiment


class _ContinuingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


class LogPositions(Callback):
    """Puts into each checkpoint how much had been logged when it was saved."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for logger in trainer.loggers:
            logger.save()
            if isinstance(logger, loggers.TensorBoardLogger):
                logger.experiment.flush()
        run = Run(Path(str(trainer.log_dir)))
        checkpoint["logged"] = {
            "csv_lines": run.metrics.read_bytes().count(b"\n") if run.metrics.is_file() else 0,
            "event_bytes": {path.name: path.stat().st_size for path in _event_files(run)},
        }


def rewind(run: Run, checkpoint: dict[str, Any] | None) -> None:
    """Take back what a run logged after the checkpoint that it goes on from, if from any."""
    logged = (checkpoint or {}).get("logged", {"csv_lines": 0, "event_bytes": {}})
    if run.metrics.is_file():
        lines = run.metrics.read_bytes().splitlines(keepends=True)
        with whole_file(run.metrics) as temporary:
            temporary.write_bytes(b"".join(lines[: logged["csv_lines"]]))
    for path in _event_files(run):
        if path.name in logged["event_bytes"]:
            os.truncate(path, min(logged["event_bytes"][path.name], path.stat().st_size))
        else:
            path.unlink()
    # TensorBoard reads files in the order of their names, in which is the second of their making.
    if any(path.name.split(".")[3] == str(int(time.time())) for path in _event_files(run)):
        time.sleep(1)


def _event_files(run: Run) -> list[Path]:
    return sorted(run.folder.glob("events.out.tfevents.*"))

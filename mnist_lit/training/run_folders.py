"""Run folders: create, find and lock them; find checkpoints in them."""

import csv
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from mnist_lit import __version__
from mnist_lit.checkpoints import load_checkpoint, save_checkpoint
from mnist_lit.errors import UserError
from mnist_lit.files import atomic_write, user_path
from mnist_lit.models import run_in_eval_mode
from mnist_lit.training.base_task import BaseTask

TRIAL = "trial.json"  # marks the run folder of a sweep's trial
CLASSIFIER_RUN, DETECTOR_RUN = "version", "detector"  # prefixes of run folders


@dataclass(frozen=True)
class Run:
    """A folder ``lightning_logs/version_N`` or ``detector_N``, and its files."""

    folder: Path

    @property
    def version(self) -> int:
        return int(self.folder.name.rpartition("_")[2])

    @property
    def exists(self) -> bool:
        """True if it has a config or a checkpoint."""
        return self.has_config or self.last.is_file() or self.best.is_file()

    @property
    def has_config(self) -> bool:
        """True if ``config.yaml`` is there and not empty."""
        return self.config.is_file() and self.config.stat().st_size > 0

    @property
    def has_results(self) -> bool:
        """True if it was trained and evaluated; a file that was cut off does not count."""
        try:
            return isinstance(json.loads(self.results.read_bytes()), dict)
        except (OSError, ValueError):
            return False

    @property
    def is_finished(self) -> bool:
        """True if results are saved, and drawing figures and report was attempted."""
        return self.has_results and not self.pending.exists()

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def loggers(self) -> Path:
        return self.folder / "loggers.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def pending(self) -> Path:
        """A file that exists while figures and report of the saved results are being made."""
        return self.folder / ".drawing"


def run_of(checkpoint_path: Path) -> Run | None:
    """Return the run that a checkpoint lies in; None if it lies somewhere else."""
    run = Run(checkpoint_path.parent.parent)
    return run if checkpoint_path.parent == run.checkpoints else None


def runs_folder(root: Path) -> Path:
    return root / "lightning_logs"


def all_runs(root: Path, kind: str = CLASSIFIER_RUN) -> list[Run]:
    """List the run folders below ``root``, oldest first; some may be empty."""
    return runs_in(runs_folder(root), kind)


def runs_in(folder: Path, kind: str = CLASSIFIER_RUN) -> list[Run]:
    """List the run folders in a folder, oldest first."""
    folders = folder.glob(f"{kind}_*")
    found = [
        Run(folder) for folder in folders if re.fullmatch(rf"{kind}_\d+", folder.name, re.ASCII)
    ]
    return sorted(found, key=lambda run: run.version)


def trials_in(folder: Path) -> list[Run]:
    """List the complete trials of a sweep's folder; none if it is another folder."""
    table = folder / "trials.csv"
    if not table.is_file():
        return []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            complete = [row["trial"] for row in csv.DictReader(file) if row["state"] == "complete"]
    except (ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{table} is damaged: `mnist-lit sweep` writes it again") from error
    found = (Run(folder / f"version_{number}") for number in complete)
    return [run for run in found if run.best.is_file()]  # others lie on other machines


def claim(root: Path, config: str, kind: str = CLASSIFIER_RUN) -> Run:
    """Atomically create the next run folder, already containing ``config.yaml``.

    Args:
        root: folder of ``lightning_logs``.
        config: content of the file.
        kind: prefix of the folder's name.

    Raises:
        UserError: it cannot be created.
    """
    try:
        runs_folder(root).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".claim_", dir=runs_folder(root)) as temporary:
            claimed = Run(Path(temporary) / "run")
            claimed.folder.mkdir()
            with atomic_write(claimed.config) as path:
                path.write_text(config, encoding="utf-8")
            while True:
                existing = all_runs(root, kind)
                version = existing[-1].version + 1 if existing else 0
                run = Run(runs_folder(root) / f"{kind}_{version}")
                try:
                    os.rename(claimed.folder, run.folder)
                except OSError:
                    if run.folder.exists():  # somebody else was quicker
                        continue
                    raise
                return run
    except OSError as error:
        raise UserError(
            f"cannot make a run folder in {runs_folder(root)} ({error.strerror});"
            " choose another place with --trainer.default_root_dir"
        ) from error


def newest(root: Path, kind: str = CLASSIFIER_RUN) -> Run:
    """Return the run of a kind with the highest number.

    Raises:
        UserError: there is none.
    """
    existing = [run for run in all_runs(root, kind) if run.exists]
    if not existing:
        command = {CLASSIFIER_RUN: "fit", DETECTOR_RUN: "fit --config detector"}[kind]
        raise UserError(
            f"no run in {runs_folder(root)}: train one with `mnist-lit {command}`,"
            " or name a checkpoint with --ckpt_path"
        )
    return existing[-1]


def find_checkpoint(which: str, root: Path, kind: str = CLASSIFIER_RUN) -> Path:
    """Resolve ``best``, ``last`` (of the newest run) or a path to an absolute path.

    Args:
        which: one of these.
        root: folder of ``lightning_logs``.
        kind: of runs.

    Raises:
        UserError: there is no run, or the file does not exist.
    """
    if which in ("best", "last"):
        run = newest(root, kind)
        path = run.best if which == "best" else run.last
        if not path.is_file():
            raise UserError(
                f"{run.folder} has no checkpoint {path.name} (yet); name another with --ckpt_path"
            )
        return path.resolve()
    path = user_path(which)
    # Of a run's folder, load_checkpoint says which file is meant.
    if not path.is_file() and not Run(path).best.is_file():
        raise UserError(
            f"no checkpoint at {which}: --ckpt_path takes best, last, a file, or, for fit, auto"
        )
    return path.resolve()


def load_weights(model: LightningModule, path: Path) -> None:
    """Load the weights of a checkpoint into a model.

    Raises:
        UserError: the checkpoint cannot be read, is of another network, or its outputs are NaN or
            infinite.
    """
    try:
        model.load_state_dict(load_checkpoint(path)["state_dict"])
    except RuntimeError as error:
        raise UserError(
            f"{path} holds another network than the one here: give the --config of its run,"
            " or its --model options, and leave its code as it was"
        ) from error
    if isinstance(model, BaseTask):
        assert isinstance(model.example_input_array, Tensor)
        outputs = run_in_eval_mode(model, model.example_input_array.to(model.device))
        if not outputs.isfinite().all():
            raise UserError(f"the network in {path} gives NaN or infinite outputs: train again")


def store_temperature(path: Path, temperature: float) -> None:
    """Store the temperature in a checkpoint."""
    save_checkpoint({**load_checkpoint(path), "temperature": temperature}, path)


@dataclass(frozen=True)
class ResumePoint:
    """The run and the checkpoint to resume; None: a new run."""

    run: Run | None = None
    checkpoint_path: Path | None = None
    checkpoint: dict[str, Any] | None = None


def unfinished(ckpt_path: str | None, root: Path, kind: str = CLASSIFIER_RUN) -> str | None:
    """Resolve ``auto``: ``last`` if the newest run is not finished, else None."""
    if ckpt_path != "auto":
        return ckpt_path
    existing = [run for run in all_runs(root, kind) if run.exists]
    return "last" if existing and not existing[-1].is_finished else None


def find_resume_point(ckpt_path: str | None, root: Path, kind: str = CLASSIFIER_RUN) -> ResumePoint:
    """Find the run folder and the checkpoint that a training starts from.

    Args:
        ckpt_path: the checkpoint to resume from, as for `find_checkpoint`, or ``auto``; None: a new
            run.
        root: below which runs are.
        kind: of which runs.

    Raises:
        UserError: there is no such checkpoint, or no training can resume from it.
    """
    ckpt_path = unfinished(ckpt_path, root, kind)
    if ckpt_path is None:
        return ResumePoint()
    if ckpt_path == "last":
        run = newest(root, kind)
        if not run.last.is_file() and not run.best.is_file():
            if run.has_results:
                raise UserError(
                    f"{run.folder} is finished, but its checkpoints are gone: start a new run"
                    " without --ckpt_path"
                )
            return ResumePoint(run)  # interrupted before its first checkpoint: at the beginning
    path = find_checkpoint(ckpt_path, root, kind)
    checkpoint = load_checkpoint(path)
    try:
        epochs_done(checkpoint), int(checkpoint["global_step"]), dict(checkpoint["callbacks"])
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds a network, but not its training: no run can resume from it"
        ) from error
    return ResumePoint(run_of(path), path, checkpoint)


def epochs_done(checkpoint: Mapping[str, Any]) -> int:
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


@contextmanager
def run_lock(run: Run) -> Iterator[None]:
    """Lock a run folder for this process, which may lock it repeatedly.

    Raises:
        UserError: another process trains in it.
    """
    try:
        with FileLock(run.folder / ".lock", timeout=0, is_singleton=True):
            for leftover in run.checkpoints.glob(".*"):  # of a process that was killed writing it
                leftover.unlink()
            yield
    except Timeout as error:
        raise UserError(
            f"{run.folder} is being trained by another process: wait until that has ended"
        ) from error


def discard(run: Run) -> None:
    """Remove the folder of a run that took no step, unless another process trains in it."""
    with suppress(UserError), run_lock(run):
        shutil.rmtree(run.folder, ignore_errors=True)
    with suppress(OSError):  # it is not empty: there are other runs
        run.folder.parent.rmdir()


class RunCheckpointIO(TorchCheckpointIO):
    """Save the checkpoints of a run atomically, with version and config.

    Args:
        config: all options, nested as in a config file.
        before_first: called before the first checkpoint is saved, which is when a resumed run
            begins to change what it has on the disk.
    """

    def __init__(self, config: Mapping[str, Any], before_first: Callable[[], None]) -> None:
        super().__init__()
        self.facts = {"version": __version__, "config": dict(config)}
        self.before_first: Callable[[], None] | None = before_first

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if self.before_first:
            self.before_first()
            self.before_first = None
        save_checkpoint({**checkpoint, "mnist_lit": self.facts}, Path(path))

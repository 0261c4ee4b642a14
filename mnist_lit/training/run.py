"""Train a run, new or resumed, and evaluate its best checkpoint."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError, one_line
from mnist_lit.training import config_files, results, run_folders
from mnist_lit.training.base_task import BaseTask
from mnist_lit.training.callbacks import Interrupted, LastCheckpoint, StopEarly, TrainingLog
from mnist_lit.training.callbacks.random_state import num_ranks
from mnist_lit.training.config_files import CHANGED
from mnist_lit.training.loggers import closing_if_failed, silencing_disk_errors
from mnist_lit.training.processes import launched_by, peer_died, requeue
from mnist_lit.training.run_folders import ResumePoint, Run

C = TypeVar("C", bound=Callback)

# What Lightning and torch raise on a checkpoint with invalid contents.
DAMAGE = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def train_run(
    trainer: Trainer, model: LightningModule, data: MNISTDataModule, resume_point: ResumePoint
) -> None:
    """Train until the config ends the training; the model keeps its last weights.

    Args:
        trainer: with the callbacks and loggers of the run.
        model: the LightningModule.
        data: the LightningDataModule.
        resume_point: the checkpoint to resume from, if any.

    Raises:
        UserError: the training cannot resume from the checkpoint.
        Interrupted: a signal was received; ``last.ckpt`` was saved.
    """
    # Loggers have the whole config already, and some refuse values that change later.
    model.save_hyperparameters(dict(model.hparams), logger=False)
    path, loggers = resume_point.checkpoint_path, trainer.loggers
    if path and isinstance(model, BaseTask):
        model.weights = None  # the checkpoint has its own
    try:
        trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
    except DAMAGE as error:
        if path is None or has_begun(trainer, resume_point) or isinstance(error, UserError):
            raise
        if peer_died(error):
            raise
        said = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"no training can resume from {path} ({said})") from error
    trainer.loggers = loggers  # TrainingLog has kept them open


def has_begun(trainer: Trainer, resume_point: ResumePoint) -> bool:
    """Return True if a training has taken a step since its start."""
    before: int = resume_point.checkpoint["global_step"] if resume_point.checkpoint else 0
    return trainer.global_step > before


def evaluate_run(
    run: Run,
    trainer: Trainer,
    model: LightningModule,
    data: MNISTDataModule,
    config: Mapping[str, Any],
) -> None:
    """Evaluate the best checkpoint and write results, figures and report.

    Args:
        run: its folder.
        trainer: the one that has trained.
        model: gets the weights of the best checkpoint.
        data: the data module of the training.
        config: all options, nested as in a config file.

    Raises:
        UserError: there is no best checkpoint, or its loss is not finite.
    """
    if not run.best.is_file():
        raise UserError(
            "no epoch was validated, so none is the best: raise trainer.max_epochs,"
            " max_steps or max_time, or lower trainer.check_val_every_n_epoch"
        )
    with closing_if_failed(trainer.loggers):
        run_folders.load_weights(model, run.best)
        facts = run_facts(trainer, model, config)
        if data.holds_test_back:
            results.leave_untested(trainer, config)
        else:
            results.finish(run, trainer, model, data, facts, config)


def run_facts(
    trainer: Trainer, model: LightningModule, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the results that need no evaluation."""
    log = found_callback(trainer, TrainingLog)
    return {
        "seed": config["seed_everything"],
        "epochs": trainer.current_epoch,
        "params": sum(weight.numel() for weight in model.parameters()),
        "fit_seconds": log.fit_seconds,
        "images_per_s": log.images_per_s,
        "num_ranks": trainer.world_size,
        "device": str(trainer.strategy.root_device),
        "num_threads": torch.get_num_threads(),
    }


def changes_since(
    checkpoint: Mapping[str, Any], trainer: Trainer, config: Mapping[str, Any]
) -> list[str]:
    """List the differences from the config that a checkpoint was made with.

    Args:
        checkpoint: its content.
        trainer: the one that resumes.
        config: all options, nested as in a config file.

    Raises:
        UserError: the run cannot be resumed with this config.
    """
    epochs = run_folders.epochs_done(checkpoint)
    if epochs > (trainer.max_epochs or 0) >= 0:
        number = results.pluralized(epochs, "epoch")
        raise UserError(f"this run has had {number} already: raise --trainer.max_epochs")
    changes = config_files.changes(checkpoint["mnist_lit"]["config"], config)
    before, now = num_ranks(dict(checkpoint)), trainer.world_size
    if before != now:
        changes.append(
            f"{results.pluralized(now, 'rank')} instead of {before}: other random numbers"
        )
    return [f"{CHANGED}{checkpoint['global_step']} on: {change}" for change in changes]


def is_finished(resume_point: ResumePoint, trainer: Trainer) -> bool:
    """Return True if neither training nor results are left to do."""
    run, checkpoint = resume_point.run, resume_point.checkpoint
    if run is None or checkpoint is None or not run.is_finished:
        return False
    stopper = found_callback(trainer, StopEarly)
    stopping = checkpoint["callbacks"].get(stopper.state_key, {"wait_count": 0})
    return bool(
        run_folders.epochs_done(checkpoint) >= (trainer.max_epochs or 0) >= 0
        or checkpoint["global_step"] >= trainer.max_steps != -1
        or stopping["wait_count"] >= stopper.patience
    )


@contextmanager
def resumable(trainer: Trainer, resume_command: Callable[[Path], Sequence[str]]) -> Iterator[None]:
    """Save at signals, and print how to resume a training that did not finish.

    Args:
        trainer: the one that trains.
        resume_command: from the path of ``last.ckpt`` to the arguments of this program that resume
            the run.

    Raises:
        UserError: the disk is full, another process has died, or a callback objects.
        Interrupted: a signal was received.
    """
    last = found_callback(trainer, LastCheckpoint)

    def how() -> str:
        if last.path is None or not last.path.is_file():
            return "start again: no step was saved yet"
        launcher = launched_by() if trainer.world_size > 1 else None
        way = f"resume, by {launcher} as before, with" if launcher else "resume with"
        return f"{way}: {as_typed(resume_command(last.path))}"

    try:
        with last.watching_signals(), silencing_disk_errors():
            yield
    except Interrupted as interruption:
        if not trainer.is_global_zero:
            if launched_by() is None:
                raise SystemExit(0) from interruption  # or Lightning's launcher would kill rank 0
            raise
        # Only a command that resumes: another one would start from scratch each time.
        resumes = any(option.startswith("--ckpt_path") for option in sys.argv)
        is_requeued = resumes and interruption.signal.name == "SIGUSR1" and requeue(trainer)
        what = "SLURM starts it again" if is_requeued else how()
        print(f"\n{interruption.signal.name}: stopped; {what}", file=sys.stderr)
        raise
    except (MisconfigurationException, ImportError) as error:  # objections of callbacks' own
        raise UserError(one_line(error)) from error
    except OSError as error:
        raise UserError(f"{error}; fix that, then {how()}") from error
    except RuntimeError as error:
        if not peer_died(error):
            raise
        raise UserError(f"another process of this training has died; {how()}") from error


def as_typed(args: Sequence[str]) -> str:
    """Format a command line of this program."""
    program = "python -m mnist_lit" if sys.argv[0].endswith("__main__.py") else "mnist-lit"
    return f"{program} {shlex.join(args)}"


def found_callback(trainer: Trainer, kind: type[C]) -> C:
    """Return the Trainer's callback of a class."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next(found for found in callbacks if isinstance(found, kind))

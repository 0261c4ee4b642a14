"""Train a run, new or resumed, and evaluate its best checkpoint."""

import shlex
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import yaml
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback

from mnist_lit.console import dispensable_output
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError, one_line
from mnist_lit.training import config_files, runs
from mnist_lit.training.base_task import BaseTask
from mnist_lit.training.first_step import FirstStep
from mnist_lit.training.loggers import LogPositions, Rewinding, silencing_disk_errors
from mnist_lit.training.module import LitClassifier
from mnist_lit.training.monitors import BestCheckpoint, StopEarly
from mnist_lit.training.process_group import PEER_DIED, ProcessGroup, launched_by, peer_died
from mnist_lit.training.progress import TrainingLog
from mnist_lit.training.results import counted, finish, leave_untested
from mnist_lit.training.resuming import Interrupted, LastCheckpoint, num_ranks, requeue
from mnist_lit.training.run_loggers import closing_if_failed, log_config, run_loggers
from mnist_lit.training.runs import Run, Start

C = TypeVar("C", bound=Callback)

# What Lightning and torch raise on a checkpoint whose parts are not what they should be.
DAMAGE = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


@dataclass
class RunSession:
    """A run from its first step, or from a checkpoint, to its results.

    Args:
        trainer: with this project's callbacks, and loggers that do not write into run folders.
        model: the LightningModule.
        data: the LightningDataModule.
        config_yaml: all options, as YAML.
        command: the command line, to print how to resume.
        tensorboard: options of TensorBoard's logger; None: there is none.
        again: the command that resumes, if not ``fit`` from the last checkpoint.
    """

    trainer: Trainer
    model: BaseTask
    data: MNISTDataModule
    config_yaml: str
    command: Sequence[str]
    tensorboard: Mapping[str, Any] | None
    again: Sequence[str] = ()
    kind: ClassVar[str] = runs.FIT

    def __post_init__(self) -> None:
        self._run: Run | None = None  # until its folder is known

    @dispensable_output()
    def train_run(self, start: Start) -> Run | None:
        """Train in a run folder, a new one or a checkpoint's; then evaluate the best checkpoint.

        Args:
            start: its folder and checkpoint.

        Returns:
            The run; None if it was finished already, and on all ranks but rank 0, which alone
            evaluates and writes.

        Raises:
            UserError: the training cannot begin or go on; nothing that was there is changed.
            Interrupted: a signal was received.
        """
        notes = self._changes_since(start.checkpoint)
        if start.checkpoint_path:  # another network is refused before anything is written
            runs.load_weights(self.model, start.checkpoint_path)
        try:
            signals = self._callback(LastCheckpoint).watching_signals()
            group = ProcessGroup(self.trainer, self._say_peer_died)
            with signals, silencing_disk_errors(), group.running():
                return self._train_and_evaluate(start, notes, group)
        except Interrupted as interruption:
            how = self._how_to_go_on()
            # A command that would begin anew would do so for ever.
            goes_on = any(option.startswith("--ckpt_path") for option in self.command)
            if goes_on and interruption.signal.name == "SIGUSR1" and requeue(self.trainer):
                how = "SLURM starts it again"
            print(f"\n{interruption.signal.name}: stopped; {how}", file=sys.stderr)
            raise
        except (MisconfigurationException, ImportError) as error:  # objections of callbacks' own
            raise UserError(one_line(error)) from error
        except OSError as error:
            raise UserError(f"{error}; mend that, then {self._how_to_go_on()}") from error

    def _train_and_evaluate(
        self, start: Start, notes: list[str], group: ProcessGroup
    ) -> Run | None:
        group.check_same(self._intention(start), "options")
        root = Path(self.trainer.default_root_dir)
        self._run = run = group.from_rank_zero(
            lambda: (
                start.run
                or runs.claim(root, config_files.as_file(self.config_yaml, notes), self.kind)
            )
        )
        with runs.run_lock(run) if group.is_first else nullcontext():
            if start.checkpoint and self._is_finished(start.checkpoint, run):
                if group.is_first:
                    print(
                        f"{run.folder} is finished; to train it further, raise"
                        " --trainer.max_epochs (or --early_stopping.patience, if that ended it)"
                    )
                return None
            with self._leaving_nothing_unless_begun(run, start):
                self._train(run, start, notes)
            group.leave()
            if not group.is_first:
                return None
            with closing_if_failed(self.trainer.loggers):
                runs.load_weights(self.model, run.best)
                self.evaluate_run(run)
            return run

    def _intention(self, start: Start) -> Any:
        """Return what must be the same on all ranks."""
        options = config_files.options_of(yaml.safe_load(self.config_yaml))
        return options, start.checkpoint and start.checkpoint["global_step"]

    @contextmanager
    def _leaving_nothing_unless_begun(self, run: Run, start: Start) -> Iterator[None]:
        """Remove the folder of a new run that took no step."""
        try:
            yield
        finally:
            is_new = start.run is None and self.trainer.is_global_zero
            if is_new and not self._callback(FirstStep).taken:
                shutil.rmtree(run.folder, ignore_errors=True)
                with suppress(OSError):  # it is not empty: there are other runs
                    run.folder.parent.rmdir()

    def _changes_since(self, checkpoint: dict[str, Any] | None) -> list[str]:
        """List the differences from the config that a checkpoint was made with.

        Raises:
            UserError: the run cannot be resumed with this config.
        """
        if checkpoint is None:
            return []
        epochs = _epochs_done(checkpoint)
        if epochs > (self.trainer.max_epochs or 0) >= 0:
            raise UserError(
                f"this run has had {counted(epochs, 'epoch')} already: raise --trainer.max_epochs"
            )
        changes = config_files.changes(
            checkpoint["mnist_lit"]["config"], yaml.safe_load(self.config_yaml)
        )
        before, now = num_ranks(checkpoint), self.trainer.world_size
        if before != now:
            changes.append(f"{counted(now, 'rank')} instead of {before}: other random numbers")
        return [f"from step {checkpoint['global_step']} on: {change}" for change in changes]

    def _is_finished(self, checkpoint: dict[str, Any], run: Run) -> bool:
        """Return True if neither training nor results are left to do."""
        epochs = _epochs_done(checkpoint)
        stopper = self._callback(StopEarly)
        stopping = checkpoint["callbacks"].get(stopper.state_key, {"wait_count": 0})
        return run.is_finished and bool(
            epochs >= (self.trainer.max_epochs or 0) >= 0
            or checkpoint["global_step"] >= self.trainer.max_steps != -1
            or stopping["wait_count"] >= stopper.patience
        )

    def evaluate_run(self, run: Run) -> None:
        """Evaluate the best checkpoint and write the results."""
        assert isinstance(self.model, LitClassifier)
        config = yaml.safe_load(self.config_yaml)
        if self.data.holds_test_back:
            leave_untested(self.trainer, config)
        else:
            finish(run, self.trainer, self.model, self.data, self.facts(), config)

    def _train(self, run: Run, start: Start, notes: list[str]) -> None:
        first_step = self._callback(FirstStep)
        if self.trainer.is_global_zero:
            self._open(run, start, notes)
        else:
            self.trainer.loggers = []
        self._callback(BestCheckpoint).dirpath = str(run.checkpoints)
        self._callback(LastCheckpoint).path = run.last
        path, loggers = start.checkpoint_path, self.trainer.loggers
        # The config has more; and of options that change later, some loggers would have none.
        self.model.save_hyperparameters(dict(self.model.hparams), logger=False)
        try:
            self.trainer.fit(self.model, datamodule=self.data, ckpt_path=path, weights_only=True)
        except DAMAGE as error:
            is_said = isinstance(error, UserError) or peer_died(error)
            if path is None or first_step.taken or is_said:
                raise
            said = f"{type(error).__name__}: {one_line(error)}"
            raise UserError(f"no training can go on from {path} ({said})") from error
        self.trainer.loggers = loggers  # which TrainingLog has kept from being closed
        first_step.take()  # nothing may have been left to train
        if self.trainer.is_global_zero and not run.best.is_file():
            raise UserError(
                "no epoch was validated, so none is the best: raise trainer.max_epochs,"
                " max_steps or max_time, or lower trainer.check_val_every_n_epoch"
            )

    def _open(self, run: Run, start: Start, notes: list[str]) -> None:
        """Open loggers and print what is resumed, on rank 0."""
        if start.checkpoint:
            step = start.checkpoint["global_step"]
            print(f"{run.folder} goes on from step {step}", *notes, sep="\n  ")
        if start.run:
            rewinding = Rewinding(run, start.checkpoint)
            self._callback(FirstStep).then = lambda: self._reopen(run, rewinding, notes)
        others, config = self.trainer.loggers, yaml.safe_load(self.config_yaml)
        self.trainer.loggers = run_loggers(run, self.tensorboard, others, config)
        self._callback(LogPositions).run = run
        log_config(run, others, config)

    def _reopen(self, run: Run, rewinding: Rewinding, notes: list[str]) -> None:
        """Remove what the run wrote after the checkpoint that it resumes from."""
        run.results.unlink(missing_ok=True)
        (run.folder / "hparams.yaml").unlink(missing_ok=True)  # TensorBoard's logger writes it anew
        rewinding.rewind()
        config_files.write(run, self.config_yaml, notes)

    def _say_peer_died(self) -> None:
        print(f"\n{PEER_DIED}; {self._how_to_go_on()}", file=sys.stderr, flush=True)

    def _how_to_go_on(self) -> str:
        run = self._run
        if self.again:
            return f"go on with: {as_typed(self.again)}"
        launcher = launched_by() if self.trainer.world_size > 1 else None
        how = f"go on, by {launcher} as before, with" if launcher else "go on with"
        if run is None or not run.last.is_file():
            return "start again: no step was saved yet"
        parser = ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--ckpt_path")
        _, others = parser.parse_known_args(self.command)
        return f"{how}: {as_typed([*others, '--ckpt_path', str(run.last)])}"

    def facts(self) -> dict[str, Any]:
        """Return the results that need no evaluation."""
        log = self._callback(TrainingLog)
        return {
            "seed": yaml.safe_load(self.config_yaml)["seed_everything"],
            "epochs": self.trainer.current_epoch,
            "params": sum(weight.numel() for weight in self.model.parameters()),
            "fit_seconds": log.fit_seconds,
            "images_per_s": log.images_per_s,
            "num_ranks": self.trainer.world_size,
            "device": str(self.trainer.strategy.root_device),
            "num_threads": torch.get_num_threads(),
        }

    def _callback(self, kind: type[C]) -> C:
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return next(found for found in callbacks if isinstance(found, kind))


def as_typed(args: Sequence[str]) -> str:
    """Format a command line of this program."""
    program = "python -m mnist_lit" if sys.argv[0].endswith("__main__.py") else "mnist-lit"
    return f"{program} {shlex.join(args)}"


def _epochs_done(checkpoint: dict[str, Any]) -> int:
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])

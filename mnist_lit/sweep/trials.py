"""A trial: a `fit` whose test images are held back, and that may be pruned."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from optuna import Trial, TrialPruned
from optuna.exceptions import OptunaError
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from sqlalchemy.exc import SQLAlchemyError

from mnist_lit.commands.fit import CLI
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError, one_line
from mnist_lit.sweep.space import arguments, suggest
from mnist_lit.sweep.study import Sweep, best_epoch, first_attempt, last_attempts
from mnist_lit.training import checks, run_folders
from mnist_lit.training.callbacks import Interrupted
from mnist_lit.training.run_folders import ResumePoint, Run


class Paused(BaseException):
    """Leaves `Study.optimize` without ending the trial; its argument is the reason."""


class ReportToStudy(Callback):
    """Reports every epoch to the study, and ends a training that is to be pruned.

    It comes before LastCheckpoint: a run that resumes from there reaches the epoch again, or has
    reported it.
    """

    def __init__(self, trial: Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.pruned = False
        self._validated_epoch = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated_epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        if self._validated_epoch != trainer.current_epoch or self.monitor not in metrics:
            return
        epoch = trainer.current_epoch + 1
        validated = {name: metrics[name].item() for name in metrics if name.startswith("val/")}
        self.trial.set_user_attr(f"epoch {epoch}", validated)
        self.trial.report(validated[self.monitor], epoch)
        self.pruned = self.trial.should_prune()
        trainer.should_stop = trainer.should_stop or self.pruned


class TrialFit(CLI):
    """The `fit` of a trial in its own folder; without one, it only checks the options.

    Args:
        args: of `fit`.
        run: the folder.
        report: callback that reports to the study.
        command: the one that resumes the sweep.
    """

    def __init__(
        self,
        args: Sequence[str],
        run: Run | None = None,
        report: ReportToStudy | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.trial_run, self.report, self.command = run, report, command
        try:
            super().__init__(args)
        except (MemoryError, RuntimeError) as error:
            # Source of the text, where there is no GPU: torch's c10/core/impl/alloc_cpu.cpp
            is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
            if not is_memory and "can't allocate memory" not in str(error):
                raise
            raise UserError(f"out of memory: {one_line(error)}") from error

    def find_resume_point(self, root: Path) -> ResumePoint:
        if self.options.ckpt_path:
            raise UserError("sweep takes no ckpt_path: each trial is a run of its own")
        if self.trial_run and self.trial_run.last.is_file():
            return run_folders.find_resume_point(str(self.trial_run.last), root)
        return ResumePoint(self.trial_run)

    def callbacks(self) -> list[Callback]:
        return [*super().callbacks(), *([self.report] if self.report else [])]

    def fit(
        self, model: LightningModule, datamodule: MNISTDataModule, ckpt_path: str | None
    ) -> None:
        datamodule.holds_test_back = True
        if self.trial_run:
            super().fit(model, datamodule, ckpt_path)
            return
        checks.check_one_process(self.trainer, "sweep")
        datamodule.setup()
        checks.check(self.options, self.trainer, model, datamodule)
        if self.options.trainer.fast_dev_run:
            raise UserError("sweep needs complete runs: leave out trainer.fast_dev_run")
        monitor = self.options.best_checkpoint.monitor
        if not monitor.startswith("val/"):
            raise UserError(
                f"best_checkpoint.monitor {monitor}: a sweep chooses by validation, so take"
                " val/loss or val/acc"
            )

    def run_folder(self) -> Run | None:
        return self.trial_run

    def resume_command(self, last: Path) -> list[str]:
        return list(self.command)


class Objective:
    """Trains a trial, for `Study.optimize`.

    Args:
        sweep: its lock is released when the trial has its values.
        args: of `fit`.
        command: the one that resumes the sweep.
    """

    def __init__(self, sweep: Sweep, args: Sequence[str], command: Sequence[str]) -> None:
        self.sweep, self.args, self.command = sweep, args, command

    def __call__(self, trial: Trial) -> float:
        """Return the metric of the best epoch; NaN, which fails the trial, if there is none."""
        try:
            pruned = self._train(trial)
        except (OptunaError, SQLAlchemyError) as error:  # the study's database failed
            raise Paused(error) from error
        except (UserError, OSError, KeyboardInterrupt, Interrupted) as error:
            if isinstance(error, UserError) and not isinstance(error.__cause__, OSError):
                trial.set_user_attr("error", one_line(error))  # other trials may do better
                return math.nan
            self.sweep.pause(trial)
            raise Paused(error) from error
        if pruned:
            raise TrialPruned
        _, metrics = best_epoch(self.sweep.study, self.sweep.frozen(trial))
        return metrics.get(self.sweep.monitor, math.nan)

    def _train(self, trial: Trial) -> bool:
        """Train or resume a trial; True if it is pruned."""
        number = first_attempt(self.sweep.frozen(trial))
        index = sorted(last_attempts(self.sweep.study)).index(number)
        self.sweep.study.sampler = self.sweep.sampler(index)
        values = suggest(trial, self.sweep.space)
        run = self.sweep.claim(number)
        self.sweep.lock.release()
        if trial.should_prune():  # killed before it was marked as pruned
            return True
        report = ReportToStudy(trial, self.sweep.monitor)
        TrialFit([*self.args, *arguments(values)], run, report, self.command)
        return report.pruned

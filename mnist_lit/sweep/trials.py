"""A trial: a run whose test images are held back, and that is ended when it promises nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optuna import Trial
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mnist_lit.cli import CLI
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.sweep.study import Sweep
from mnist_lit.training import limits, runs
from mnist_lit.training.learner import Learner
from mnist_lit.training.life import Life
from mnist_lit.training.progress import Progress
from mnist_lit.training.runs import Start

METRICS = ("val/loss", "val/acc")
NO_CHECKPOINT = "sweep takes no ckpt_path: each trial is a run of its own"


class CheckedFit(CLI):
    """A `fit` that trains nothing: what is wrong with its options is said.

    Attributes:
        monitor: the metric that decides which epoch and which trial is the best one.
        mode: whether less of it is better (min) or more (max).
    """

    monitor: str
    mode: str

    def beginning(self, root: Path) -> Start:
        if self.options.ckpt_path:
            raise UserError(NO_CHECKPOINT)
        return Start()

    def fit(self, model: Learner, datamodule: MNISTDataModule, ckpt_path: str | None) -> None:
        limits.check_one_process(self.trainer, "sweep")
        datamodule.hold_test_back()
        datamodule.setup()
        limits.check(self.options, self.trainer, model, datamodule)
        if self.options.trainer.fast_dev_run:
            raise UserError("sweep needs complete runs: leave out trainer.fast_dev_run")
        self.monitor, self.mode = (
            self.options.best_checkpoint[name] for name in ("monitor", "mode")
        )
        if self.monitor not in METRICS:
            raise UserError(
                f"best_checkpoint.monitor {self.monitor}: a sweep chooses by validation, so take"
                " val/loss (with best_checkpoint.mode min) or val/acc (with max)"
            )


class Watching(Callback):
    """Tells the study of every epoch, and ends a training that promises nothing.

    Args:
        sweep: whose trial it is.
        trial: which.

    Attributes:
        pruned: whether it was ended so.
    """

    def __init__(self, sweep: Sweep, trial: Trial) -> None:
        self.sweep, self.trial = sweep, trial
        self.pruned = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the epoch is saved: what goes on from what was before comes here again."""
        metrics = trainer.callback_metrics
        if all(name in metrics for name in METRICS):
            validated = {name: metrics[name].item() for name in METRICS}
            promises_nothing = self.sweep.note(self.trial, trainer.current_epoch + 1, validated)
            # Nothing is saved by pruning after the last epoch.
            self.pruned = promises_nothing and trainer.current_epoch + 1 != trainer.max_epochs
            trainer.should_stop = trainer.should_stop or self.pruned


class TrialProgress(Progress):
    """A bar that leaves nothing behind: a trial has one line."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super(Progress, self).on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.progress is not None
        self.progress.live.transient = True
        super().on_train_end(trainer, pl_module)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"trial {self.number}, {super()._get_train_description(current_epoch)}"


class TrialFit(CLI):
    """The `fit` of a trial, in its own folder.

    Args:
        args: of `fit`.
        sweep: whose trial it is.
        trial: which.
        again: the command that goes on with the sweep.
    """

    def __init__(self, args: list[str], sweep: Sweep, trial: Trial, again: Sequence[str]) -> None:
        self.sweep, self.trial, self.again = sweep, trial, again
        self.watching = Watching(sweep, trial)
        super().__init__(args)

    def beginning(self, root: Path) -> Start:
        """Where a process that has died left it, if there was one."""
        run = self.sweep.run_of(self.trial)
        return runs.start(str(run.last), root) if run.last.is_file() else Start(run)

    def progress(self) -> Progress:
        return TrialProgress(self.trial.number)

    def callbacks(self) -> list[Callback]:
        return [*super().callbacks(), self.watching]

    def warn(self, model: Learner) -> None:
        """Leave it to `CheckedFit`, once for all trials."""

    def life(self, model: Learner, data: MNISTDataModule) -> Life:
        data.hold_test_back()
        return replace(super().life(model, data), again=self.again)

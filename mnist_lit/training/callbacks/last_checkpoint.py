"""`LastCheckpoint`: save in intervals and at signals, to resume from."""

import math
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from jsonargparse.typing import NonNegativeFloat
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger

from mnist_lit.training.processes import gathered

WATCHED = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)]
STEPS_A_VOTE = 10  # with several ranks: steps between two votes on whether to save


class Interrupted(SystemExit):
    """A signal ended the training; the exit code is 128 + its number, as in shells."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum)


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt``, from which an interrupted run is resumed.

    It is saved after epochs and, within one, between two steps, so that a resumed run takes the
    steps that the interrupted one would have taken. Everything that was logged until then is on
    the disk before it.

    Args:
        every_s: seconds between two saves within an epoch.
    """

    def __init__(self, every_s: NonNegativeFloat = 30.0) -> None:
        super().__init__()
        self.every_s = float(every_s)
        self.path: Path | None = None
        self._saved_at = 0.0
        self._training = False
        self._received = 0
        self._due = False

    @contextmanager
    def watching_signals(self) -> Iterator[None]:
        """Save before Ctrl-C, SIGTERM and SIGUSR1 end the training.

        The first signal lets the current step finish (with several ranks, up to `STEPS_A_VOTE`
        steps); a second one, or one outside of the training, ends at once.

        Raises:
            Interrupted: a signal was received.
        """
        previous = {signum: signal.signal(signum, self._receive) for signum in WATCHED}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._received or not self._training:
            raise Interrupted(signum)
        self._received = signum

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.path = Path(str(trainer.log_dir)) / "checkpoints" / "last.ckpt"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._training = True
        loop = trainer.fit_loop
        if loop.restarted_on_epoch_end:
            # With max_steps, Lightning 2.6 would enter the complete epoch of a checkpoint again.
            loop.epoch_progress.increment_completed()
            loop.reset_restart_stage()
            loop.epoch_loop.restarting = False
        if trainer.world_size > 1:
            # In place of Lightning's handler, which waits for all ranks and may deadlock.
            for signum in WATCHED:
                signal.signal(signum, self._receive)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = bool(self._received) or time.monotonic() - self._saved_at >= self.every_s
        # Clocks differ, and a signal may reach one rank only; but all ranks save after one step.
        if trainer.world_size == 1 or batch_idx % STEPS_A_VOTE == 0:
            self._due |= trainer.strategy.reduce_boolean_decision(due, all=False)
        # Not before a validation, which a run resumed from there would leave out; nor in the
        # middle of gradient accumulation.
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self._due and is_step and not _is_validated_after(trainer, batch_idx):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = False

    def _save(self, trainer: Trainer) -> None:
        if self.path:
            if trainer.is_global_zero:
                flush_logs(trainer.loggers, self.path.parents[1])
            trainer.save_checkpoint(self.path)
        self._saved_at, self._due = time.monotonic(), False
        received = max(gathered(self._received))
        if received:
            raise Interrupted(received)


def flush_logs(loggers: Iterable[Logger], folder: Path) -> None:
    """Write what loggers of files have in memory to the disk."""
    for logger in loggers:
        logger.save()
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.flush()
    for path in [*folder.glob("metrics.csv"), *folder.glob("events.out.*")]:
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _is_validated_after(trainer: Trainer, batch_idx: int) -> bool:
    """Return True if a validation follows a step."""
    every = trainer.val_check_batch or math.inf
    is_over_epochs = trainer.check_val_every_n_epoch is None
    steps = trainer.fit_loop.total_batch_idx if is_over_epochs else batch_idx
    return trainer.is_last_batch or (steps + 1) % every == 0

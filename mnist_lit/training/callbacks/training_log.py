"""`TrainingLog`: training metrics and speed for the loggers."""

import math
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mnist_lit.data.loaders import EpochShuffle
from mnist_lit.training.base_task import BaseTask


class TrainingLog(Callback):
    """Log training metrics every `Trainer.log_every_n_steps` steps, and measure the speed.

    It writes to the loggers itself: what a module logs reaches them only after the hook in which
    checkpoints are saved, so a run resumed from one would miss that point of the curves.

    Attributes:
        fit_seconds: time spent in training and validation, over all sessions of a run.
        images_per_s: training images a second in the fastest whole epoch, validation left out.
    """

    def __init__(self) -> None:
        self.fit_seconds = 0.0
        self.images_per_s = 0.0
        self._epoch_is_whole = False
        self._images = 0  # of this epoch so far
        self._seconds = 0.0  # training seconds of this epoch up to `_since`
        self._since = 0.0
        self._fit_since: float | None = None  # while it trains

    def state_dict(self) -> dict[str, float]:
        return {
            "fit_seconds": self._seconds_until_now(),
            "images_per_s": self.images_per_s,
        }

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.fit_seconds = float(state_dict["fit_seconds"])
        self.images_per_s = float(state_dict["images_per_s"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit_since = self._since = time.monotonic()
        # At least once per epoch, for the curves and the progress line.
        trainer.log_every_n_steps = min(  # type: ignore[attr-defined]
            trainer.log_every_n_steps,  # type: ignore[attr-defined]
            math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches),
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_is_whole, self._images, self._seconds = True, 0, 0.0
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        sampler: EpochShuffle = trainer.train_dataloader.sampler  # type: ignore[union-attr]
        self._images += sampler.num_images(batch_idx)
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        if is_step and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            seconds = self._seconds + time.monotonic() - self._since
            metrics = {"images_per_s": self._images / seconds}
            if isinstance(pl_module, BaseTask):  # others log theirs themselves
                metrics = {**pl_module.training_metrics(), **metrics}
            pl_module.log_dict(metrics, prog_bar=True, logger=False)
            for logger in trainer.loggers:
                logger.log_metrics(
                    {**metrics, "epoch": trainer.current_epoch}, trainer.global_step - 1
                )
                logger.save()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seconds += time.monotonic() - self._since

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._epoch_is_whole:
            self._seconds += time.monotonic() - self._since
            self.images_per_s = max(self.images_per_s, self._images / self._seconds)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.fit_seconds, self._fit_since = self._seconds_until_now(), None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the Trainer from closing loggers: they are closed after the results are saved.

        A logger that fails while it is closed would otherwise cost the results.
        """
        if stage == "fit":
            trainer.loggers = []

    def _seconds_until_now(self) -> float:
        since = 0.0 if self._fit_since is None else time.monotonic() - self._fit_since
        return self.fit_seconds + since

"""`Progress`: the progress bar, and a line for every epoch."""

import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from rich.progress import TimeElapsedColumn, TimeRemainingColumn


class Progress(RichProgressBar):
    """Lightning's progress bar, redrawn a few times a second, and a line for every epoch."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)  # times a second
        self._redraw_at = 0.0
        self._validated_epoch = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now >= self._redraw_at or trainer.is_last_batch:
            self._redraw_at = now + 1 / self.refresh_rate
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self._validated_epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self.is_disabled:  # on all ranks but the first
            return
        values = trainer.callback_metrics
        text = self._get_train_description(trainer.current_epoch)
        labels = {"train": "train"}
        if self._validated_epoch == trainer.current_epoch:  # else the values are an older epoch's
            labels["val"] = "validation"
        for name, label in labels.items():
            if f"{name}/loss" in values and f"{name}/acc" in values:
                text += f"  {label} {values[f'{name}/loss']:.4f} {values[f'{name}/acc']:7.2%}"
        assert self.progress is not None
        self.progress.console.print(text, highlight=False)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        values = trainer.progress_bar_metrics
        return {
            label: f"{values[name]:{form}}"
            for name, label, form in (
                ("train/loss", "loss", ".4f"),
                ("train/acc", "acc", ".2%"),
                ("images_per_s", "img/s", ",.0f"),
            )
            if name in values
        }

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        description, bar, *_ = super().configure_columns(trainer)
        bar.bar_width = 12  # so that everything fits into 80 columns
        # Not Lightning's column of times: it has a bullet, which some encodings lack.
        return [description, bar, TimeElapsedColumn(), TimeRemainingColumn()]

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"

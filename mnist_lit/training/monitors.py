"""Callbacks that follow a validation metric: `BestCheckpoint` and `StopEarly`."""

import sys
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from pytorch_lightning import LightningModule, Trainer, callbacks
from pytorch_lightning.callbacks import ModelCheckpoint

from mnist_lit.errors import UserError

Mode = Literal["min", "max"]
Metric = Literal["train/loss", "train/acc", "val/loss", "val/acc"]


def _check_mode(monitor: str, mode: Mode) -> None:
    """Refuse a mode that would select the worst epoch.

    Raises:
        UserError: the metric is better the other way.
    """
    better: Mode = "min" if monitor.endswith("loss") else "max"
    if mode != better:
        raise UserError(f"monitor {monitor} goes with mode {better}, not {mode}: give both")


class BestCheckpoint(ModelCheckpoint):
    """Keep the checkpoint of the epoch with the best validation score as ``best.ckpt``.

    Args:
        monitor: the metric that decides; or epoch, for the last one (with max).
        mode: min if lower is better, max if higher is better.
    """

    def __init__(self, monitor: Metric | Literal["epoch"] = "val/loss", mode: Mode = "min") -> None:
        _check_mode(monitor, mode)
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best score when the folder is not where it was; here it is kept if
        # the best checkpoint is there too, as in a run that was moved as a whole.
        best = Path(str(self.dirpath)) / "best.ckpt"
        if best.is_file():
            moved = {
                "dirpath": self.dirpath,
                "best_model_path": str(best),
                "kth_best_model_path": str(best),
                "best_k_models": {str(best): torch.as_tensor(state_dict["best_model_score"])},
            }
            super().load_state_dict({**state_dict, **moved})


class StopEarly(callbacks.EarlyStopping):
    """Stop the training when the validation no longer improves.

    Args:
        monitor: the metric that decides.
        mode: min if lower is better, max if higher is better.
        patience: epochs without a new best one before it stops; null: it never does.
        min_delta: smallest improvement that counts.
    """

    def __init__(
        self,
        monitor: Metric = "val/loss",
        mode: Mode = "min",
        patience: PositiveInt | None = 3,
        min_delta: NonNegativeFloat = 0.0,
    ) -> None:
        _check_mode(monitor, mode)
        super().__init__(
            monitor,
            float(min_delta),
            sys.maxsize if patience is None else int(patience),
            mode=mode,
            strict=False,  # an epoch that was cut short, by max_steps say, has no validation
            check_finite=patience is not None,
        )

    @property
    def state_key(self) -> str:
        """Return the key of Lightning's own EarlyStopping."""
        return super().state_key.replace(type(self).__qualname__, "EarlyStopping", 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = torch.as_tensor(state_dict["best_score"])
        super().load_state_dict({**state_dict, "best_score": best, "patience": self.patience})

    @property
    def stopped(self) -> bool:
        return bool(self.wait_count >= self.patience)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = self.stopped

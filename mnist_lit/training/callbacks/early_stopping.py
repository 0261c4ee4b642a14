"""`StopEarly`: end a training that no longer improves."""

import sys
from typing import Any

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping

from mnist_lit.training.callbacks.best_checkpoint import Metric, mode_of


class StopEarly(EarlyStopping):
    """Stop the training when the validation no longer improves.

    Unlike with Lightning's EarlyStopping, a resumed run takes its patience from the config, and a
    run that had stopped stays stopped.

    Args:
        monitor: the metric that decides.
        patience: epochs without a new best one before it stops; null: it never does.
        min_delta: smallest improvement that counts.
    """

    def __init__(
        self,
        monitor: Metric = "val/loss",
        patience: PositiveInt | None = 3,
        min_delta: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(
            monitor,
            float(min_delta),
            sys.maxsize if patience is None else int(patience),
            mode=mode_of(monitor),
            strict=False,  # an epoch that was cut short, by max_steps say, has no validation
            check_finite=patience is not None,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience

"""`FirstStep`: a callback for the first training step, before which a run is not changed."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

# State of optimizers in the shape of its weight. Fused ones do not check it, and would write to
# foreign memory.
LIKE_WEIGHTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum"}


class FirstStep(Callback):
    """Call a function after the first training step; until then a training may still fail.

    Attributes:
        taken: True once a step was taken.
        then: the function.
    """

    def __init__(self) -> None:
        self.taken = False
        self.then: Callable[[], None] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            for weight, state in optimizer.state.items():
                for name, value in state.items():
                    shape = weight.shape if name in LIKE_WEIGHTS else torch.Size()
                    is_known = name in LIKE_WEIGHTS or name == "step"
                    if is_known and not _is_dense(value, shape):
                        raise ValueError(f"{name} of the optimizer does not fit the weights")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.taken:
            self.take()

    def take(self) -> None:
        self.taken = True
        if self.then:
            self.then()
            self.then = None


def _is_dense(value: Any, shape: torch.Size) -> bool:
    is_tensor = isinstance(value, torch.Tensor)
    return is_tensor and value.layout == torch.strided and value.shape == shape

"""`BaseTask`: base of the LightningModules: Adam, schedule, metrics of the training."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from jsonargparse.typing import restricted_number_type
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mnist_lit.data.images import Batch
from mnist_lit.data.module import MNISTDataModule

if TYPE_CHECKING:
    Share = float
else:
    Share = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])

Schedule = Literal["constant", "one_cycle"]

# Optimizer state in the shape of its weight. Fused optimizers do not check this, and a wrong shape
# would corrupt memory.
LIKE_WEIGHTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum"}


class BaseTask(LightningModule):
    """Train a network by Adam with a schedule, in one process or several.

    Args:
        lr, schedule, warmup: see `LitClassifier`.

    Attributes:
        network: the network.
        weights: initial weights of a new training; None: random ones.
        step_lr: learning rate of the current step; the scheduler changes the optimizer's after it.
    """

    network: nn.Module
    weights: str | None = None
    num_sums: int

    def __init__(self, lr: float, schedule: Schedule, warmup: float) -> None:
        super().__init__()
        self.lr, self.schedule, self.warmup = lr, schedule, warmup
        self.step_lr = lr
        # Sums over the training steps since the last point of the curves; no buffer: DDP would
        # overwrite it with rank 0's.
        self._sums = torch.zeros(self.num_sums)

    @abstractmethod
    def _training_means(self, sums: Tensor) -> Mapping[str, float]:
        """Compute ``train/loss`` and ``train/acc`` from sums over steps and ranks, ``(S,)``."""

    def training_metrics(self) -> dict[str, float]:
        """Return loss and accuracy since the last call, and the learning rate (collective)."""
        means = self._training_means(self._sums_of_all())
        self._sums = torch.zeros_like(self._sums)
        return {**means, "lr": self.step_lr}

    def _add_to_sums(self, *values: Tensor) -> None:
        """Add one step's values, S scalars, to the running sums."""
        step = torch.stack(values).detach()
        # In float64, the sums depend neither on the order nor on resuming.
        step = step if step.device.type == "mps" else step.double()  # which mps does not have
        self._sums = self._sums.to(step) + step

    def _sums_of_all(self) -> Tensor:
        sums: Tensor = self.trainer.strategy.reduce(self._sums.clone(), reduce_op="sum")
        return sums

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["train_sums"] = self._sums_of_all().cpu()
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, MNISTDataModule):
            checkpoint["classes"] = list(data.classes)
            checkpoint["preprocessing"] = asdict(data.preprocessing)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._sums = checkpoint["train_sums"]

    @abstractmethod
    def _evaluate(self, batch: Batch, name: str) -> None:
        """Log loss and accuracy of a batch, under a set's name."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # In mixed precision, Lightning does not clip the gradients of a fused optimizer.
        is_clipped = bool(self.trainer.gradient_clip_val) and self.trainer.precision != "32-true"
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        adam = torch.optim.Adam(trained, lr=self.lr, fused=not is_clipped)
        return self.with_schedule(adam)

    def with_schedule(self, optimizer: Optimizer) -> OptimizerLRScheduler:
        """Add the schedule to an optimizer."""
        scheduler = LambdaLR(optimizer, self._lr_factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _lr_factor(self, step: int) -> float:
        if self.schedule == "constant":
            return 1.0
        # Queried at each step, because a resumed run may have more epochs; not at step 0, which
        # would set up the dataloader before its state is restored.
        num_steps = self.trainer.estimated_stepping_batches if step else 1
        return one_cycle(step / num_steps, self.warmup)

    def on_train_start(self) -> None:
        """Check the state of a checkpoint's optimizer, and give it the config's learning rate.

        Raises:
            ValueError: a part of the state does not have the shape of its weight.
        """
        for optimizer in self.trainer.optimizers:
            _check_state(optimizer)
        if not self.trainer.is_global_zero:
            self._sums = torch.zeros(self.num_sums)  # a checkpoint has the sums of all ranks
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LambdaLR):
            lr = scheduler.optimizer.defaults["lr"]
            scheduler.base_lrs = [lr for _ in scheduler.optimizer.param_groups]
            for group in scheduler.optimizer.param_groups:
                group["lr"] = lr * self._lr_factor(scheduler.last_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.step_lr = float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_epoch_start(self) -> None:
        """Copy rank 0's buffers to all ranks, so that all validate what rank 0 saves."""
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                dist.broadcast(buffer, 0)


def unsaved_buffers(module: nn.Module) -> list[str]:
    """Return the names of non-persistent buffers, which no checkpoint holds."""
    return sorted(dict(module.named_buffers()).keys() - module.state_dict().keys())


def _check_state(optimizer: Optimizer) -> None:
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            shape = weight.shape if name in LIKE_WEIGHTS else torch.Size()
            is_known = name in LIKE_WEIGHTS or name == "step"
            is_dense = isinstance(value, Tensor) and value.layout == torch.strided
            if is_known and not (is_dense and value.shape == shape):
                raise ValueError(f"{name} of the optimizer does not fit the weights")


def one_cycle(progress: float, warmup: float) -> float:
    """Compute the learning rate as a share of its highest value.

    Args:
        progress: share of the training that is done, in [0, 1].
        warmup: share of the training in which it rises, from a twenty-fifth; in [0, 1).

    Returns:
        In [0, 1]: 1 where the warm-up ends, 0 where the training does.

    Source: the shape of Smith and Topin, arXiv 1708.07120, as in torch's `OneCycleLR`.
    """
    if progress < warmup:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * progress / warmup)) / 2
    done = min((progress - warmup) / (1 - warmup), 1)
    return (1 + math.cos(math.pi * done)) / 2

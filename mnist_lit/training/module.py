"""`LitClassifier`: what a training step, a validation step and a test step are."""

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveFloat, restricted_number_type
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.functional.classification import multiclass_accuracy

from mnist_lit.data.module import Batch, MNISTDataModule
from mnist_lit.models import NetworkName, build

if TYPE_CHECKING:
    Share = float
else:
    Share = restricted_number_type("Share", float, [(">=", 0), ("<", 1)])

Schedule = Literal["constant", "one_cycle"]

NO_LABEL = -100  # of what is no digit


class LitClassifier(LightningModule):
    """A network that learns to tell ten classes apart.

    It logs the validation itself; the training is logged by the callback `TrainingLog`.

    Args:
        network: cnn: the original one, 21,840 parameters; wide: a larger one, 613,098.
        dropout: share of units left out in each training step, 0 <= dropout < 1.
        lr: Adam's learning rate; with a schedule, its highest.
        schedule: constant, or one_cycle: up in the first share `warmup` of all steps, then down
            to nothing along a cosine.
        warmup: that share, 0 <= warmup < 1.
        label_smoothing: share of the probability that the training target gives to all classes
            alike, 0 <= label_smoothing < 1.
        mirror: whether, once trained, an image and its mirror image are classified together; for
            clothes, not for digits.
    """

    def __init__(
        self,
        network: NetworkName = "cnn",
        dropout: Share = 0.25,
        lr: PositiveFloat = 1e-3,
        schedule: Schedule = "constant",
        warmup: Share = 0.25,
        label_smoothing: Share = 0.0,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        # Plain numbers: a checkpoint takes no other classes.
        dropout, lr, warmup = float(dropout), float(lr), float(warmup)
        label_smoothing = float(label_smoothing)
        self.save_hyperparameters()
        self.lr, self.schedule, self.warmup = lr, schedule, warmup
        self.label_smoothing = label_smoothing
        self.network = build(network, dropout, mirror).to(memory_format=torch.channels_last)
        self.loss = MeanMetric(nan_strategy="disable")  # what diverges is to be seen
        self.accuracy = MulticlassAccuracy(num_classes=10, average="micro", validate_args=False)
        # What training steps put out since the last call of training_metrics: (B, 10) logits, (B,)
        # labels. Metrics over many steps at once cost hardly more than over one.
        self._unlogged: list[Batch] = []

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, MNISTDataModule):
            self.network.mean.fill_(data.mean)
            self.network.std.fill_(data.std)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, 10)`` of images ``(B, 1, 28, 28)``, float in [0, 1]."""
        logits: Tensor = self.network(images)
        return logits

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)
        scheduler = LambdaLR(optimizer, self._lr_factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _lr_factor(self, step: int) -> float:
        if self.schedule == "constant":
            return 1.0
        # Asked for here and not once and for all: a resumed run may be given more epochs. But not
        # for step 0: it would set up the loader before the checkpoint's place in it is known.
        num_steps = self.trainer.estimated_stepping_batches if step else 1
        return one_cycle(step / num_steps, self.warmup)

    def on_train_start(self) -> None:
        """Let this run's learning rate win over one that a checkpoint brought."""
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LambdaLR):
            scheduler.base_lrs = [self.lr]
            for group in scheduler.optimizer.param_groups:
                group["lr"] = self.lr * self._lr_factor(scheduler.last_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self(images)
        self._unlogged.append((logits.detach(), _labels(labels)))
        del self._unlogged[: -self.trainer.log_every_n_steps]  # type: ignore[attr-defined]
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def training_metrics(self) -> dict[str, float]:
        """Loss and accuracy over the training steps since the last call, and the learning rate."""
        logits, labels = (torch.cat(parts) for parts in zip(*self._unlogged, strict=True))
        self._unlogged.clear()
        acc = multiclass_accuracy(
            logits, labels, 10, average="micro", ignore_index=NO_LABEL, validate_args=False
        )
        return {
            "train/loss": F.cross_entropy(logits, labels, ignore_index=NO_LABEL).item(),
            "train/acc": acc.item(),
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
        }

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, name: str) -> None:
        images, labels = batch
        logits = self(images)
        self.loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self.accuracy.update(logits, labels)
        self.log(f"{name}/loss", self.loss)
        self.log(f"{name}/acc", self.accuracy)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Logarithms of the probabilities, ``(B, 10)``."""
        images, _ = batch
        return F.log_softmax(self(images), dim=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["unlogged"] = [torch.cat(parts) for parts in zip(*self._unlogged, strict=True)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        unlogged = checkpoint["unlogged"]
        self._unlogged = [tuple(unlogged)] if unlogged else []


def _labels(targets: Tensor) -> Tensor:
    """Labels ``(B,)``, where targets may also be shares of all classes: `NO_LABEL` if of several.

    Nothing is left out here: on a GPU every step would have to wait to know how many there are.
    """
    if targets.ndim == 1:
        return targets
    return targets.argmax(dim=1).where(targets.amax(dim=1) == 1, NO_LABEL)


def one_cycle(progress: float, warmup: float) -> float:
    """The learning rate's share of its highest value.

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

"""`LitClassifier`: what a training step, a validation step and a test step are."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveFloat, restricted_number_type
from pytorch_lightning import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.functional.classification import multiclass_accuracy

from mnist_lit.data.module import Batch, MNISTDataModule
from mnist_lit.models import NetworkName, build

if TYPE_CHECKING:
    Rate = float
else:
    Rate = restricted_number_type("Rate", float, [(">=", 0), ("<", 1)])


class LitClassifier(LightningModule):
    """A network that learns to tell ten classes apart.

    Args:
        network: cnn: the original one, 21,840 parameters.
        dropout: share of units left out in each training step, 0 <= dropout < 1.
        lr: Adam's learning rate.
    """

    def __init__(
        self,
        network: NetworkName = "cnn",
        dropout: Rate = 0.25,
        lr: PositiveFloat = 1e-3,
    ) -> None:
        super().__init__()
        dropout, lr = float(dropout), float(lr)  # a checkpoint takes no other classes of numbers
        self.save_hyperparameters()
        self.lr = lr
        self.network = build(network, dropout).to(memory_format=torch.channels_last)
        self.loss = MeanMetric()
        self.accuracy = MulticlassAccuracy(num_classes=10, average="micro", validate_args=False)
        # What training steps put out since the last one that was logged: (B, 10) logits, (B,)
        # labels. Metrics over all of them at once cost a fiftieth of metrics at every step.
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

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)

    def on_train_start(self) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr  # the option's, also where a checkpoint brought another one

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self(images)
        self._unlogged.append((logits.detach(), labels))
        return F.cross_entropy(logits, labels)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            logits, labels = (torch.cat(parts) for parts in zip(*self._unlogged, strict=True))
            self._unlogged.clear()
            acc = multiclass_accuracy(logits, labels, 10, average="micro", validate_args=False)
            self.log("train/loss", F.cross_entropy(logits, labels), prog_bar=True)
            self.log("train/acc", acc, prog_bar=True)
            self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, name: str) -> None:
        images, labels = batch
        logits = self(images)
        self.loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self.accuracy.update(logits, labels)
        self.log(f"{name}/loss", self.loss, prog_bar=name == "val")
        self.log(f"{name}/acc", self.accuracy, prog_bar=name == "val")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Logarithms of the probabilities, ``(B, 10)``."""
        images, _ = batch
        return F.log_softmax(self(images), dim=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["unlogged"] = [torch.cat(parts) for parts in zip(*self._unlogged, strict=True)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        unlogged = checkpoint["unlogged"]
        self._unlogged = [tuple(unlogged)] if unlogged else []

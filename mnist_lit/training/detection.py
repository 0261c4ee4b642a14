"""`LitDetector`: the LightningModule of the detector."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor
from torchmetrics import MeanMetric

from mnist_lit.data.images import Batch
from mnist_lit.models.characters import NUM_CLASSES, NUM_DIGITS
from mnist_lit.models.detector import DetectorNetwork
from mnist_lit.reading.detector import PACKAGED_DETECTOR
from mnist_lit.synthetic.sheet import HEIGHT, WIDTH
from mnist_lit.synthetic.targets import loss
from mnist_lit.training.base_task import BaseTask, Schedule, Share
from mnist_lit.training.initial_weights import load_initial_weights

MIN_PROB = 0.5  # of a digit that counts as detected


class LitDetector(BaseTask):
    """Train a detector on synthetic sheets.

    Its accuracy is the number of digits detected right, divided by the number of those that are
    there or were detected.

    Args:
        width: channels of the network's body.
        lr: Adam's learning rate; with a schedule, its highest.
        schedule: constant, or one_cycle: a rise to `lr` in the first fraction `warmup` of all
            steps, then a decay to 0 along a cosine.
        warmup: that fraction, 0 <= warmup < 1.
        weights: initial weights of a new training: packaged, the path of a checkpoint, or of a
            state_dict; null: random weights.
    """

    num_sums = 4  # steps, loss, digits detected right, digits there or detected

    def __init__(
        self,
        width: PositiveInt = 64,
        lr: PositiveFloat = 2e-3,
        schedule: Schedule = "one_cycle",
        warmup: Share = 0.1,
        weights: str | None = None,
    ) -> None:
        super().__init__(float(lr), schedule, float(warmup))
        self.weights = weights
        self.network = DetectorNetwork(int(width)).to(memory_format=torch.channels_last)
        self.save_hyperparameters(
            {"width": int(width), "lr": self.lr, "schedule": schedule, "warmup": self.warmup}
        )
        self.example_input_array = torch.zeros(1, 1, HEIGHT, WIDTH)
        self.loss = MeanMetric(nan_strategy="disable")  # a loss that diverges is to be seen
        self.accuracy = MeanMetric()

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.weights:
            load_initial_weights(self.network, self.weights, NUM_CLASSES, PACKAGED_DETECTOR)

    def forward(self, ink: Tensor) -> Tensor:
        """Compute the maps of sheets; see `DetectorNetwork.forward`."""
        maps: Tensor = self.network(ink)
        return maps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        ink, target = batch
        maps = self(ink)
        error = loss(maps, target)
        self._add_to_sums(torch.ones_like(error), error, *counts(maps.detach(), target))
        return error

    def _training_means(self, sums: Tensor) -> Mapping[str, float]:
        steps, error, right, num = sums.tolist()
        return {"train/loss": error / steps, "train/acc": right / max(num, 1e-6)}

    def _evaluate(self, batch: Batch, name: str) -> None:
        ink, target = batch
        maps = self(ink)
        right, num = counts(maps, target)
        self.loss.update(loss(maps, target))
        self.accuracy.update(right / num.clamp(min=1), weight=num)
        self.log(f"{name}/loss", self.loss)
        self.log(f"{name}/acc", self.accuracy)


def counts(maps: Tensor, target: Tensor) -> Tensor:
    """Count digits that are detected right, and digits that are there or detected.

    Args:
        maps: ``(B, NUM_CLASSES + 2, H, W)``, see `DetectorNetwork.forward`.
        target: ``(B, NUM_CLASSES + 3, H, W)``, see `mnist_lit.synthetic.targets.draw_target`.

    Returns:
        Both numbers, ``(2,)``.
    """
    highest = maps[:, :NUM_CLASSES].amax(dim=1, keepdim=True)
    is_peak = (highest == F.max_pool2d(highest, 3, 1, 1)) & (highest.sigmoid() > MIN_PROB)
    is_peak &= target[:, -1:] > 0
    detected = (is_peak & (maps[:, :NUM_DIGITS] == highest)).float()
    there = (target[:, :NUM_DIGITS] == 1).float()
    right = (F.max_pool2d(detected, 3, 1, 1) * there).sum()
    return torch.stack([right, there.sum() + detected.sum() - right])

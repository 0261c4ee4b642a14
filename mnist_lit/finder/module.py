"""`LitFinder`: what a training step and a validation step of a finder are."""

from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from mnist_lit.data.images import Batch
from mnist_lit.finder.network import NUM_DIGITS, Finder
from mnist_lit.finder.page import HEIGHT, WIDTH
from mnist_lit.finder.targets import loss
from mnist_lit.models import Shape, ask, paper_and_ink
from mnist_lit.training.learner import Learner, Schedule, Share

SURE = 0.5  # how probable a digit is that counts as found
LONGEST = 5.0  # gradient; what is longer is shortened to it


class LitFinder(Learner):
    """A finder that learns from pages.

    Its accuracy is the share that is found right, of all digits that are there or seem to be.

    Args:
        width: channels of its body.
        lr: Adam's learning rate; with a schedule, its highest.
        schedule: constant, or one_cycle: up in the first share `warmup` of all steps, then down
            to nothing along a cosine.
        warmup: that share, 0 <= warmup < 1.
    """

    def __init__(
        self,
        width: PositiveInt = 64,
        lr: PositiveFloat = 2e-3,
        schedule: Schedule = "one_cycle",
        warmup: Share = 0.1,
    ) -> None:
        super().__init__(float(lr), schedule, float(warmup))
        self.network = Finder(int(width)).to(memory_format=torch.channels_last)
        self.save_hyperparameters(
            {"width": int(width), "lr": self.lr, "schedule": schedule, "warmup": self.warmup}
        )
        self.example_input_array = torch.zeros(1, 1, HEIGHT, WIDTH)
        self.loss = MeanMetric(nan_strategy="disable")  # what diverges is to be seen
        self.accuracy = MeanMetric()
        self._unlogged: list[Tensor] = []  # loss, and what `counts` says, of each step

    def forward(self, ink: Tensor) -> Tensor:
        """What is seen on pages; see `Finder`."""
        answer: Tensor = self.network(ink)
        return answer

    def has_answers(self) -> bool:
        answer: Tensor = ask(self.network, paper_and_ink(Shape()).to(self.device))
        return bool(answer.isfinite().all())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        ink, target = batch
        answer = self(ink)
        error = loss(answer, target)
        self._unlogged.append(torch.cat([error.detach()[None], counts(answer.detach(), target)]))
        del self._unlogged[: -self.trainer.log_every_n_steps]  # type: ignore[attr-defined]
        return error

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        clip_grad_norm_(self.parameters(), LONGEST)

    def training_metrics(self) -> dict[str, float]:
        error, right, num = torch.stack(self._unlogged).mean(dim=0).tolist()
        self._unlogged.clear()
        return {"train/loss": error, "train/acc": right / max(num, 1e-6), "lr": self.step_lr}

    def _evaluate(self, batch: Batch, name: str) -> None:
        ink, target = batch
        answer = self(ink)
        right, num = counts(answer, target)
        self.loss.update(loss(answer, target))
        self.accuracy.update(right / num.clamp(min=1), weight=num)
        self.log(f"{name}/loss", self.loss)
        self.log(f"{name}/acc", self.accuracy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["unlogged"] = [part.cpu() for part in self._unlogged]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._unlogged = [part.to(self.device) for part in checkpoint["unlogged"]]


def counts(answer: Tensor, target: Tensor) -> Tensor:
    """How many digits are found right, and how many there are or seem to be.

    Args:
        answer: ``(B, 12, H, W)``, as of `Finder`.
        target: ``(B, 13, H, W)``, as `mnist_lit.finder.targets.target` has it.

    Returns:
        Both, ``(2,)``.
    """
    probs = answer[:, :NUM_DIGITS].float().sigmoid()
    highest = probs.amax(dim=1, keepdim=True)
    is_seen = (highest == F.max_pool2d(highest, 3, 1, 1)) & (highest > SURE)
    is_seen &= target[:, -1:] > 0
    seen = (is_seen & (probs == highest)).float()
    there = (target[:, :NUM_DIGITS] == 1).float()
    right = (F.max_pool2d(seen, 3, 1, 1) * there).sum()
    return torch.stack([right, there.sum() + seen.sum() - right])

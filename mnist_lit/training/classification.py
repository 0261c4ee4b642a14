"""`LitClassifier`: the LightningModule of the classifiers."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveFloat
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from mnist_lit.data.images import Batch
from mnist_lit.data.loaders import EpochShuffle
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError, one_line
from mnist_lit.models import (
    ModuleSpec,
    Network,
    Shape,
    class_path_of,
    probe_images,
    run_in_eval_mode,
)
from mnist_lit.reading.classifier import PACKAGED_CLASSIFIER
from mnist_lit.training import initial_weights
from mnist_lit.training.base_task import BaseTask, Schedule, Share

NO_LABEL = -100  # of negative examples, and of images that fill up a rank's batch


class LitClassifier(BaseTask):
    """Train a network to classify images.

    It logs the validation itself; the training is logged by the callback `TrainingLog`. Logged
    losses are always cross-entropy, whatever the training loss.

    Args:
        network: any torch.nn.Module from images (B, C, H, W) in [0, 1] to logits (B, K), by its
            import path; CNN: the original one, 21,840 parameters; Wide: a larger one, 613,098.
            Its arguments num_classes, in_channels and image_size are set from the data.
        lr: Adam's learning rate; with a schedule, its highest.
        schedule: constant, or one_cycle: a rise to `lr` in the first fraction `warmup` of all
            steps, then a decay to 0 along a cosine.
        warmup: that fraction, 0 <= warmup < 1.
        label_smoothing: probability of the training target that is spread evenly over all classes,
            0 <= label_smoothing < 1.
        loss: import path of a torch.nn.Module, (logits, labels) -> scalar mean over the images;
            null: cross-entropy with label_smoothing.
        weights: initial weights of a new training: packaged, the path of a checkpoint, or of a
            state_dict; null: random weights. The last layer may have another number of classes.
        freeze: patterns of names of the network's parameters that are not trained: conv*.
        compile: compile the network by torch.compile while it is trained.
        num_classes: K.
        in_channels: C.
        image_size: H and W.
    """

    num_sums = 3  # cross-entropy, correct images, images

    def __init__(
        self,
        network: nn.Module | None = None,
        lr: PositiveFloat = 1e-3,
        schedule: Schedule = "constant",
        warmup: Share = 0.25,
        label_smoothing: Share = 0.0,
        loss: nn.Module | None = None,
        weights: str | None = None,
        freeze: list[str] | None = None,
        compile: bool = False,  # noqa: A002, named as in torch
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
    ) -> None:
        super().__init__(float(lr), schedule, float(warmup))
        self.shape = shape = Shape(num_classes, in_channels, image_size)
        self.label_smoothing, self.num_classes = float(label_smoothing), num_classes
        if loss is not None and label_smoothing:
            raise UserError("model.label_smoothing is for cross-entropy: leave it at 0")
        spec, built = _spec_and_module(network or ModuleSpec(), shape)
        _check_fit(built, spec.class_path, shape)
        self.network = built.to(memory_format=torch.channels_last)
        self.weights, self.compiles = weights, compile
        initial_weights.freeze(built, freeze or [])
        self.criterion = _spec_and_module(loss, shape)[1] if loss else None
        # Plain values: a checkpoint takes no other classes.
        self.save_hyperparameters(
            {
                "network": {"class_path": spec.class_path, "init_args": dict(spec.init_args)},
                "lr": self.lr,
                "schedule": schedule,
                "warmup": self.warmup,
                "label_smoothing": self.label_smoothing,
                **shape._asdict(),
            }
        )
        self.example_input_array = probe_images(shape)[:1]  # ModelSummary counts with it
        self.loss = MeanMetric(nan_strategy="disable")  # a loss that diverges is shown as it is
        self.accuracy = MulticlassAccuracy(
            num_classes=num_classes, average="micro", validate_args=False
        )

    def setup(self, stage: str) -> None:
        data, network = getattr(self.trainer, "datamodule", None), self.network
        if stage == "fit" and isinstance(network, Network) and isinstance(data, MNISTDataModule):
            network.mean.fill_(data.mean)
            network.std.fill_(data.std)
        if stage == "fit" and self.weights:
            anew = initial_weights.load_initial_weights(
                network, self.weights, self.num_classes, PACKAGED_CLASSIFIER
            )
            if anew and self.trainer.is_global_zero:
                print(f"{', '.join(anew)}: initialised at random, as the number of classes differs")
        if stage == "fit" and self.compiles:
            network.compile()

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``(B, K)`` of images ``(B, C, H, W)``, float in [0, 1] or uint8."""
        if not images.is_floating_point():
            images = images / 255
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self(images)
        weight = self._weight(batch_idx)
        self._count(logits.detach(), _labels(labels), weight)
        loss = self.objective(logits, labels)
        return loss if weight == 1 else weight * loss

    def _count(self, logits: Tensor, labels: Tensor, weight: float) -> None:
        """Add loss, correct ones and number of a batch's labelled images to the sums."""
        if weight:
            loss = F.cross_entropy(logits, labels, reduction="sum", ignore_index=NO_LABEL)
            right, num = (logits.argmax(dim=1) == labels).sum(), (labels != NO_LABEL).sum()
            self._add_to_sums(loss, right, num)

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Training loss of a batch; labels as in `Batch`."""
        if self.criterion is not None:
            loss: Tensor = self.criterion(logits, labels)
            return loss
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def _weight(self, batch_idx: int) -> float:
        """Return the weight of this rank's mean loss in the mean over the batch."""
        sampler = getattr(self.trainer.train_dataloader, "sampler", None)
        return sampler.weight(batch_idx) if isinstance(sampler, EpochShuffle) else 1

    def _training_means(self, sums: Tensor) -> Mapping[str, float]:
        loss, right, num = sums.tolist()
        return {"train/loss": loss / num, "train/acc": right / num} if num else {}

    def _evaluate(self, batch: Batch, name: str) -> None:
        images, labels = batch
        logits = self(images)
        self.loss.update(F.cross_entropy(logits, labels, reduction="none"))
        self.accuracy.update(logits, labels)
        self.log(f"{name}/loss", self.loss)
        self.log(f"{name}/acc", self.accuracy)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Compute log probabilities, ``(B, K)`` float32."""
        images, _ = batch
        return F.log_softmax(self(images).float(), dim=1)


def _spec_and_module(
    given: nn.Module | ModuleSpec | Mapping[str, Any], shape: Shape
) -> tuple[ModuleSpec, nn.Module]:
    """Return the spec and the module of what was given as either."""
    if isinstance(given, nn.Module):  # its constructor's arguments are unknown
        return ModuleSpec(class_path_of(type(given))), given
    spec = given if isinstance(given, ModuleSpec) else ModuleSpec(**given)
    return spec, spec.build(shape)


def _check_fit(network: nn.Module, name: str, shape: Shape) -> None:
    """Refuse a network that does not fit the data.

    Raises:
        UserError: it takes no such images, or its output has another shape.
    """
    images = probe_images(shape)
    try:
        logits = run_in_eval_mode(network, images)
    except Exception as error:  # of somebody else's forward
        raise UserError(
            f"{name} does not take images {tuple(images.shape)}: {one_line(error)}"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, shape.num_classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"{name} outputs {found} for 2 images of {shape.num_classes} classes")
    if not logits.is_floating_point():
        raise UserError(f"{name} outputs {logits.dtype}: logits have to be real floats")


def _labels(targets: Tensor) -> Tensor:
    """Convert targets, ``(B,)`` or ``(B, K)``, to labels ``(B,)``; soft targets get `NO_LABEL`.

    Their rows are kept: to filter them, every step would have to synchronise with the GPU.
    """
    if targets.ndim == 1:
        return targets
    return targets.argmax(dim=1).where(targets.amax(dim=1) == 1, NO_LABEL)

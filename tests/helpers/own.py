"""Networks, a loss, data sets and LightningModules of a user's own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn

from mnist_lit import LitClassifier
from mnist_lit.data.images import Batch
from mnist_lit.data.module import MNISTDataModule


class Perceptron(nn.Module):
    """A hidden layer, and no convolution.

    Args:
        num_classes: of the data.
        in_channels: of the data.
        image_size: of the data.
        hidden: units.
        dropout: of them.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: int,
        hidden: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_channels * image_size**2, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class Convolving(nn.Module):
    """One convolution, for ten classes in any size."""

    def __init__(self, maps: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, maps, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
        )
        self.last = nn.Linear(16 * maps, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.layers(images))
        return logits


class Thresholded(nn.Module):
    """Sees ink or none, by one filter: no gradient comes back to the image."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 1, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(8), nn.Flatten()
        )
        self.last = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.layers((images > 0.5).float()))
        return logits


class OneClass(nn.Module):
    """Puts out too little."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :1]


class Picky(nn.Module):
    """Fails in its constructor."""

    def __init__(self) -> None:
        raise RuntimeError("not today")


class Focal(nn.Module):
    """A loss."""

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        logs = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
        return -((1 - logs.exp()) ** self.gamma * logs).mean()


def stripes(train: bool) -> tuple[NDArray[np.uint8], Sequence[int]]:
    """Coloured images, 32x32, of stripes in five colours: the class is which."""
    random = np.random.default_rng(train)
    labels = random.integers(0, 5, 400)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]])
    images = random.integers(0, 60, (400, 32, 32, 3))
    images[:, 8:24] = images[:, 8:24] + 3 * colours[labels][:, None, None] // 4
    return images.astype(np.uint8), labels.tolist()


stripes.classes = ("red", "green", "blue", "yellow", "turquoise")  # type: ignore[attr-defined]


def digits_of_47(train: bool) -> tuple[Tensor, Tensor]:
    """MNIST's digits, and more classes: the digit, and how dark it is."""
    data = MNISTDataModule()
    data.setup()
    images = data.images("train" if train else "test")
    pixels, labels = images.pixels[:1500], images.labels[:1500]
    return pixels, labels + 10 * (torch.arange(1500) % 4).clamp(max=3) * (labels < 7)


class Smaller(MNISTDataModule):
    """A data module with an option of its own."""

    def __init__(
        self, side: int = 28, dataset: str = "mnist", val_size: int = 5000, batch_size: int = 100
    ) -> None:
        super().__init__(dataset, image_size=side, val_size=val_size, batch_size=batch_size)


def shaded(train: bool, num: int) -> tuple[Tensor, Tensor]:
    """Images of two shades."""
    labels = torch.arange(num) % 2
    return (labels[:, None, None] * 200 + torch.zeros(num, 16, 16)).byte(), labels


def nothing_of_use(train: bool) -> str:
    return "no data"


class Choosing(Perceptron):
    """Goes another way with some images than with others, which no graph can say."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if float(logits.sum()) > 0 else -logits


class Waving(Perceptron):
    """Has an operation that is rare in networks."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).sin()


class ExtraState(Perceptron):
    """Has a state that no checkpoint can hold."""

    def get_extra_state(self) -> object:
        return {"seen": {1, 2}}

    def set_extra_state(self, state: object) -> None:
        pass


class Masked(Perceptron):
    """Has a constant that no checkpoint can hold."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__(num_classes, in_channels, image_size)
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))


class ComplexWeights(Perceptron):
    """Has complex weights."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__(num_classes, in_channels, image_size)
        self.last = nn.Linear(num_classes, num_classes, dtype=torch.complex64)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(super().forward(images).to(torch.complex64))
        return logits.abs()


class ComplexLogits(Perceptron):
    """Puts out complex numbers."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.complex(super().forward(images), super().forward(images))


class Frozen(Perceptron):
    """Has nothing to train."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__(num_classes, in_channels, image_size)
        self.requires_grad_(False)


class Normed(Perceptron):
    """Cannot be trained on a single image."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__(num_classes, in_channels, image_size)
        self.layers[2] = nn.BatchNorm1d(32)


class Counting(Perceptron):
    """Draws random numbers, and has states that no checkpoint holds."""

    seen: Tensor

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__(num_classes, in_channels, image_size, dropout=0.5)
        self.register_buffer("seen", torch.tensor(0), persistent=False)
        self.calls = 0
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        self.calls += 1
        return super().forward(images) + torch.rand((), generator=self.generator)


class PerImage(nn.Module):
    """A loss that is not a scalar."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, reduction="none")


class Confident(LitClassifier):
    """Is paid for confidence.

    Args:
        share: of the entropy that is added to the loss.
    """

    def __init__(self, share: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        return super().objective(logits, labels) + self.share * entropy


class Autoencoder(LightningModule):
    """Learns no classes, but the images.

    Args:
        hidden: numbers that an image is described by.
        image_size: of the data.
    """

    def __init__(self, hidden: int = 16, image_size: int = 28) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encode = nn.Linear(image_size**2, hidden)
        self.decode = nn.Linear(hidden, image_size**2)
        self.dropout = nn.Dropout(0.1)

    def _loss(self, batch: Batch) -> Tensor:
        images = batch[0].flatten(1)
        drawn = self.decode(self.dropout(self.encode(images).relu())).sigmoid()
        return nn.functional.mse_loss(drawn, images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/loss", self._loss(batch), batch_size=len(batch[0]))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test/loss", self._loss(batch), batch_size=len(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003)


class NotingLogger(Logger):
    """Writes the names of the options of a run into a file.

    Args:
        path: of the file, to which each time a line is added.
    """

    name, version = "noting", 0

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            print(*params, file=file)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        pass


class Diverged(Autoencoder):
    """Has a test loss that is not a number."""

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test/loss", self._loss(batch) * torch.nan)


class Untested(Autoencoder):
    """Has no test."""

    test_step = LightningModule.test_step  # type: ignore[assignment]

"""The networks, as plain modules that know nothing of training."""

from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NetworkName = Literal["cnn", "wide"]


class Network(nn.Module):
    """What all networks share: images in [0, 1] go in, logits come out.

    The pixels' mean and standard deviation are buffers, so whoever has the weights has them too.

    Args:
        mirror: whether, once trained, an image and its mirror image are classified together; for
            clothes, not for digits.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mirror: bool) -> None:
        super().__init__()
        self.mirror = mirror
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0))

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: ``(B, 1, 28, 28)`` float in [0, 1], ink 1, paper 0; or uint8, ink 255.

        Returns:
            Logits, ``(B, 10)``; their softmax is the answer.
        """
        x = self.normalise(images)
        logits = self.logits(x)
        if self.mirror and not self.training:
            both = torch.stack([logits, self.logits(x.flip(-1))])
            logits = both.log_softmax(dim=2).mean(dim=0)
        return logits

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """From normalised images, ``(B, 1, 28, 28)``."""

    def normalise(self, images: Tensor) -> Tensor:
        """Images as for `forward`, to what has mean 0 and standard deviation 1 over all of them."""
        images = images.float() if images.is_floating_point() else images / 255
        return (images - self.mean) / self.std


class CNN(Network):
    """The original network: two 5x5 convolutions and two linear layers, 21,840 parameters.

    Args:
        dropout: share of the second convolution's maps, and of the 50 hidden units, that each
            training step leaves out.
        mirror: as for `Network`.
    """

    def __init__(self, dropout: float, mirror: bool = False) -> None:
        super().__init__(mirror)
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.dropout2d = nn.Dropout2d(dropout)
        self.fc1 = nn.Linear(320, 50)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(50, 10)

    def logits(self, x: Tensor) -> Tensor:
        x = F.relu(_convolve_and_pool(self.conv1, x))  # (B, 10, 12, 12)
        x = F.relu(self.dropout2d(_convolve_and_pool(self.conv2, x)))  # (B, 20, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))  # (B, 50)
        logits: Tensor = self.fc2(self.dropout(x))  # (B, 10)
        return logits


def _convolve_and_pool(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """2x2 max-pooling of a convolution, the bias added last.

    The maximum of four sums with one bias is the bias plus the maximum of four: the same values,
    but inside the convolution the bias's gradient costs more than all the rest of its backward
    pass (oneDNN, one input channel), and here a quarter of the additions. Dropping whole maps
    commutes with pooling in the same way, so dropout comes after it.
    """
    pooled = F.max_pool2d(F.conv2d(x, layer.weight), 2)
    assert layer.bias is not None
    return pooled + layer.bias[:, None, None]


class Wide(Network):
    """A larger network: seven convolutions with batch normalisation, 613,098 parameters.

    Args:
        dropout: share of the last 256 features that each training step leaves out.
        mirror: as for `Network`.
    """

    def __init__(self, dropout: float, mirror: bool = False) -> None:
        super().__init__(mirror)
        self.layers = nn.Sequential(
            *_convolution(1, 32, 5),  # (B, 32, 24, 24)
            nn.MaxPool2d(2),  # (B, 32, 12, 12)
            *_convolution(32, 64, 3, padding=1),  # (B, 64, 12, 12)
            *_convolution(64, 64, 3, padding=1),  # (B, 64, 12, 12)
            *_convolution(64, 64, 3, padding=1),  # (B, 64, 12, 12)
            nn.MaxPool2d(2),  # (B, 64, 6, 6)
            *_convolution(64, 128, 3, padding=1),  # (B, 128, 6, 6)
            *_convolution(128, 128, 3, padding=1),  # (B, 128, 6, 6)
            *_convolution(128, 256, 3),  # (B, 256, 4, 4)
            nn.AdaptiveAvgPool2d(1),  # (B, 256, 1, 1)
            nn.Flatten(),  # (B, 256)
            nn.Dropout(dropout),
            nn.Linear(256, 10),
        )

    def logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def _convolution(num_in: int, num_out: int, size: int, padding: int = 0) -> list[nn.Module]:
    """Batch normalisation brings the bias."""
    return [
        nn.Conv2d(num_in, num_out, size, padding=padding, bias=False),
        nn.BatchNorm2d(num_out),
        nn.ReLU(inplace=True),
    ]


def build(name: NetworkName, dropout: float, mirror: bool = False) -> Network:
    """A network by its name, with fresh weights."""
    networks: dict[NetworkName, type[CNN] | type[Wide]] = {"cnn": CNN, "wide": Wide}
    return networks[name](dropout, mirror)

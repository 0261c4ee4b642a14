"""The networks, as plain modules, and how one is built from its spec."""

import inspect
import pkgutil
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lit.errors import UserError, one_line

M = TypeVar("M")


class Shape(NamedTuple):
    """Sizes that follow from the data; a network's constructor gets those it has parameters for.

    Attributes:
        num_classes: number of logits, K.
        in_channels: of the images, C: 1, grey, or 3.
        image_size: height and width of the images, H = W, in pixels.
    """

    num_classes: int = 10
    in_channels: int = 1
    image_size: int = 28


class Network(nn.Module):
    """Base of the classifiers: images in [0, 1] to logits.

    The pixels' mean and standard deviation are buffers, so that they are saved with the weights.

    Args:
        mirror: True: in evaluation mode, average over an image and its mirror image; for clothes,
            not for digits.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mirror: bool) -> None:
        super().__init__()
        self.mirror = mirror
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of images.

        Args:
            images: ``(B, C, H, W)`` float in [0, 1], or uint8; for digits, ink is 1, or 255.

        Returns:
            Logits, ``(B, K)``.
        """
        x = self.normalise(images)
        logits = self.logits(x)
        if self.mirror and not self.training:
            both = torch.stack([logits, self.logits(x.flip(-1))])
            logits = both.log_softmax(dim=2).mean(dim=0)
        return logits

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Compute the logits of normalised images, ``(B, C, H, W)``."""

    def normalise(self, images: Tensor) -> Tensor:
        """Scale images, see `forward`, to mean 0 and standard deviation 1 over the training set."""
        images = images.float() if images.is_floating_point() else images / 255
        return (images - self.mean) / self.std


class CNN(Network):
    """The original network: two 5x5 convolutions and two linear layers, 21,840 parameters.

    Args:
        num_classes: K.
        in_channels: C.
        image_size: H and W, in pixels.
        dropout: share of the second convolution's maps, and of the 50 hidden units, that each
            training step leaves out, 0 <= dropout < 1.
        mirror: see `Network`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: int,
        dropout: float = 0.25,
        mirror: bool = False,
    ) -> None:
        super().__init__(mirror)
        _check(dropout)
        side = ((image_size - 4) // 2 - 4) // 2  # of the second convolution's pooled maps
        if side < 1:
            raise ValueError(f"images of {image_size} pixels are too small for CNN: 16 or more")
        self.conv1 = nn.Conv2d(in_channels, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.dropout2d = nn.Dropout2d(dropout)
        self.fc1 = nn.Linear(20 * side**2, 50)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(50, num_classes)

    def logits(self, x: Tensor) -> Tensor:
        x = F.relu(_convolve_and_pool(self.conv1, x))  # (B, 10, 12, 12), if H = W = 28
        x = F.relu(self.dropout2d(_convolve_and_pool(self.conv2, x)))  # (B, 20, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))  # (B, 50)
        logits: Tensor = self.fc2(self.dropout(x))  # (B, K)
        return logits


def _check(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout {dropout} is out of range: 0 <= dropout < 1")


def _convolve_and_pool(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve and max-pool 2x2, adding the bias last.

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
        num_classes: K.
        in_channels: C.
        image_size: H and W, in pixels.
        dropout: share of the last 256 features that each training step leaves out,
            0 <= dropout < 1.
        mirror: see `Network`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: int,
        dropout: float = 0.25,
        mirror: bool = False,
    ) -> None:
        super().__init__(mirror)
        _check(dropout)
        if image_size < 16:
            raise ValueError(f"images of {image_size} pixels are too small for Wide: 16 or more")
        self.layers = nn.Sequential(
            *_convolution(in_channels, 32, 5),  # (B, 32, 24, 24), if H = W = 28
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
            nn.Linear(256, num_classes),
        )

    def logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def _convolution(num_in: int, num_out: int, size: int, padding: int = 0) -> list[nn.Module]:
    """Make a convolution with batch normalisation, which has the bias, and ReLU."""
    return [
        nn.Conv2d(num_in, num_out, size, padding=padding, bias=False),
        nn.BatchNorm2d(num_out),
        nn.ReLU(inplace=True),
    ]


@dataclass(frozen=True)
class ModuleSpec:
    """Class and arguments of a network, as plain values for checkpoints.

    Attributes:
        class_path: import path of its class, ``module.Class``.
        init_args: of its constructor, without what follows from the data, see `Shape`.
        trusted: the class, if the user has named it; None: only classes of this package.
    """

    class_path: str = "mnist_lit.models.CNN"
    init_args: Mapping[str, Any] = field(default_factory=dict)
    trusted: type[nn.Module] | None = None

    @classmethod
    def of(cls, network_class: type[nn.Module], init_args: Mapping[str, Any]) -> Self:
        """Make a spec; arguments of `Shape` that have their default follow from the data."""
        parameters = inspect.signature(network_class).parameters
        follows = {
            name
            for name in Shape._fields
            if name in parameters and init_args.get(name) in (None, parameters[name].default)
        }
        given = {name: value for name, value in init_args.items() if name not in follows}
        return cls(class_path_of(network_class), given, network_class)

    def build(self, shape: Shape) -> nn.Module:
        """Build the network with fresh weights.

        Args:
            shape: of the data.

        Raises:
            UserError: its class has to be named first, or does not take these arguments.
        """
        network_class = self.trusted or NETWORKS.get(self.class_path)
        if network_class is None:
            raise UserError(
                f"the network is a {self.class_path}: name it if you trust it,"
                f" --network {self.class_path} (in Python, by the argument network)"
            )
        parameters = inspect.signature(network_class).parameters
        fitting = {name: value for name, value in shape._asdict().items() if name in parameters}
        try:
            return network_class(**{**fitting, **self.init_args})
        except Exception as error:  # of somebody else's constructor
            raise UserError(f"{self.class_path} cannot be built: {one_line(error)}") from error


def probe_images(shape: Shape) -> Tensor:
    """Make an all-0 and an all-1 image, ``(2, C, H, W)``, to try a network with."""
    _, channels, side = shape
    return torch.stack([torch.full((channels, side, side), ink) for ink in (0.0, 1.0)])


def run_in_eval_mode(network: nn.Module, images: Tensor) -> Any:
    """Run a network in evaluation mode; every module keeps the mode that it had."""
    modes = [(part, part.training) for part in network.modules()]
    try:
        with torch.no_grad():
            return network.eval()(images)
    finally:
        for part, training in modes:
            part.training = training


def class_path_of(named: type) -> str:
    return f"{named.__module__}.{named.__qualname__}"


NETWORKS = {class_path_of(network): network for network in (CNN, Wide)}


def named_class(class_path: str | None) -> type[nn.Module] | None:
    """Import the class named on the command line, if any.

    Raises:
        UserError: as for `find_class`.
    """
    return find_class(class_path, nn.Module) if class_path else None


def find_class(class_path: str, base: type[M]) -> type[M]:
    """Import a class by its path.

    Args:
        class_path: ``module.Class``.
        base: the class that it has to be derived from.

    Raises:
        UserError: there is no such class.
    """
    try:
        found = pkgutil.resolve_name(class_path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"no class {class_path}: {one_line(error)}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{class_path} is not a {base.__name__}")
    return found

"""`DetectorNetwork`: a fully convolutional network that locates and classifies characters."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lit.errors import UserError
from mnist_lit.models.characters import NUM_CLASSES

STRIDE = 2  # input pixels a cell of the output
DIGIT_PX = 28.0  # longer side of a digit at the scale that the network is trained for
DILATIONS = (1, 2, 4, 8, 4, 2, 1)  # of the residual blocks: a receptive field of 249 pixels
PRIOR = 0.01  # probability of a character in any cell before training


class Block(nn.Module):
    """A residual block of two 3x3 convolutions.

    Args:
        num_channels: in and out.
        dilation: of the first convolution.
    """

    def __init__(self, num_channels: int, dilation: int) -> None:
        super().__init__()
        self.first = _conv(num_channels, num_channels, 3, dilation=dilation)
        self.second = _conv(num_channels, num_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class DetectorNetwork(nn.Module):
    """Map ink to a probability map for each class and to the sizes of characters.

    Args:
        width: channels of the body; an even number, 4 or more.

    Raises:
        UserError: the width is not one of these.

    Source: objects as peaks of a map for each class, with a size for each cell: Zhou et al.,
    "Objects as points" (2019).
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise UserError(f"model.width: an even number, 4 or more, not {width}")
        self.fine = nn.Sequential(
            _conv(1, width // 4, 5, stride=2),
            nn.ReLU(),
            _conv(width // 4, width // 2, 3),
            nn.ReLU(),
        )
        self.down = nn.Sequential(_conv(width // 2, width, 3, stride=2), nn.ReLU())
        self.body = nn.Sequential(*(Block(width, dilation) for dilation in DILATIONS))
        self.up = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.PixelShuffle(2))
        self.join = nn.Sequential(_conv(width, width, 3), nn.ReLU())
        self.head = nn.Conv2d(width, NUM_CLASSES + 2, 1)
        nn.init.zeros_(self.head.weight)
        biases = [math.log(PRIOR / (1 - PRIOR))] * NUM_CLASSES + [0.0, 0.0]
        self.head.bias = nn.Parameter(torch.tensor(biases))

    def forward(self, ink: Tensor) -> Tensor:
        """Compute the maps of pictures.

        Args:
            ink: ``(B, 1, H, W)`` in [0, 1], paper 0; H and W multiples of 4.

        Returns:
            ``(B, NUM_CLASSES + 2, H / 2, W / 2)``: for each class the logit that the centre of such
            a character is in the cell; then the logarithms of its width and height in units of
            `DIGIT_PX`.
        """
        fine = self.fine(ink)  # (B, width / 2, H / 2, W / 2)
        coarse = self.up(self.body(self.down(fine)))  # the same shape, from H / 4, W / 4
        maps: Tensor = self.head(self.join(torch.cat([fine, coarse], dim=1)))
        return maps


def _conv(
    num_in: int, num_out: int, size: int, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, size, stride, dilation * (size // 2), dilation, bias=False),
        nn.BatchNorm2d(num_out),
    )

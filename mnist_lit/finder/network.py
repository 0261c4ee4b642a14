"""`Finder`: where digits are in a picture of any size, which, and how large."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lit.errors import UserError

STRIDE = 2  # pixels a cell of the answer
USUAL = 28.0  # pixels of a digit's longest side, as it is found best
NUM_DIGITS = 10
DILATIONS = (1, 2, 4, 2, 1)
RARE = 0.01  # how probable a digit is anywhere, before anything is learned


class Block(nn.Module):
    """Two convolutions that add to what comes in.

    Args:
        num_channels: of what comes in, and of what goes out.
        dilation: pixels from one row or column of the kernel to the next, in the first of them.
    """

    def __init__(self, num_channels: int, dilation: int) -> None:
        super().__init__()
        self.first = _conv(num_channels, num_channels, 3, dilation=dilation)
        self.second = _conv(num_channels, num_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Finder(nn.Module):
    """A fully convolutional network of half a million weights that finds digits.

    Args:
        width: channels of its body.

    Raises:
        UserError: these are too few, or cannot be halved.

    Source: that an object is the peak of its class's map, and its size is told there: Zhou et al.,
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
        self.head = nn.Conv2d(width, NUM_DIGITS + 2, 1)
        nn.init.zeros_(self.head.weight)
        biases = [math.log(RARE / (1 - RARE))] * NUM_DIGITS + [0.0, 0.0]
        self.head.bias = nn.Parameter(torch.tensor(biases))

    def forward(self, ink: Tensor) -> Tensor:
        """Look at pictures.

        Args:
            ink: ``(B, 1, H, W)`` in [0, 1], paper 0; H and W multiples of 4.

        Returns:
            ``(B, 12, H / 2, W / 2)``: of each digit, the logit of its middle being there; and of
            the digit there, the logarithms of its width and height, of which 0 is `USUAL`.
        """
        fine = self.fine(ink)
        coarse = self.up(self.body(self.down(fine)))
        answer: Tensor = self.head(self.join(torch.cat([fine, coarse], dim=1)))
        return answer


def _conv(
    num_in: int, num_out: int, size: int, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, size, stride, dilation * (size // 2), dilation, bias=False),
        nn.BatchNorm2d(num_out),
    )

"""Random warps of whole batches: the same digit as another hand might have written it."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeFloat
from torch import Tensor

COARSE = 4  # control points along each side of an elastic warp


@dataclass(frozen=True)
class Augment:
    """How far a training image may be warped, differently each time; 0 everywhere: not at all.

    Args:
        rotate_deg: largest rotation either way, in degrees.
        shear_deg: largest slant either way, in degrees.
        scale: largest relative change of height and of width, each on its own.
        shift_px: largest shift along each axis, in pixels.
        elastic_px: standard deviation of the shifts, in pixels, that 4x4 control points undergo,
            and everything between them smoothly.
    """

    rotate_deg: NonNegativeFloat = 0.0
    shear_deg: NonNegativeFloat = 0.0
    scale: NonNegativeFloat = 0.0
    shift_px: NonNegativeFloat = 0.0
    elastic_px: NonNegativeFloat = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Warp each image of a batch by random amounts, on the batch's device.

        Args:
            images: ``(B, 1, H, W)`` float, paper 0.

        Returns:
            The same shape; what leaves the frame is lost, paper fills in.
        """
        if self == Augment():
            return images
        size = images.shape[-1]
        grid = F.affine_grid(self._affine(images, size), list(images.shape), align_corners=False)
        if self.elastic_px:
            coarse = torch.randn(len(images), 2, COARSE, COARSE, device=images.device)
            smooth = F.interpolate(coarse, images.shape[-2:], mode="bicubic", align_corners=True)
            grid = grid + smooth.permute(0, 2, 3, 1) * (2 * self.elastic_px / size)
        return F.grid_sample(images, grid, align_corners=False)

    def _affine(self, images: Tensor, size: int) -> Tensor:
        """A random map from each output pixel to the input, ``(B, 2, 3)``."""
        batch = len(images)
        rotate, shear, log_height, log_width, right, down = (
            torch.rand(6, batch, device=images.device) * 2 - 1
        )
        angle = rotate * math.radians(self.rotate_deg)
        slant = (shear * math.radians(self.shear_deg)).tan()
        height = (log_height * math.log1p(self.scale)).exp()
        width = (log_width * math.log1p(self.scale)).exp()
        shift = 2 * self.shift_px / size  # the frame is 2 wide
        cos, sin = angle.cos(), angle.sin()
        rows = [
            torch.stack([cos * width, slant * cos - sin * height, right * shift], dim=1),
            torch.stack([sin * width, slant * sin + cos * height, down * shift], dim=1),
        ]
        return torch.stack(rows, dim=1)

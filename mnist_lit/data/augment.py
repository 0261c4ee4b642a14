"""Random changes of whole batches: the same digit by another hand, pen or scanner."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat
from torch import Tensor

COARSE = 4  # control points along each side of an elastic warp
LOWEST_PX = 8  # side of the coarsest image in which a digit can still be read


@dataclass(frozen=True)
class Augment:
    """Change training images at random; with 0 everywhere, not at all.

    Args:
        rotate_deg: largest rotation either way, in degrees.
        shear_deg: largest slant either way, in degrees.
        scale: largest relative change of height and of width, each on its own.
        shift_px: largest shift along each axis, in pixels.
        elastic_px: standard deviation of the shifts of 4x4 control points, in pixels, between
            which shifts are interpolated.
        stroke_px: how far the edges of strokes may move, outwards or inwards, in pixels; 1 at most.
        low_resolution: share of batches that are reduced to as few as 8x8 pixels and enlarged
            again.
        mirror: share of images that are mirrored; for clothes, not for digits.
    """

    rotate_deg: NonNegativeFloat = 0.0
    shear_deg: NonNegativeFloat = 0.0
    scale: NonNegativeFloat = 0.0
    shift_px: NonNegativeFloat = 0.0
    elastic_px: NonNegativeFloat = 0.0
    stroke_px: ClosedUnitInterval = 0.0
    low_resolution: ClosedUnitInterval = 0.0
    mirror: ClosedUnitInterval = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Change each image of a batch by random amounts, on the batch's device.

        Args:
            images: ``(B, C, H, W)`` float, paper 0.

        Returns:
            The same shape; what leaves the frame is lost, paper fills in.
        """
        if self == Augment():
            return images
        if self.mirror:
            chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < self.mirror
            images = torch.where(chosen, images.flip(-1), images)
        images = self._warp(images)
        if self.stroke_px:
            images = self._with_another_pen(images)
        if self.low_resolution and torch.rand(()) < self.low_resolution:
            images = _at_low_resolution(images)
        return images

    def _warp(self, images: Tensor) -> Tensor:
        size = images.shape[-1]
        grid = F.affine_grid(self._affine(images, size), list(images.shape), align_corners=False)
        if self.elastic_px:
            coarse = torch.randn(len(images), 2, COARSE, COARSE, device=images.device)
            smooth = F.interpolate(coarse, images.shape[-2:], mode="bicubic", align_corners=True)
            grid = grid + smooth.permute(0, 2, 3, 1) * (2 * self.elastic_px / size)
        return F.grid_sample(images, grid, align_corners=False)

    def _affine(self, images: Tensor, size: int) -> Tensor:
        """Sample an affine matrix for each image, from output to input, ``(B, 2, 3)``."""
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

    def _with_another_pen(self, images: Tensor) -> Tensor:
        """Thicken or thin the strokes: part of the way to the largest or smallest neighbour."""
        change = (torch.rand(len(images), 1, 1, 1, device=images.device) * 2 - 1) * self.stroke_px
        thick = F.max_pool2d(images, 3, stride=1, padding=1)
        thin = -F.max_pool2d(-images, 3, stride=1, padding=1)
        return torch.lerp(images, torch.where(change > 0, thick, thin), change.abs())


def _at_low_resolution(images: Tensor) -> Tensor:
    size = list(images.shape[-2:])
    side = int(torch.randint(min(LOWEST_PX, size[0] - 1), size[0], ()))
    coarse = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return F.interpolate(coarse, size, mode="bilinear", align_corners=False)

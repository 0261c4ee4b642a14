"""Negative examples: parts of digits, and two digits in one image.

A network that has seen only digits is as confident of these as of digits. Training it to be unsure
of them makes its confidence mean something on other writing.
"""

import math

import torch
from torch import Tensor

from mnist_lit.data.frame import edges, fitted

SHARE_OF_PARTS = 0.2  # the rest are pairs
LARGEST_SHIFT_PX = 3.0  # of a cut from the middle, of two digits from touching, and up or down
NARROW = 0.45  # width over height; a part that is narrower would be a 1


def make_negatives(images: Tensor) -> Tensor:
    """Turn each digit into a part of it, or into itself and another one in one frame.

    Args:
        images: ``(B, 1, H, W)`` float in [0, 1], ink 1; each a digit.

    Returns:
        The same shape, fitted and centred as digits are, on the same device.
    """
    if not len(images):  # of a rank whose share of the batch has none
        return images
    parts, narrow = _parts(images)
    chosen = (torch.rand(len(images), device=images.device) < SHARE_OF_PARTS) & ~narrow
    return torch.where(chosen[:, None, None, None], parts, _pairs(images, images.roll(1, dims=0)))


def _parts(images: Tensor) -> tuple[Tensor, Tensor]:
    """Cut digits along a line near the middle; return one side, and which are narrow, ``(B,)``."""
    size = images.shape[-1]
    angle = 2 * math.pi * torch.rand(len(images), 1, 1, device=images.device)
    place = torch.arange(size, device=images.device) - (size - 1) / 2
    across = angle.cos() * place + angle.sin() * place[:, None]  # (B, H, W)
    kept = images * (across > _up_to(LARGEST_SHIFT_PX, images)[:, None, None])[:, None]
    left, top, right, bottom = edges(kept)
    width, height = right - left, bottom - top
    longest = torch.maximum(width, height)
    return fitted(kept, (left + right) / 2, (top + bottom) / 2, longest), width < NARROW * height


def _pairs(lefts: Tensor, rights: Tensor) -> Tensor:
    """Put two digits beside each other: apart, touching or overlapping."""
    left, top, right, bottom = edges(lefts)
    other_left, other_top, other_right, other_bottom = edges(rights)
    down = _up_to(LARGEST_SHIFT_PX, lefts)
    offset = right - left + _up_to(LARGEST_SHIFT_PX, lefts)  # from one's left edge to the other's
    width = offset + other_right - other_left
    top, bottom = torch.minimum(top, other_top + down), torch.maximum(bottom, other_bottom + down)
    longest, middle = torch.maximum(width, bottom - top), (top + bottom) / 2
    one = fitted(lefts, left + width / 2, middle, longest)
    other = fitted(rights, other_left - offset + width / 2, middle - down, longest)
    return torch.maximum(one, other)


def _up_to(limit: float, images: Tensor) -> Tensor:
    """Draw a number in [-limit, limit] for each image, ``(B,)``."""
    return (2 * torch.rand(len(images), device=images.device) - 1) * limit

"""Add strokes to 1, 7 and 9 that are common in much of the world and rare in MNIST.

Without these a network takes a 1 with a long upstroke for a 7 or a 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from mnist_lit.data.frame import centred, edges
from mnist_lit.reading.digit_image import EDGE

Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """A straight stroke to add to a digit, as thick as the digit's own.

    All attributes but `share` are ranges; lengths are shares of the digit's height.

    Attributes:
        at: height of its starting point, from 0, the top, to 1, the bottom.
        angle_deg: direction; 0 is to the right, 90 is down.
        ahead: length in this direction.
        back: length in the opposite direction.
        share: of the changed digits that get it.
    """

    at: Range
    angle_deg: Range
    ahead: Range
    back: Range = (0.0, 0.0)
    share: float = 1.0


STROKES = {
    1: (
        Stroke(at=(0.0, 0.0), angle_deg=(115, 160), ahead=(0.2, 0.75)),  # an upstroke
        Stroke((1.0, 1.0), (-12, 12), ahead=(0.1, 0.4), back=(0.1, 0.4), share=0.35),  # a foot
    ),
    7: (Stroke((0.4, 0.65), (-25, 10), ahead=(0.12, 0.35), back=(0.12, 0.35)),),  # a bar
    9: (Stroke((1.0, 1.0), (165, 215), ahead=(0.15, 0.5)),),  # a hook
}
# Usual length of all strokes of a digit, in heights, from which the pen's width follows.
LENGTHS = {1: 1.0, 3: 2.4, 7: 1.7, 9: 2.5}


def with_styles(
    images: Tensor,
    labels: Tensor,
    share: float,
    styles: Mapping[int, tuple[Stroke, ...]] = STROKES,
) -> Tensor:
    """Add strokes to a share of the digits that others write with them.

    Args:
        images: ``(B, 1, H, W)`` float in [0, 1], ink 1; each a digit.
        labels: ``(B,)``.
        share: of the digits that are changed, on average.
        styles: strokes by digit.

    Returns:
        The same shape, centred as digits are, on the same device.
    """
    changed = images.clone()
    for digit, strokes in styles.items():
        chosen = (labels == digit) & (torch.rand(len(labels), device=images.device) < share)
        if chosen.any():
            changed[chosen] = centred(_with_strokes(images[chosen], strokes, LENGTHS[digit]))
    return changed


def _with_strokes(images: Tensor, strokes: tuple[Stroke, ...], length: float) -> Tensor:
    _, top, _, bottom = edges(images)
    height = bottom - top
    pen = images.sum(dim=(1, 2, 3)) / (length * height)
    drawn = images
    for stroke in strokes:
        y = top + 0.5 + _any_of(stroke.at, height) * (height - 1)
        x, has_ink = _middle_of_ink(images, y)
        angle = _any_of(stroke.angle_deg, height).deg2rad()
        across, down = angle.cos() * height, angle.sin() * height
        ahead, back = _any_of(stroke.ahead, height), _any_of(stroke.back, height)
        ends = (x - back * across, y - back * down, x + ahead * across, y + ahead * down)
        ink = _line(*ends, pen / 2, images.shape[-1])
        has = has_ink & (torch.rand_like(height) < stroke.share)
        drawn = torch.where(has[:, None, None, None], torch.maximum(drawn, ink), drawn)
    return drawn


def _any_of(limits: Range, like: Tensor) -> Tensor:
    low, high = limits
    return low + (high - low) * torch.rand_like(like)


def _middle_of_ink(images: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the middle of the ink in rows of images, and whether they have any; both ``(B,)``."""
    row = images[torch.arange(len(images), device=images.device), 0, y.long()]
    place = torch.arange(row.shape[1], device=row.device, dtype=row.dtype) + 0.5
    total = row.sum(dim=1)
    return row @ place / total.clamp(min=EDGE), total >= EDGE


def _line(x1: Tensor, y1: Tensor, x2: Tensor, y2: Tensor, radius: Tensor, size: int) -> Tensor:
    """Draw lines with round ends, ``(B, 1, size, size)`` in [0, 1]; all arguments ``(B,)``."""
    place = torch.arange(size, device=x1.device) + 0.5
    x1, y1, x2, y2, radius = (value[:, None, None] for value in (x1, y1, x2, y2, radius))
    x, y, across, down = place - x1, place[:, None] - y1, x2 - x1, y2 - y1
    along = ((x * across + y * down) / (across**2 + down**2)).clamp(0, 1)
    distance = torch.hypot(x - along * across, y - along * down)
    return (radius + 0.5 - distance).clamp(0, 1)[:, None]

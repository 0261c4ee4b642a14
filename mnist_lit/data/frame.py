"""Locate the ink of digits in their images, and move and scale it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_lit.reading.digit_image import DIGIT_BOX_PX, EDGE


def edges(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return left, top, right and bottom of the ink, each ``(B,)``; a point if there is none."""
    ink = images[:, 0] > EDGE
    (left, right), (top, bottom) = (_ends(ink.any(dim=dim)) for dim in (1, 2))
    return left, top, right, bottom


def _ends(ink: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first position of ink and one past the last in rows ``(B, N)``, each ``(B,)``."""
    size = ink.shape[1]
    place = torch.arange(size, device=ink.device)
    first = torch.where(ink, place, size - 1).amin(dim=1)
    end = torch.where(ink, place + 1, 0).amax(dim=1)
    return first.float(), torch.maximum(end, first + 1).float()


def fitted(images: Tensor, right: Tensor, down: Tensor, longest: Tensor) -> Tensor:
    """Centre images on (right, down), scale `longest` to `DIGIT_BOX_PX`; ``(B,)``, in pixels."""
    size = images.shape[-1]
    zero, scale = torch.zeros_like(longest), longest / DIGIT_BOX_PX
    rows = [
        torch.stack([scale, zero, right * 2 / size - 1], dim=1),
        torch.stack([zero, scale, down * 2 / size - 1], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def centred(images: Tensor) -> Tensor:
    """Shift images by whole pixels so that the centre of mass is where MNIST has it."""
    place = torch.arange(images.shape[-1], device=images.device, dtype=images.dtype)
    total = images.sum(dim=(1, 2, 3))
    right = (images.sum(dim=(1, 2)) @ place / total).round()
    down = (images.sum(dim=(1, 3)) @ place / total).round()
    # The pixel at that place goes half a pixel beyond the middle, which is between two pixels.
    return fitted(images, right, down, torch.full_like(right, DIGIT_BOX_PX))

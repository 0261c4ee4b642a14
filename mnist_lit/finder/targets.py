"""What the network is to answer to a page, and how far its answer is from that."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_lit.finder.network import NUM_DIGITS, STRIDE, USUAL
from mnist_lit.finder.page import HEIGHT, WIDTH, Page
from mnist_lit.pictures.arrays import Array

NUM_MAPS = NUM_DIGITS + 3
SPREAD = 1 / 11  # of a peak's width, as a share of the digit's
NARROWEST = 0.7  # cells, of a peak
SIZE_WEIGHT = 0.5  # of an error of sizes, to one of maps


def target(page: Page) -> Array:
    """What is to be answered.

    Returns:
        ``(13, HEIGHT / 2, WIDTH / 2)`` float32: of each digit, 1 where its middle is, falling to 0
        around it; where the middle of one is, the logarithms of its width and height, of which 0 is
        `USUAL`; last, 0 where nothing is asked.
    """
    maps = np.zeros((NUM_MAPS, HEIGHT // STRIDE, WIDTH // STRIDE), np.float32)
    rows, columns = (np.arange(size, dtype=np.float32) for size in maps.shape[1:])
    maps[-1] = 1
    for left, top, right, bottom in page.unclear:
        part = [round(edge / STRIDE) for edge in (left, top, right, bottom)]
        maps[-1, part[1] : part[3] + 1, part[0] : part[2] + 1] = 0
    for label, left, top, right, bottom in page.digits:
        width, height = max(right - left, 2), max(bottom - top, 2)
        x, y = (left + right) / 2 / STRIDE - 0.5, (top + bottom) / 2 / STRIDE - 0.5
        column = min(max(round(x), 0), len(columns) - 1)
        row = min(max(round(y), 0), len(rows) - 1)
        wide, high = (max(NARROWEST, SPREAD * side / STRIDE) for side in (width, height))
        peak = np.exp(-((rows - row) ** 2) / (2 * high**2))[:, None]
        peak = peak * np.exp(-((columns - column) ** 2) / (2 * wide**2))
        np.maximum(maps[label], peak, out=maps[label])
        maps[NUM_DIGITS : NUM_DIGITS + 2, row, column] = np.log([width / USUAL, height / USUAL])
        maps[-1, row, column] = 1
    return maps


def batch_of(pages: Sequence[Page]) -> tuple[Tensor, Tensor]:
    """Pages, ``(B, 1, HEIGHT, WIDTH)``, and the targets, ``(B, 13, HEIGHT / 2, WIDTH / 2)``."""
    ink = np.stack([page.ink for page in pages])[:, None]
    return torch.from_numpy(ink), torch.from_numpy(np.stack([target(page) for page in pages]))


def loss(answer: Tensor, target: Tensor) -> Tensor:
    """How far answers are from targets, for each digit that is there.

    Args:
        answer: ``(B, 12, H, W)``, as of `Finder`.
        target: ``(B, 13, H, W)``, as of `target`.

    Returns:
        A scalar.

    Source: the focal loss of Law and Deng, "CornerNet" (2018), and L1 for sizes, as in Zhou et al.,
    "Objects as points" (2019).
    """
    logits, peaks = answer[:, :NUM_DIGITS].float(), target[:, :NUM_DIGITS]
    is_peak = (peaks == 1).float()
    probs = logits.sigmoid()
    found = is_peak * (1 - probs) ** 2 * F.logsigmoid(logits)
    left_out = (1 - peaks) ** 4 * probs**2 * F.logsigmoid(-logits)
    focal = -((found + left_out) * target[:, -1:]).sum()
    is_there = is_peak.amax(dim=1, keepdim=True)
    sizes = (answer[:, NUM_DIGITS:].float() - target[:, NUM_DIGITS:-1]).abs() * is_there
    return (focal + SIZE_WEIGHT * sizes.sum()) / is_peak.sum().clamp(min=1)

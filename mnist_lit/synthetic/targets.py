"""The detector's target for a sheet, and the loss."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_lit.models.characters import NUM_CLASSES, NUM_DIGITS
from mnist_lit.models.detector import DIGIT_PX, STRIDE
from mnist_lit.reading.arrays import Array
from mnist_lit.synthetic.sheet import HEIGHT, WIDTH, Sheet

NUM_MAPS = NUM_CLASSES + 3
SPREAD = 1 / 11  # standard deviation of a peak, as a share of the character's side
MIN_SPREAD = 0.7  # cells
REACH = 3.0  # standard deviations beyond which a peak is 0
SIZE_WEIGHT = 0.5  # of the error of sizes
OTHER_WEIGHT = 0.5  # of letters and signs, beside digits


def draw_target(sheet: Sheet, maps: Array) -> None:
    """Draw the target: heatmaps of the centres, maps of the sizes, and a mask of the loss.

    Args:
        sheet: gives the characters and their boxes.
        maps: ``(NUM_CLASSES + 3, HEIGHT / 2, WIDTH / 2)`` float32, all 0. Filled with, for each
            class, a peak of 1 in the middle of each character; in that cell, the logarithms of its
            width and height in units of `DIGIT_PX`; last, 0 where the loss is not computed.
    """
    num_rows, num_columns = maps.shape[1:]
    maps[-1] = 1
    for left, top, right, bottom in sheet.ignored:
        x0, y0, x1, y1 = (max(0, round(edge / STRIDE)) for edge in (left, top, right, bottom))
        maps[-1, y0 : y1 + 1, x0 : x1 + 1] = 0
    for label, (left, top, right, bottom) in sheet.characters:
        width, height = max(right - left, 2), max(bottom - top, 2)
        x, y = (left + right) / 2 / STRIDE - 0.5, (top + bottom) / 2 / STRIDE - 0.5
        column = min(max(round(x), 0), num_columns - 1)
        row = min(max(round(y), 0), num_rows - 1)
        sd_x, sd_y = (max(MIN_SPREAD, SPREAD * side / STRIDE) for side in (width, height))
        reach_x, reach_y = (int(REACH * sd) + 1 for sd in (sd_x, sd_y))
        rows = np.arange(max(0, row - reach_y), min(num_rows, row + reach_y + 1))
        columns = np.arange(max(0, column - reach_x), min(num_columns, column + reach_x + 1))
        peak = np.exp(-((rows - row) ** 2) / (2 * sd_y**2))[:, None]
        peak = peak * np.exp(-((columns - column) ** 2) / (2 * sd_x**2))
        part = maps[label, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        np.maximum(part, peak, out=part)
        maps[NUM_CLASSES : NUM_CLASSES + 2, row, column] = np.log(
            [width / DIGIT_PX, height / DIGIT_PX]
        )
        maps[-1, row, column] = 1


def batch_of(sheets: Sequence[Sheet]) -> tuple[Tensor, Tensor]:
    """Stack sheets, ``(B, 1, HEIGHT, WIDTH)``, and their targets, see `draw_target`."""
    ink = np.stack([sheet.ink for sheet in sheets])[:, None]
    maps = np.zeros((len(sheets), NUM_MAPS, HEIGHT // STRIDE, WIDTH // STRIDE), np.float32)
    for sheet, part in zip(sheets, maps, strict=True):
        draw_target(sheet, part)
    return torch.from_numpy(ink), torch.from_numpy(maps)


def loss(output: Tensor, target: Tensor) -> Tensor:
    """Compute the error for each digit, and less weighted, for each other character.

    Args:
        output: ``(B, NUM_CLASSES + 2, H, W)``, see `DetectorNetwork`.
        target: ``(B, NUM_CLASSES + 3, H, W)``, see `draw_target`.

    Returns:
        A scalar.

    Source: the focal loss of Law and Deng, "CornerNet" (2018), and L1 for sizes, as in Zhou et al.,
    "Objects as points" (2019).
    """
    logits, peaks = output[:, :NUM_CLASSES].float(), target[:, :NUM_CLASSES]
    is_peak = peaks == 1
    # log(1 - p) = log(p) - logit, which saves a pass over the maps.
    log_probs = F.logsigmoid(logits)
    probs = log_probs.exp()
    missed = -((1 - peaks) ** 4) * probs**2 * (log_probs - logits)
    focal = torch.where(is_peak, -((1 - probs) ** 2) * log_probs, missed) * target[:, -1:]
    num_peaks = is_peak.sum(dim=(0, 2, 3))
    num_digits = num_peaks[:NUM_DIGITS].sum().clamp(min=1)
    num_others = num_peaks[NUM_DIGITS:].sum().clamp(min=1)
    sums = focal.sum(dim=(0, 2, 3))
    is_there = is_peak.any(dim=1, keepdim=True)
    sizes = (output[:, NUM_CLASSES:].float() - target[:, NUM_CLASSES:-1]).abs() * is_there
    digit_loss = sums[:NUM_DIGITS].sum() / num_digits
    other_loss = sums[NUM_DIGITS:].sum() / num_others
    size_loss: Tensor = sizes.sum() / is_there.sum().clamp(min=1)
    return digit_loss + OTHER_WEIGHT * other_loss + SIZE_WEIGHT * size_loss

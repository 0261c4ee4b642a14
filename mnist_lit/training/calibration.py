"""Calibrate the confidence of a network by temperature scaling, and measure the error.

Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (2017).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

NUM_BINS = 15  # of confidence, for the error and its diagram
TEMPERATURES = torch.logspace(-1, 1, 401, base=5)
"""Candidates from 1/5 to 5, each 0.8 % above the one before; an overfitted network has no best."""


def fit_temperature(log_probs: Tensor, labels: Tensor) -> float:
    """Find the temperature in `TEMPERATURES` with the highest likelihood of the labels.

    Args:
        log_probs: ``(N, K)``, or logits, of images that were not trained on.
        labels: ``(N,)``.
    """
    losses = [F.cross_entropy(log_probs / temperature, labels) for temperature in TEMPERATURES]
    return TEMPERATURES[torch.stack(losses).argmin()].item()


def calibration_error(probs: Tensor, labels: Tensor) -> float:
    """Compute the expected calibration error in `NUM_BINS` bins: mean |confidence - accuracy|.

    Args:
        probs: ``(N, K)`` in [0, 1].
        labels: ``(N,)``.
    """
    return multiclass_calibration_error(probs, labels, probs.shape[1], n_bins=NUM_BINS).item()

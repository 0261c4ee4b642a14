"""Measures and selections that figures and reports are made of: tensors in, tensors out."""

from math import comb

import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from mnist_lit.training.calibration import NUM_BINS


def balanced_sample(labels: Tensor, max_images: int) -> Tensor:
    """Choose images of all classes: the first of each class, then the second of each, and so on.

    Args:
        labels: ``(N,)`` the true classes, in any order.
        max_images: the number of images to choose, at most.

    Returns:
        Their indices, ascending, ``(M,)``.
    """
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    by_class = labels.argsort(stable=True)
    rank = torch.empty_like(labels)  # of an image among those of its class
    rank[by_class] = torch.arange(len(labels)) - first.repeat_interleave(counts)
    return rank.argsort(stable=True)[:max_images].sort().values


def surest_mistakes(labels: Tensor, probs: Tensor) -> Tensor:
    """Return the indices of all misclassified images, the most confident first.

    Args:
        labels: ``(N,)`` the true classes.
        probs: ``(N, K)``.

    Returns:
        Their indices, ``(M,)``, highest confidence first.
    """
    confidence, predicted = probs.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True, stable=True)]


def reliability(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Group predictions by confidence in bins of equal width, as the calibration error does.

    Args:
        probs: ``(N, K)``.
        labels: ``(N,)``.

    Returns:
        Mean confidence, accuracy and number of predictions of each bin that is not empty.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    confidence, predicted = probs.double().max(1)
    bins = (confidence * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
    counts, confidences, rights = (
        torch.bincount(bins, weights, NUM_BINS)
        for weights in (None, confidence, (predicted == labels).double())
    )
    filled = counts > 0
    counts = counts[filled]
    return confidences[filled] / counts, rights[filled] / counts, counts


def attributions(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor | None:
    """Measure by how much each pixel raises (above 0) or lowers the logit of a class.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (2017); captum's
    `IntegratedGradients`, from an empty image to the given one.

    Args:
        network: images to logits.
        images: ``(B, C, H, W)`` float in [0, 1].
        classes: one for each image, ``(B,)``.

    Returns:
        ``(B, H, W)``: the sum over an image is by how much its ink raises that class's logit. None
        if the network has no gradient with respect to its input, for example after a threshold.
    """

    def logits(batch: Tensor) -> Tensor:
        output: Tensor = network(batch.clone())  # the network may change its input in place
        return output

    if not logits(images.clone().requires_grad_()).requires_grad:
        return None
    found: Tensor = IntegratedGradients(logits).attribute(images, target=classes, n_steps=64)
    return found.detach().sum(1)


def last_hidden(network: nn.Module, images: Tensor) -> Tensor | None:
    """Return the input, ``(B, D)``, of the linear layer that runs last; None without one."""
    inputs: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.setdefault(layer, args[0])

    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in linear]
    try:
        with torch.no_grad():
            network(images.clone())  # the network may change its input in place
    finally:
        for hook in hooks:
            hook.remove()
    features = list(inputs.values())
    return features[-1] if features and features[-1].ndim == 2 else None


def principal_components(features: Tensor) -> tuple[Tensor, Tensor]:
    """Project features onto their first two principal components.

    Args:
        features: ``(N, D)``.

    Returns:
        The coordinates, ``(N, 2)``, and each component's share of the variance, ``(2,)``.
    """
    centred = features.double() - features.double().mean(0)
    left, singular_values, _ = torch.linalg.svd(centred, full_matrices=False)
    variance = singular_values.square()
    return (left * singular_values)[:, :2], variance[:2] / variance.sum()


def mcnemar(only_one: int, only_other: int) -> float:
    """Return the p-value of McNemar's exact test, two-sided.

    Args:
        only_one: the number of images that only the one classifier gets right.
        only_other: the number that only the other gets right.
    """
    total = only_one + only_other
    tail: int = sum(comb(total, heads) for heads in range(min(only_one, only_other) + 1))
    return min(1.0, float(2 * tail / 2**total))

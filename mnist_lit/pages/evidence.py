"""What a page about a run is made from, and what is measured on it."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from mnist_lit.data.images import ImageSet
from mnist_lit.errors import printable
from mnist_lit.reading.classifier import Classifier

NOTHING = "-"

History = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Evidence:
    """A trained network, how it came about, and what it says of images that are new to it.

    Attributes:
        name: of the run.
        place: its folder, as a person would type it.
        options: those of the recipe, by their whole names.
        provenance: what made it, line by line: versions, machine, commit.
        results: as in ``results.json``.
        history: metric -> (step, value) pairs in the order of the steps.
        classifier: the network.
        asked: N images with their labels: test images, or validation images of an untested run.
        probs: ``(N, K)``, what the network says of them.
    """

    name: str
    place: str
    options: Mapping[str, Any]
    provenance: Sequence[str]
    results: Mapping[str, Any]
    history: History
    classifier: Classifier
    asked: ImageSet
    probs: Tensor

    @property
    def classes(self) -> Sequence[str]:
        return tuple(map(printable, self.classifier.classes))

    @property
    def labels(self) -> Tensor:
        """The true classes, ``(N,)``."""
        return self.asked.chosen_labels

    @property
    def answers(self) -> Tensor:
        """The network's, ``(N,)``."""
        return self.probs.argmax(1)

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return float((self.answers == self.labels).double().mean())

    def images(self, numbers: Tensor) -> Tensor:
        """Images that it was asked about, by their numbers, ``(B, C, H, W)`` uint8."""
        return self.asked[numbers][0]


def differing(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Find the options that are not the same in all runs.

    Constructor arguments are left out where each run that has them uses the default of its class:
    choosing another optimizer is one difference, not ten.

    Args:
        runs: the options of each, by their full names.

    Returns:
        Option -> its value in each run as text, sorted by option.
    """
    names = sorted({name for options in runs for name in options})
    values = {name: [as_text(options.get(name)) for options in runs] for name in names}
    return {
        name: texts
        for name, texts in values.items()
        if len(set(texts)) > 1 and not all(_is_class_default(options, name) for options in runs)
    }


def _is_class_default(options: Mapping[str, Any], name: str) -> bool:
    """Return True for a constructor argument that is unset, or has the default of its class.

    Only classes that are imported already are looked up: an option must not cause an import.
    """
    if name not in options:
        return True
    owner, is_argument, argument = name.partition(".init_args.")
    module, _, class_name = str(options.get(f"{owner}.class_path")).rpartition(".")
    found = getattr(sys.modules.get(module), class_name, None)
    if not (is_argument and isinstance(found, type)):
        return False
    parameter = inspect.signature(found).parameters.get(argument)
    if parameter is None:
        return False
    value, default = options[name], parameter.default
    return bool(value == default) or as_text(value) == as_text(default)


def as_text(value: Any) -> str:
    """An option's value as a person would write it: classes by their names, with what they get."""
    if value is None:
        return NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value)) or NOTHING
    if isinstance(value, Mapping) and "class_path" in value:
        given = (value.get("init_args") or {}).items()
        arguments = ", ".join(f"{name}={as_text(it)}" for name, it in given if it is not None)
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    return str(value)


def scores_per_class(answers: Tensor, labels: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Precision, recall and F1 of each class; recall is its accuracy, too.

    Args:
        answers: ``(N,)``.
        labels: ``(N,)``.
        num_classes: K.

    Returns:
        ``(K,)`` in [0, 1], by their names; precision of what was never answered is 0.
    """
    scores = {
        "precision": multiclass_precision,
        "recall": multiclass_recall,
        "F1": multiclass_f1_score,
    }
    return {
        name: score(answers, labels, num_classes=num_classes, average="none")
        for name, score in scores.items()
    }


@dataclass(frozen=True)
class Reliability:
    """How often answers are right, by how sure they are.

    Attributes:
        confidence: mean probability of the answers in each bin, ``(B,)``.
        accuracy: the share of them that is right, ``(B,)``.
        counts: how many there are, ``(B,)``; bins without any are left out.
    """

    confidence: Tensor
    accuracy: Tensor
    counts: Tensor


def reliability(probs: Tensor, labels: Tensor, num_bins: int = 15) -> Reliability:
    """Answers in bins of equal width, as the calibration error takes them.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    confidence, answers = probs.double().max(1)
    bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    counts = torch.bincount(bins, minlength=num_bins)
    sums = [
        torch.bincount(bins, weights, num_bins)
        for weights in (confidence, (answers == labels).double())
    ]
    filled = counts > 0
    mean_confidence, accuracy = (total[filled] / counts[filled] for total in sums)
    return Reliability(mean_confidence, accuracy, counts[filled])


def examples(evidence: Evidence, most: int = 10) -> list[int]:
    """The first test image of each class that is told right, of `most` classes at most."""
    right = evidence.answers == evidence.labels
    found = [
        ((evidence.labels == label) & right).nonzero().flatten()[:1].tolist()
        for label in range(len(evidence.classes))
    ]
    return [number for numbers in found for number in numbers][:most]


def attributions(network: nn.Module, images: Tensor, answers: Tensor) -> Tensor | None:
    """Measure how much each pixel raises (above 0) or lowers the logit of an answer.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (2017); captum's
    `IntegratedGradients`, from paper alone to the image.

    Args:
        network: images to logits.
        images: ``(B, C, H, W)`` float in [0, 1].
        answers: ``(B,)``.

    Returns:
        ``(B, H, W)``: the sum over an image is by how much its ink raises the answer's logit. None
        if the network has no gradient there, as one that sees ink or none.
    """

    def logits(batch: Tensor) -> Tensor:
        answered: Tensor = network(batch.clone())  # which it may change in place
        return answered

    if not logits(images.clone().requires_grad_()).requires_grad:
        return None
    found: Tensor = IntegratedGradients(logits).attribute(images, target=answers, n_steps=64)
    return found.detach().sum(1)


def last_hidden(network: nn.Module, images: Tensor) -> Tensor | None:
    """What the last linear layer is given for images, ``(B, D)``; None if there is none."""
    given: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        given.setdefault(layer, args[0])

    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in linear]
    try:
        with torch.no_grad():
            network(images.clone())  # which it may change in place
    finally:
        for hook in hooks:
            hook.remove()
    values = list(given.values())
    return values[-1] if values and values[-1].ndim == 2 else None


def principal_components(features: Tensor) -> tuple[Tensor, Tensor]:
    """The two directions in which features differ most.

    Args:
        features: ``(N, D)``.

    Returns:
        Where each of them lies along these, ``(N, 2)``, and the share of all variance that each
        direction has, ``(2,)``.
    """
    centred = features.double() - features.double().mean(0)
    left, spread, _ = torch.linalg.svd(centred, full_matrices=False)
    variance = spread.square()
    return (left * spread)[:, :2], variance[:2] / variance.sum()

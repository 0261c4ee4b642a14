"""`RunData`: everything that a report says about a run comes from here."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mnist_lit.data.images import ImageSet
from mnist_lit.errors import printable
from mnist_lit.reading.classifier import Classifier
from mnist_lit.training.config_files import CHANGED

NOTHING = "-"
NUM_TOP = 3  # most probable classes of an image that are shown

Points = Sequence[tuple[int, float]]
"""(step, value) pairs in the order of the steps."""


class Prediction(NamedTuple):
    """An image with the network's prediction.

    Attributes:
        image: pixels, ``(H, W)`` or ``(H, W, 3)``, black ink on white paper.
        label: the true class.
        top: the most probable classes with their probabilities, in descending order; the true class
            comes last if it is not among them.
    """

    image: NDArray[np.uint8]
    label: str
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class RunData:
    """A trained network, its training, and its predictions on images that it was not trained on.

    Attributes:
        name: of the run.
        place: its folder, as a person would type it.
        options: of the config, by their full names.
        provenance: lines on versions, machine and commit.
        results: as in ``results.json``.
        history: metric -> (step, value) pairs.
        classifier: the best checkpoint.
        dataset: N images with their labels: test images, or validation images of an untested run.
        probs: ``(N, K)`` the predictions.
    """

    name: str
    place: str
    options: Mapping[str, Any]
    provenance: Sequence[str]
    results: Mapping[str, Any]
    history: Mapping[str, Points]
    classifier: Classifier
    dataset: ImageSet
    probs: Tensor

    @property
    def classes(self) -> Sequence[str]:
        return tuple(map(printable, self.classifier.classes))

    @property
    def labels(self) -> Tensor:
        """The true classes, ``(N,)``."""
        return self.dataset.chosen_labels

    @property
    def predicted(self) -> Tensor:
        """The most probable classes, ``(N,)``."""
        return self.probs.argmax(1)

    @property
    def changes(self) -> list[str]:
        """The options that were changed when the run was resumed, a line for each."""
        return [line for line in self.provenance if line.startswith(CHANGED)]

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.labels).double().mean())

    def images(self, indices: Tensor) -> Tensor:
        """Return images, ``(B, C, H, W)`` uint8."""
        return self.dataset[indices][0]

    def predictions_at(self, indices: Tensor) -> list[Prediction]:
        """Return images with their `NUM_TOP` most probable classes."""
        images = self.images(indices)
        pixels = (255 - images if images.shape[1] == 1 else images).permute(0, 2, 3, 1).squeeze(3)
        found = []
        for image, label, probs in zip(
            pixels.numpy(), self.labels[indices].tolist(), self.probs[indices], strict=True
        ):
            top = probs.argsort(descending=True, stable=True)[:NUM_TOP].tolist()
            top += [label] * (label not in top)
            ranked = [(self.classes[index], float(probs[index])) for index in top]
            found.append(Prediction(image, self.classes[label], ranked))
        return found


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
    owner, _, argument = name.partition(".init_args.")
    module, _, class_name = str(options.get(f"{owner}.class_path")).rpartition(".")
    found = getattr(sys.modules.get(module), class_name, None)
    parameters = inspect.signature(found).parameters if isinstance(found, type) else {}
    if argument not in parameters:
        return False
    value, default = options[name], parameters[argument].default
    return bool(value == default) or as_text(value) == as_text(default)


def as_text(value: Any) -> str:
    """Format an option's value as a person would write it: classes by name, with arguments."""
    if value is None:
        return NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value)) or NOTHING
    if isinstance(value, Mapping) and "class_path" in value:
        given = (value.get("init_args") or {}).items()
        arguments = ", ".join(f"{name}={as_text(it)}" for name, it in given if it is not None)
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    return str(value)

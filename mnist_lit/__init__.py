"""Handwritten digits with PyTorch Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_lit.data.module import MNISTDataModule as MNISTDataModule
    from mnist_lit.reading.classifier import Classifier as Classifier
    from mnist_lit.training.classification import LitClassifier as LitClassifier

__version__ = "0.1.0"
__all__ = ["Classifier", "LitClassifier", "MNISTDataModule", "__version__"]

LAZY = {
    "Classifier": "mnist_lit.reading.classifier",
    "LitClassifier": "mnist_lit.training.classification",
    "MNISTDataModule": "mnist_lit.data.module",
}


def __getattr__(name: str) -> Any:
    if name in LAZY:  # not before it is asked for: each loads torch, some Lightning too
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

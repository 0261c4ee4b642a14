"""Data sets that somebody's own function gives."""

import inspect
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mnist_lit.data.images import Loaded
from mnist_lit.errors import UserError, one_line


def load_function(import_path: str) -> Loaded:
    """Load a data set from a function ``load(train: bool) -> (images, labels)``.

    Images are ``(N, H, W)``, ``(N, C, H, W)`` or ``(N, H, W, 3)``, uint8 or float in [0, 1], of
    NumPy or torch; labels are ``(N,)``, from 0 on. What the labels mean may stand in an attribute
    ``classes`` of the function.

    Raises:
        UserError: there is no such function, or it gives something else.
    """
    module, _, name = import_path.rpartition(".")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"data.dataset {import_path}: {one_line(error)}") from error
    if not callable(function) or "train" not in _parameters(function):
        raise UserError(f"data.dataset {import_path} is no function load(train: bool)")
    try:
        train, test = (_as_tensors(function(train=train)) for train in (True, False))
    except Exception as error:  # of somebody else's function
        raise UserError(f"data.dataset {import_path}: {one_line(error)}") from error
    if train[0].shape[1:] != test[0].shape[1:]:
        raise UserError(f"data.dataset {import_path}: training and test images differ in shape")
    num_classes = 1 + max(int(labels.max()) for _, labels in (train, test))
    classes = tuple(map(str, getattr(function, "classes", range(num_classes))))
    if len(classes) < num_classes:
        raise UserError(f"data.dataset {import_path}: {num_classes} classes, {len(classes)} names")
    return Loaded(train, test, classes)


def _parameters(function: Any) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of some that are written in C
        return set()


def _as_tensors(given: Any) -> tuple[Tensor, Tensor]:
    """Images ``(N, C, H, W)`` uint8 and labels ``(N,)`` int64.

    Raises:
        ValueError: they are none.
    """
    if not (isinstance(given, tuple) and len(given) == 2):
        raise ValueError(f"it gives a {type(given).__name__}, not (images, labels)")
    images, labels = (
        part if isinstance(part, Tensor) else torch.as_tensor(np.asarray(part)) for part in given
    )
    labels = labels.long()
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise ValueError(f"images of the shape {tuple(images.shape)}, not (N, C, H, W) with H = W")
    if labels.shape != images.shape[:1] or not len(labels) or int(labels.min()) < 0:
        raise ValueError(f"{len(images)} images, but labels of the shape {tuple(labels.shape)}")
    if images.dtype != torch.uint8:
        if not 0 <= float(images.min()) <= float(images.max()) <= 1:
            raise ValueError("images are neither uint8 nor in [0, 1]")
        images = (images.float() * 255).round().byte()
    return images.contiguous(), labels

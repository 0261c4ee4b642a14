"""Load data sets from functions of the user's own."""

import pkgutil
from collections.abc import Mapping
from typing import Any

from mnist_lit.data.images import RawDataset, as_tensors, check_shapes
from mnist_lit.errors import UserError, one_line


def load_function(import_path: str, args: Mapping[str, Any]) -> RawDataset:
    """Load a data set from a function ``load(train: bool, **args) -> (images, labels)``.

    Images are ``(N, H, W)``, ``(N, C, H, W)`` or ``(N, H, W, 3)``, uint8 or float in [0, 1], of
    NumPy or torch; labels are ``(N,)``, from 0 on. What the labels mean may stand in an attribute
    ``classes`` of the function.

    Raises:
        UserError: there is no such function, or it gives something else.
    """
    try:
        function = pkgutil.resolve_name(import_path)
        train, test = (as_tensors(function(train=train, **args)) for train in (True, False))
        check_shapes([train[0], test[0]])
    except Exception as error:  # of somebody else's function
        raise UserError(
            f"data.dataset {import_path}, as a function load(train: bool): {one_line(error)}"
        ) from error
    num_classes = 1 + max(int(labels.max()) for _, labels in (train, test))
    classes = tuple(map(str, getattr(function, "classes", range(num_classes))))
    if len(classes) < num_classes:
        raise UserError(f"data.dataset {import_path}: {num_classes} classes, {len(classes)} names")
    return RawDataset(train, test, classes)

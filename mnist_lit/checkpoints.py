"""Writing checkpoints, and reading them without ever running code from them."""

import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor

from mnist_lit import __version__
from mnist_lit.errors import UserError
from mnist_lit.files import atomic_write

# Weights for evaluation, and, if those are averages, the ones that are trained.
WEIGHTS = ("state_dict", "current_model_state")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `fit` wrote, onto the CPU.

    Raises:
        UserError: the file is damaged, is not a checkpoint of this project, or of a newer one; or
            its training diverged.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about unexpected parts of a damaged file
            _check_sums(path)
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            made_by = Version(checkpoint["mnist_lit"]["version"])
            is_newer = made_by > Version(__version__)
            is_finite = is_newer or _is_finite(checkpoint)
    except OSError as error:
        inside = path / "checkpoints" / "best.ckpt"
        hint = f"; did you mean {inside}?" if inside.is_file() else ""
        raise UserError(f"{path} cannot be read: {error.strerror}{hint}") from error
    except Exception as error:  # damaged files raise many kinds of exceptions
        raise UserError(
            f"{path} is not a checkpoint made by `mnist-lit fit`, or it is damaged"
        ) from error
    if is_newer:
        raise UserError(
            f"{path} was made by mnist-lit {made_by}, and this is {__version__}: upgrade it"
        )
    if not is_finite:
        raise UserError(
            f"{path} has NaN or infinite weights: its training diverged; train again"
            " with a smaller --model.lr"
        )
    return dict(checkpoint)


def check_storable(state: Mapping[str, Any]) -> None:
    """Refuse, before a training, weights that `load_checkpoint` would refuse after it.

    Args:
        state: a module's ``state_dict``.

    Raises:
        UserError: an entry is not a tensor, is complex, or not finite.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"{name} is a {type(value).__name__}, and a checkpoint holds tensors alone: have"
                " get_extra_state return a tensor, or leave it out"
            )
        if value.is_complex():
            raise UserError(
                f"{name} is complex, and checkpoints hold real weights: keep the two parts in real"
                " tensors (torch.view_as_real)"
            )
        if not value.float().isfinite().all():
            raise UserError(
                f"{name} has values that are not finite, and checkpoints with such are refused:"
                " register a constant buffer with persistent=False"
            )


def network_state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint's network alone, by their names in it."""
    prefix = "network."
    weights = checkpoint["state_dict"].items()
    return {
        name.removeprefix(prefix): weight for name, weight in weights if name.startswith(prefix)
    }


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OSError: the disk is full, for instance.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:  # torch's own, while it tidies up after a write that failed
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _check_sums(path: Path) -> None:
    """Compare each part of a file with its sum, which torch does not.

    Raises:
        ValueError: a part is not what was written.
    """
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError(f"{path} is damaged")


def _is_finite(checkpoint: dict[str, Any]) -> bool:
    temperature = checkpoint.get("temperature", 1.0)
    weights = [weight for part in WEIGHTS for weight in checkpoint.get(part, {}).values()]
    return 0 < temperature < math.inf and all(
        not weight.is_complex() and bool(weight.float().isfinite().all()) for weight in weights
    )

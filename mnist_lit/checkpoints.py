"""Reading checkpoints, without ever running code from them."""

from pathlib import Path
from typing import Any

import torch
from packaging.version import Version

from mnist_lit import __version__
from mnist_lit.errors import UserError


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `fit` wrote, onto the CPU.

    Raises:
        UserError: the file is damaged, is not a checkpoint of this project, or of a newer one.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        made_by = Version(checkpoint["mnist_lit"]["version"])
    except OSError as error:
        inside = path / "checkpoints" / "best.ckpt"
        hint = f"; did you mean {inside}?" if inside.is_file() else ""
        raise UserError(f"{path} cannot be read: {error.strerror}{hint}") from error
    except Exception as error:  # whatever bytes a file holds, torch.load meets them its own way
        raise UserError(
            f"{path} is no checkpoint made by `mnist-lit fit`, or it is damaged"
        ) from error
    if made_by > Version(__version__):
        raise UserError(
            f"{path} was made by mnist-lit {made_by}, and this is {__version__}: upgrade it"
        )
    return dict(checkpoint)

"""Start a training from the weights of another one, and freeze parts of a network."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mnist_lit.checkpoints import network_state
from mnist_lit.errors import UserError, join_names
from mnist_lit.files import user_path


def load_initial_weights(
    network: nn.Module, source: str, num_classes: int, packaged: Path
) -> list[str]:
    """Copy weights into a network; its last layer may have another number of classes.

    Args:
        network: gets the weights.
        source: ``packaged``, a checkpoint's path, or that of a saved ``state_dict``.
        num_classes: of the network.
        packaged: the file that ``packaged`` means.

    Returns:
        Names of the weights that keep their random values: those of the last layer, if the number
        of classes differs.

    Raises:
        UserError: the file cannot be read, or is of another network.
    """
    given, own = _read_state(source, packaged), network.state_dict()
    anew = [name for name in own if name in given and given[name].shape != own[name].shape]
    is_head = all(
        len(own[name]) == num_classes and given[name].shape[1:] == own[name].shape[1:]
        for name in anew
        if own[name].ndim
    )
    unlike = sorted(own.keys() ^ given.keys()) or ([] if is_head else anew)
    if unlike:
        raise UserError(f"model.weights {source} are of another network: {join_names(unlike)}")
    network.load_state_dict({**given, **{name: own[name] for name in anew}})
    return anew


def _read_state(source: str, packaged: Path) -> dict[str, Tensor]:
    path = packaged if source == "packaged" else user_path(source)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"model.weights {source} cannot be read: {error.strerror}") from error
    except Exception as error:  # damaged files raise many kinds of exceptions
        raise UserError(
            f"model.weights {source} is neither a checkpoint nor a state_dict"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = network_state(dict(content)) or content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise UserError(f"model.weights {source} is neither a checkpoint nor a state_dict")
    return dict(content)


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Exclude parameters from the training; running statistics of batch norms still move.

    Args:
        network: whose parameters.
        patterns: of their names, ``conv*``.

    Raises:
        UserError: a pattern fits no name.
    """
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        chosen = [name for name in parameters if fnmatch(name, pattern)]
        if not chosen:
            raise UserError(
                f"model.freeze {pattern} fits no parameter: there are"
                f" {join_names(list(parameters), 8)}"
            )
        for name in chosen:
            parameters[name].requires_grad_(False)

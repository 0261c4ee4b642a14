"""`RandomState`: save and restore random states, so that a resumed run draws the same numbers."""

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mnist_lit.training.processes import gathered


class RandomState(Callback):
    """Save the random states of all ranks in checkpoints, and restore them.

    Rank 0 has the stream of the seed; each other rank has its own, derived from seed and rank.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        first, *others = gathered(_state())
        return {**first, "others": others}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = [state_dict, *state_dict.get("others", [])]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank = trainer.global_rank
        if rank < len(self._loaded):
            _set(self._loaded[rank])
        elif rank > 0:
            # Seeded by both, not by their sum: rank 1 of seed 1 is not rank 0 of seed 2.
            mixed = random.Random(f"seed {torch.initial_seed()} rank {rank}").getrandbits(32)
            random.seed(mixed)
            np.random.seed(mixed)  # noqa: NPY002
            torch.manual_seed(mixed)
        self._loaded = []


def num_ranks(checkpoint: dict[str, Any]) -> int:
    """Return the number of ranks when a checkpoint was saved."""
    return 1 + len(checkpoint["callbacks"].get("RandomState", {}).get("others", []))


def _state() -> dict[str, Any]:
    numpy_state: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    name, keys, position, has_gauss, gauss = numpy_state
    version, internal, gauss_next = random.getstate()
    return {  # lists, numbers and tensors alone: they load with weights_only=True
        "python": [version, list(internal), gauss_next],
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": _cuda_states(),
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def _set(state: dict[str, Any]) -> None:
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    for device, of_device in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(of_device, device)
    if state.get("mps") is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def _cuda_states() -> list[torch.Tensor]:
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state_all() if in_use else []

"""Callbacks for resuming: `LastCheckpoint`, `RandomState`, `Provenance`."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import NonNegativeFloat
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint

from mnist_lit import __version__
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.training import ranks

WATCHED = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)]

ASKED_EVERY_S = 1.0  # several ranks, whether it is time to save, or a signal has come to any


class Interrupted(SystemExit):
    """A signal ended the training; the exit code is 128 + its number, as in shells."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum)


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt``, from which an interrupted run is resumed.

    It is saved after epochs and, within one, between two steps, so that a resumed run takes the
    steps that the interrupted one would have taken.

    Args:
        every_s: seconds between two saves within an epoch.
    """

    def __init__(self, every_s: NonNegativeFloat = 30.0) -> None:
        super().__init__()
        self.every_s = float(every_s)
        self.path: Path | None = None  # known when the run folder is
        self._saved_at = 0.0
        self._training = False
        self._received = 0
        self._vote = ranks.PeriodicVote(min(self.every_s, ASKED_EVERY_S))

    @contextmanager
    def watching_signals(self) -> Iterator[None]:
        """Save before Ctrl-C, SIGTERM and SIGUSR1 end the training.

        The first signal lets the current step finish (with several ranks, the steps of about a
        second); a second one, or one outside of the training, ends at once.

        Raises:
            Interrupted: a signal was received.
        """
        previous = {signum: signal.signal(signum, self._receive) for signum in WATCHED}
        try:
            yield
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self._received or not self._training:
            raise Interrupted(signum)
        self._received = signum

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at = time.monotonic()
        self._training = True
        if ranks.world_size() > 1:
            # Lightning puts one in front that waits for the other ranks, wherever they are.
            for signum in WATCHED:
                signal.signal(signum, self._receive)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = bool(self._received) or time.monotonic() - self._saved_at >= self.every_s
        due = self._vote.after_step(due, pl_module.device)
        # Not after an epoch's last batch: from there Lightning would go on without validating.
        if due and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = False

    def _save(self, trainer: Trainer) -> None:
        if self.path:
            trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()
        received = ranks.maximum([self._received], trainer.strategy.root_device)
        if received[0]:
            raise Interrupted(int(received[0]))


class Provenance(Callback):
    """Store version, config and classes in each checkpoint.

    Args:
        config: all options, nested as in a config file.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["mnist_lit"] = {"version": __version__, "config": self.config}
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, MNISTDataModule):
            checkpoint["classes"] = list(data.classes)


class RandomState(Callback):
    """Save the random states of all ranks in checkpoints, and restore them.

    Rank 0 has the stream of the seed; each other rank has its own, derived from seed and rank.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        first, *others = ranks.gathered(self._state())
        return {**first, "others": others}

    def _state(self) -> dict[str, Any]:
        numpy_state: Any = np.random.get_state(legacy=True)  # noqa: NPY002
        name, keys, position, has_gauss, gauss = numpy_state
        version, internal, gauss_next = random.getstate()
        return {  # lists, numbers and tensors alone: they load with weights_only=True
            "python": [version, list(internal), gauss_next],
            "numpy": [name, keys.tolist(), position, has_gauss, gauss],
            "torch": torch.get_rng_state(),
            "cuda": _cuda_states(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = [state_dict, *state_dict.get("others", [])]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank = ranks.rank()
        if rank < len(self._loaded):
            self._set(self._loaded[rank])
        elif rank > 0:
            # Seeded by both, not by their sum: rank 1 of seed 1 is not rank 0 of seed 2.
            mixed = random.Random(f"seed {torch.initial_seed()} rank {rank}").getrandbits(32)
            random.seed(mixed)
            np.random.seed(mixed)  # noqa: NPY002
            torch.manual_seed(mixed)
        self._loaded = []

    def _set(self, state: dict[str, Any]) -> None:
        version, internal, gauss_next = state["python"]
        random.setstate((version, tuple(internal), gauss_next))
        np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
        torch.set_rng_state(state["torch"])
        for device, of_device in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(of_device, device)


def requeue(trainer: Trainer) -> bool:
    """Requeue the SLURM job, if this is one; return True if it was."""
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return False
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format(**os.environ)
    try:
        return subprocess.run(["scontrol", "requeue", job]).returncode == 0
    except OSError:
        return False


def num_ranks(checkpoint: dict[str, Any]) -> int:
    """Return the number of ranks when a checkpoint was saved."""
    return 1 + len(checkpoint["callbacks"].get("RandomState", {}).get("others", []))


def _cuda_states() -> list[torch.Tensor]:
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state_all() if in_use else []

"""What a run needs to go on where it was: `LastCheckpoint`, and what is in it of this project."""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import NonNegativeFloat
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint

from mnist_lit import __version__
from mnist_lit.data.module import MNISTDataModule


class Interrupted(SystemExit):
    """A signal ended the training; the exit code is the one that shells give for it."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``, from which an interrupted run goes on.

    It is saved after every epoch, and within one after steps, never inside them: so what goes on
    from it is what would have gone on.

    Args:
        every_s: seconds of training after which it is saved within an epoch.
    """

    def __init__(self, every_s: NonNegativeFloat = 30.0) -> None:
        super().__init__()
        self.every_s = float(every_s)
        self.path: Path | None = None  # known when the run folder is
        self._saved_at = 0.0
        self._training = False
        self._received: int | None = None

    @contextmanager
    def watching_signals(self) -> Iterator[None]:
        """Let Ctrl-C, SIGTERM and SIGUSR1 save before they end the training.

        The first signal lets the current step finish; a second one, or one that comes when nothing
        is being trained, ends at once.

        Raises:
            Interrupted: a signal has come.
        """
        watched = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)]
        previous = {signum: signal.signal(signum, self._receive) for signum in watched}
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

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self._received or time.monotonic() - self._saved_at >= self.every_s
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
        if self._received:
            raise Interrupted(self._received)


class Provenance(Callback):
    """Puts into each checkpoint by what it was made.

    Args:
        recipe: all options, nested as in a config file.
    """

    def __init__(self, recipe: dict[str, Any]) -> None:
        self.recipe = recipe

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["mnist_lit"] = {"version": __version__, "recipe": self.recipe}
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, MNISTDataModule):
            checkpoint["classes"] = list(data.classes)


class RandomState(Callback):
    """Puts all random number generators into the checkpoint, and back on resuming."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
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
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._loaded:
            return
        version, internal, gauss_next = self._loaded["python"]
        random.setstate((version, tuple(internal), gauss_next))
        np.random.set_state(tuple(self._loaded["numpy"]))  # noqa: NPY002
        torch.set_rng_state(self._loaded["torch"])
        for device, state in enumerate(self._loaded["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
        self._loaded = {}


def _cuda_states() -> list[torch.Tensor]:
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.get_rng_state_all() if in_use else []

"""A callback that ends the process, as a power cut would, at a chosen spot of a training.

mnist-lit fit --trainer.callbacks=kill.Kill --trainer.callbacks.spot=step --trainer.callbacks.at=7
"""

import os
import signal
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from mnist_lit.commands import fit
from mnist_lit.training import results

Spot = Literal["step", "validation", "checkpoint", "last_checkpoint", "epoch_end"]


def kill(spot: Spot, at: int, signum: int = signal.SIGKILL, rank: int = 0) -> list[str]:
    """Return the options of ``fit`` that add `Kill`."""
    arguments = {"spot": spot, "at": at, "signum": int(signum), "rank": rank}
    given = [f"--trainer.callbacks.{name}={value}" for name, value in arguments.items()]
    return ["--trainer.callbacks+=kill.Kill", *given]


class Kill(Callback):
    """Kills its own process, but none that torchrun has started again.

    Args:
        spot: after a step, within a validation, while a checkpoint is being written, between the
            best checkpoint and the last one, or between an epoch's validation and its checkpoints.
        at: the first step count at which that happens.
        signum: the signal, 9 for SIGKILL.
        rank: of several processes, which one.
    """

    def __init__(self, spot: Spot, at: int, signum: int = signal.SIGKILL, rank: int = 0) -> None:
        self.spot, self.at, self.signum, self.rank = spot, at, signum, rank

    def _kill(self, spot: Spot, trainer: Trainer) -> None:
        is_it = spot == self.spot and trainer.global_rank == self.rank
        is_it = is_it and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if is_it and trainer.global_step >= self.at:
            self.at = 10**9  # once, if this is a signal that can be survived
            os.kill(os.getpid(), self.signum)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        replace = os.replace

        def replace_or_die(source: Path, target: Path) -> None:
            if target.suffix == ".ckpt":
                self._kill("checkpoint", trainer)
            if target.name == "last.ckpt":
                self._kill("last_checkpoint", trainer)
            replace(source, target)

        os.replace = replace_or_die  # type: ignore[assignment]

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._kill("step", trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._kill("validation", trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._kill("epoch_end", trainer)


class NoResults(Callback):
    """Has a run finished when its training is: results are tested elsewhere, and take longer."""

    def __init__(self) -> None:
        setattr(results, "finish", lambda run, *args: run.results.write_text("{}"))  # noqa: B010
        setattr(fit, "print_results", lambda run: None)  # noqa: B010


class NeverBegins(Callback):
    """Fails when everything is ready."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise ValueError("not today")


class StopsAtTheStart(Callback):
    """Fails with the first batch, before its step."""

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        raise ValueError("not this one")


class CannotBeMade(Callback):
    """Fails in its constructor."""

    def __init__(self) -> None:
        raise ValueError("not at all")

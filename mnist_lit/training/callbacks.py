"""What happens around the training steps: checkpoints, stopping, progress, random state."""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from pytorch_lightning import LightningModule, Trainer, callbacks
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, RichProgressBar

from mnist_lit import __version__
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.training.module import LitClassifier

Mode = Literal["min", "max"]
Metric = Literal["train/loss", "train/acc", "val/loss", "val/acc"]


def _check_mode(monitor: str, mode: Mode) -> None:
    """Refuse to look for the worst epoch.

    Raises:
        UserError: the metric is better the other way.
    """
    better: Mode = "min" if monitor.endswith("loss") else "max"
    if mode != better:
        raise UserError(f"monitor {monitor} goes with mode {better}, not {mode}: give both")


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint of the epoch with the best validation score as ``best.ckpt``.

    Args:
        monitor: the metric that decides; or epoch, for the last one (with max).
        mode: whether less of it is better (min) or more (max).
    """

    def __init__(self, monitor: Metric | Literal["epoch"] = "val/loss", mode: Mode = "min") -> None:
        _check_mode(monitor, mode)
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best score when the folder is not where it was; here it is kept if
        # the best checkpoint is there too, as in a run that was moved as a whole.
        best = Path(str(self.dirpath)) / "best.ckpt"
        if best.is_file():
            moved = {
                "dirpath": self.dirpath,
                "best_model_path": str(best),
                "kth_best_model_path": str(best),
                "best_k_models": {str(best): torch.as_tensor(state_dict["best_model_score"])},
            }
            super().load_state_dict({**state_dict, **moved})


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


class StopEarly(callbacks.EarlyStopping):
    """Ends the training when validation has stopped getting better.

    Args:
        monitor: the metric that decides.
        mode: whether less of it is better (min) or more (max).
        patience: epochs without a new best one before it ends.
        min_delta: by how much a new best one must be better.
    """

    def __init__(
        self,
        monitor: Metric = "val/loss",
        mode: Mode = "min",
        patience: PositiveInt = 3,
        min_delta: NonNegativeFloat = 0.0,
    ) -> None:
        _check_mode(monitor, mode)
        # Not strict: an epoch that was cut short, by max_steps say, has no validation.
        super().__init__(monitor, float(min_delta), int(patience), mode=mode, strict=False)

    @property
    def state_key(self) -> str:
        """As Lightning's own, under which checkpoints have it."""
        return super().state_key.replace(type(self).__qualname__, "EarlyStopping", 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = torch.as_tensor(state_dict["best_score"])
        super().load_state_dict({**state_dict, "best_score": best, "patience": self.patience})

    @property
    def stopped(self) -> bool:
        return bool(self.wait_count >= self.patience)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = self.stopped


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


class TrainingLog(Callback):
    """Logs the training every `Trainer.log_every_n_steps` steps, and measures its speed.

    It writes to the loggers itself. What a module logs reaches them only after the hook in which
    checkpoints are saved: a run that goes on from one would miss that point of the curves.

    Attributes:
        fit_seconds: time spent in training and validation, over all sittings of a run.
        images_per_s: training images a second in the fastest whole epoch, validation left out.
    """

    def __init__(self) -> None:
        self.fit_seconds = 0.0
        self.images_per_s = 0.0
        self._epoch_is_whole = False
        self._images = 0  # of this epoch so far
        self._seconds = 0.0  # of this epoch's training so far, without what runs since _since
        self._since = 0.0
        self._fit_since: float | None = None  # while it trains

    def state_dict(self) -> dict[str, float]:
        return {
            "fit_seconds": self._seconds_until_now(),
            "images_per_s": self.images_per_s,
        }

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.fit_seconds = float(state_dict["fit_seconds"])
        self.images_per_s = float(state_dict["images_per_s"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit_since = self._since = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_is_whole, self._images, self._seconds = True, 0, 0.0
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch[1])
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            assert isinstance(pl_module, LitClassifier)
            seconds = self._seconds + time.monotonic() - self._since
            metrics = {**pl_module.training_metrics(), "images_per_s": self._images / seconds}
            pl_module.log_dict(metrics, prog_bar=True, logger=False)
            for logger in trainer.loggers:
                logger.log_metrics(
                    {**metrics, "epoch": trainer.current_epoch}, trainer.global_step - 1
                )
                logger.save()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seconds += time.monotonic() - self._since

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._epoch_is_whole:
            self._seconds += time.monotonic() - self._since
            self.images_per_s = max(self.images_per_s, self._images / self._seconds)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.fit_seconds, self._fit_since = self._seconds_until_now(), None

    def _seconds_until_now(self) -> float:
        since = 0.0 if self._fit_since is None else time.monotonic() - self._fit_since
        return self.fit_seconds + since


class Progress(RichProgressBar):
    """Lightning's bar, redrawn by time and not by steps, and a line that stays for every epoch."""

    def __init__(self, redraws_per_s: int = 4) -> None:
        super().__init__(refresh_rate=redraws_per_s)
        self._redraw_at = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now >= self._redraw_at or trainer.is_last_batch:
            self._redraw_at = now + 1 / self.refresh_rate
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        values = trainer.callback_metrics
        text = self._get_train_description(trainer.current_epoch)
        for name, label in (("train", "train"), ("val", "validation")):
            if f"{name}/loss" in values and f"{name}/acc" in values:
                text += f"  {label} {values[f'{name}/loss']:.4f} {values[f'{name}/acc']:7.2%}"
        assert self.progress is not None
        self.progress.console.print(text, highlight=False)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        values = trainer.progress_bar_metrics
        return {
            label: f"{values[name]:{form}}"
            for name, label, form in (
                ("train/loss", "loss", ".4f"),
                ("train/acc", "acc", ".2%"),
                ("images_per_s", "img/s", ",.0f"),
            )
            if name in values
        }

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        description, bar, _, times, _ = super().configure_columns(trainer)
        bar.bar_width = 12  # so that everything fits into 80 columns
        return [description, bar, times]

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"

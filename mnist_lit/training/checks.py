"""Checks for incompatible or unsupported options."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
)
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from mnist_lit.data.loaders import EpochShuffle
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError, one_line
from mnist_lit.synthetic.data import SheetDataModule
from mnist_lit.training.base_task import BaseTask
from mnist_lit.training.classification import LitClassifier
from mnist_lit.training.dry_run import check_training_step

REFUSED_CALLBACKS: Mapping[type[Callback], str] = {
    EarlyStopping: "there is one already, so set its options, --early_stopping.patience and others",
    LearningRateFinder: "the rate that it finds is in no config.yaml, so set --model.lr, or search"
    " it with `mnist-lit sweep`",
    BatchSizeFinder: "the size that it finds is in no config.yaml, so set --data.batch_size",
    GradientAccumulationScheduler: "a resumed run would not know how many batches make a step, so"
    " set --trainer.accumulate_grad_batches",
    OnExceptionCheckpoint: "a new run would begin with the checkpoint that it left; leave it out:"
    " last.ckpt is saved anyway, and --ckpt_path last resumes from it",
    StochasticWeightAveraging: "its average is in no checkpoint, so take EMAWeightAveraging or"
    " WeightAveraging",
}
"""Lightning's callbacks that change what a config says, or what a checkpoint should hold."""


def check_callbacks(given: Any) -> None:
    """Refuse `REFUSED_CALLBACKS`, and classes derived from them.

    Raises:
        UserError: there is such a callback.
    """
    for callback in given if isinstance(given, list) else [given]:
        for refused, reason in REFUSED_CALLBACKS.items():
            if isinstance(callback, refused):
                raise UserError(f"trainer.callbacks {type(callback).__name__}: {reason}")


def check_device(trainer: Trainer) -> None:
    """Allow only one device or DDP, as many processes as were started, and 32-bit weights.

    Raises:
        UserError: the Trainer uses anything else.
    """
    strategy = trainer.strategy
    is_ddp = type(strategy) is DDPStrategy and isinstance(
        strategy.launcher, _SubprocessScriptLauncher
    )
    if not is_ddp and not isinstance(strategy, SingleDeviceStrategy):
        raise UserError("several devices need --trainer.strategy ddp")
    try:
        trainer._accelerator_connector.cluster_environment.validate_settings(
            trainer.num_devices, trainer.num_nodes
        )
    except ValueError as error:  # torchrun or SLURM have started more processes, or fewer
        raise UserError(f"{one_line(error)} (--trainer.devices and --trainer.num_nodes)") from error
    if trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):
        raise UserError(
            f"trainer.precision {trainer.precision}: take 32-true, 16-mixed or bf16-mixed"
        )


def check_one_process(trainer: Trainer, command: str) -> None:
    """Refuse several devices.

    Raises:
        UserError: there are to be several.
    """
    if trainer.world_size > 1:
        raise UserError(f"{command} trains in one process: leave --trainer.devices at 1")


def check(
    options: Namespace, trainer: Trainer, model: LightningModule, data: MNISTDataModule
) -> None:
    """Refuse options that do not go together; the caller discards a new run folder.

    Raises:
        UserError: options do not go together, or with this project.
    """
    given = options.trainer
    num_images = len(data.images("train")) + len(data.images("val"))
    few = min(10 * data.batch_size, num_images // 2)
    num_batches = _num_batches(data, given.limit_train_batches)
    endless = trainer.max_epochs == trainer.max_steps == -1
    num_ranks = trainer.world_size
    schedule = model.schedule if isinstance(model, BaseTask) else "constant"
    problems = {
        f"trainer.overfit_batches is not supported; to overfit few images, hold out the others:"
        f" --data.val_size {num_images - few} leaves {few}": (given.overfit_batches != 0),
        "trainer.limit_val_batches 0: without validation there is no best epoch": (
            given.limit_val_batches == 0
        ),
        "trainer.check_val_every_n_epoch and val_check_interval: 0 is not an interval": (
            0 in (given.check_val_every_n_epoch, given.val_check_interval)
        ),
        f"trainer.val_check_interval: an epoch has {num_batches} steps, so take no more": (
            isinstance(given.val_check_interval, int)
            and given.val_check_interval > num_batches
            and given.check_val_every_n_epoch is not None
        ),
        "trainer.limit_predict_batches: results are of all images, so leave it out": (
            given.limit_predict_batches not in (None, 1.0)
        ),
        "there is nothing to train: raise trainer.max_epochs, max_steps, limit_train_batches": (
            0 in (trainer.max_epochs, trainer.max_steps, given.limit_train_batches)
        ),
        "trainer.log_every_n_steps: there are no curves without points, so take 1 or more": (
            given.log_every_n_steps is not None and given.log_every_n_steps < 1
        ),
        "trainer.gradient_clip_val in mixed precision: leave out optimizer.fused": (
            bool(given.gradient_clip_val)
            and trainer.precision != "32-true"
            and options.optimizer is not None
            and bool(options.optimizer.get("init_args", {}).get("fused"))
        ),
        f"data.batch_size: a step needs an image for each of {num_ranks} processes": (
            data.batch_size < num_ranks
        ),
        "trainer.sync_batchnorm is for several GPUs": (
            bool(given.sync_batchnorm) and trainer.strategy.root_device.type != "cuda"
        ),
        "trainer.reload_dataloaders_every_n_epochs: each epoch has a new order, so leave it out": (
            bool(given.reload_dataloaders_every_n_epochs) and num_ranks > 1
        ),
        "model.lr is for the default optimizer: leave it out, and set optimizer.lr": (
            options.optimizer is not None
            and isinstance(model, LitClassifier)
            and model.lr != signature(LitClassifier).parameters["lr"].default
        ),
        "model.schedule and lr_scheduler: take one of them": (
            options.lr_scheduler is not None and schedule != "constant"
        ),
        "lr_scheduler needs an optimizer: add --optimizer Adam": (
            options.lr_scheduler is not None and options.optimizer is None
        ),
        "model.schedule one_cycle has to know the end: set trainer.max_epochs": (
            endless and schedule == "one_cycle"
        ),
        "data of synthetic sheets trains in one process: leave --trainer.devices at 1": (
            num_ranks > 1 and isinstance(data, SheetDataModule)
        ),
    }
    for message, is_there in problems.items():
        if is_there:
            raise UserError(message)
    if isinstance(model, LitClassifier):
        smallest = smallest_batch(data, given.limit_train_batches, num_ranks)
        check_training_step(model, data, smallest)


def smallest_batch(data: MNISTDataModule, limit: float | None, num_ranks: int) -> int:
    """Compute the size of the smallest batch of a process in an epoch.

    Args:
        data: set up.
        limit: trainer.limit_train_batches.
        num_ranks: how many processes share a batch.
    """
    sampler = data.train_dataloader().sampler
    assert isinstance(sampler, EpochShuffle)
    return max(1, sampler.num_images(_num_batches(data, limit) - 1) // num_ranks)


def _num_batches(data: MNISTDataModule, limit: float | None) -> int:
    """Compute the number of batches of an epoch; the limit is a number or a share."""
    num_batches = len(data.train_dataloader())
    if limit is None:
        return num_batches
    return min(num_batches, limit) if isinstance(limit, int) else int(limit * num_batches)

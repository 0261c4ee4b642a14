"""Several processes: who launched them, their errors, and how they end."""

import os
import subprocess
import threading
import time
from typing import Any, TypeVar

import torch.distributed as dist
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ProgressBar

T = TypeVar("T")

LAUNCHER = "MNIST_LIT_LAUNCHER"  # environment variable: id of the process that starts the others
POLL_S = 1.0  # how often a launched process looks whether its launcher is still there
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")  # set by launchers, 0 for the first


def is_rank_zero() -> bool:
    """Return True if this process alone writes files and prints; needs no process group."""
    return not any(int(os.environ.get(name, 0)) for name in RANKS)


def launched_by() -> str | None:
    """Return the program that started all processes: torchrun, srun; None for Lightning."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    return "srun" if "SLURM_LOCALID" in os.environ else None


def bind_to_launcher() -> None:
    """End this process when the one that launched it ends.

    Lightning's launcher ends all processes when a child dies, but children would outlive a dead
    launcher.
    """
    if is_rank_zero():
        os.environ[LAUNCHER] = str(os.getpid())
    elif launched_by() is None and LAUNCHER in os.environ:
        threading.Thread(target=_end_with_launcher, daemon=True).start()


def _end_with_launcher() -> None:
    while os.getppid() == int(os.environ[LAUNCHER]):
        time.sleep(POLL_S)
    os._exit(1)


def prints_errors() -> bool:
    """Return True if this process prints a `UserError`.

    Before the process group exists, all ranks raise the same error, and rank 0 prints it. After
    that, ranks that Lightning has launched wait first: if rank 0 has failed too, they end with it.
    """
    if is_rank_zero():
        return True
    if launched_by() is None:
        time.sleep(3 * POLL_S)
    return dist.is_initialized()


def peer_died(error: BaseException) -> bool:
    """Tell whether an error comes from a collective operation with a process that is gone."""
    named = ("gloo", "NCCL", "Connection reset", "Connection closed")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(name in str(error) for name in named)
    )


def gathered(value: T) -> list[T]:
    """Gather a value of every rank, in the order of ranks (collective)."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def leave_group(trainer: Trainer) -> None:
    """Leave the process group after the training; rank 0 continues alone."""
    if trainer.world_size > 1:
        trainer.strategy.barrier()
        dist.destroy_process_group()


def single_process_trainer(trainer: Trainer) -> Trainer:
    """Return a Trainer for this process alone, once the others have ended."""
    if trainer.world_size == 1:
        return trainer
    device = trainer.strategy.root_device
    bars: list[Any] = [bar for bar in trainer.callbacks if isinstance(bar, ProgressBar)]  # type: ignore[attr-defined]
    return Trainer(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        precision=trainer.precision,
        logger=False,
        callbacks=bars,
        enable_progress_bar=bool(bars),
        enable_checkpointing=False,
        enable_model_summary=False,
    )


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

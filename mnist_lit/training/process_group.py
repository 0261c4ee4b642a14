"""Start, join and end the processes of one training together."""

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ProgressBar
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from mnist_lit.errors import UserError
from mnist_lit.training.ranks import gathered

T = TypeVar("T")

PEER_DIED = "a process of several has died"

MEETING_S = 600.0  # that the first rank waits for the others, which may be reading their data
POLL_S = 0.5  # how often a rank looks whether another one has failed
FAREWELL_S = 3.0  # what it then gives its own step to notice, and others to end


def launched_by() -> str | None:
    """Return the program that started all processes: torchrun, srun; None for Lightning."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    return "srun" if "SLURM_LOCALID" in os.environ else None


def prints_errors() -> bool:
    """Tell whether this process prints an error that all processes have."""
    number = {"torchrun": "LOCAL_RANK", "srun": "SLURM_LOCALID"}.get(launched_by() or "")
    return dist.is_initialized() or number is None or os.environ[number] == "0"


def peer_died(error: BaseException | None) -> bool:
    """Tell whether an error comes from a collective operation with a process that is gone."""
    named = ("gloo", "NCCL", "Connection reset", "Connection closed")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(name in str(error) for name in named)
    )


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


class ProcessGroup:
    """The ranks of one command, from their start to their end; if one fails, all end.

    Only the first failing rank prints; the others exit quietly, even when blocked in a collective.
    A counter in the store of the process group says which one is first.

    Args:
        trainer: with the number of ranks.
        say_peer_died: prints that a rank has died.
    """

    def __init__(self, trainer: Trainer, say_peer_died: Callable[[], None]) -> None:
        self._trainer, self._say_peer_died = trainer, say_peer_died
        self._children: list[subprocess.Popen[bytes]] = []  # the ranks that Lightning has started
        self._parent = os.getppid()
        self._store: Any = None
        self._over = threading.Event()  # they have parted, or this rank is ending already
        self._num_threads = torch.get_num_threads()

    @property
    def is_first(self) -> bool:
        """True for rank 0, which alone writes files and prints."""
        return self._trainer.global_rank == 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start all ranks, and end all of them if one fails.

        Raises:
            SystemExit: another rank has failed, and it has been said.
        """
        if self._trainer.world_size == 1:
            yield
            return
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            launcher = self._trainer.strategy.launcher
            assert launcher is not None
            launcher.launch(self._meet)
            yield
            self.leave()
        except BaseException as error:
            if not self._over.is_set():
                self._end(error)
            raise

    def _meet(self) -> None:
        strategy: Any = self._trainer.strategy
        # Lightning's watch over them would kill this process before anything was said.
        self._children = list(strategy.launcher.procs)
        strategy.launcher.procs.clear()
        environment, device = strategy.cluster_environment, strategy.root_device
        is_torchruns = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        store = TCPStore(
            environment.main_address,
            environment.main_port,
            is_master=self.is_first and not is_torchruns,
            wait_for_workers=False,
        )
        self._store = PrefixStore(self._attempt(store), store)
        dist.init_process_group(
            strategy.process_group_backend or dist.get_default_backend_for_device(device),
            store=self._store,
            rank=self._trainer.global_rank,
            world_size=self._trainer.world_size,
            timeout=strategy._timeout,
            device_id=device if device.type == "cuda" else None,
        )
        strategy.setup_environment()  # which finds that they have met

    def _attempt(self, store: Any) -> str:
        """Agree on a unique prefix for the keys of this process group.

        After a restart, torchrun's store still has the keys of the group before, and each machine
        counts the restarts for itself.
        """
        num_others = self._trainer.world_size - 1
        if self.is_first:
            name = uuid.uuid4().hex
            store.set("attempt", name)
            until = time.monotonic() + MEETING_S
            while (num_here := store.add(f"{name}/others", 0)) < num_others:
                if time.monotonic() > until:
                    raise UserError(f"{num_others - num_here} of the other processes did not come")
                time.sleep(0.02)
            store.set(f"{name}/complete", "")
            return name
        places: dict[str, int] = {}
        while True:
            name = str(store.get("attempt"), "utf-8")
            if name not in places:
                places[name] = store.add(f"{name}/others", 1)
            # One that was complete without this rank is over.
            if places[name] <= num_others and store.check([f"{name}/complete"]):
                return name
            time.sleep(0.02)

    def from_rank_zero(self, make: Callable[[], T]) -> T:
        """Make a value on rank 0 and broadcast it (collective: every rank must call it)."""
        made: Any = make() if self.is_first else None
        value: T = self._trainer.strategy.broadcast(made)
        return value

    def check_same(self, value: Any, what: str) -> None:
        """Check that a value is the same on all ranks (collective).

        Args:
            value: to compare.
            what: its name, for the error.

        Raises:
            UserError: it differs.
        """
        values = gathered(value)
        if any(other != values[0] for other in values):
            raise UserError(f"the processes have different {what}: start all in the same way")

    def leave(self) -> None:
        """Leave the process group: the other ranks end, rank 0 gets all threads."""
        if self._trainer.world_size > 1 and not self._over.is_set():
            self._trainer.strategy.barrier()
            self._over.set()
            dist.destroy_process_group()
            torch.set_num_threads(self._num_threads)

    def _end(self, error: BaseException) -> None:
        """End this rank and those that it has started.

        Raises:
            SystemExit: the error was printed.
        """
        self._over.set()
        is_first_to_fail = self._count_failure()
        self._await_others()
        if is_first_to_fail and peer_died(error):
            self._say_peer_died()
        elif is_first_to_fail:
            return
        code = error.code if isinstance(error, SystemExit) else 1 + isinstance(error, UserError)
        raise SystemExit(code) from error

    def _count_failure(self) -> bool:
        """Count this rank's failure; return True if it is the first one."""
        if self._store is None:
            return prints_errors()
        try:
            return bool(self._store.add("failures", 1) == 1)
        except RuntimeError:  # it is gone with the rank that kept it, the first
            return self._trainer.global_rank == 1

    def _await_others(self) -> None:
        """Keep the store until all ranks have read it; then kill the processes started here."""
        until = time.monotonic() + FAREWELL_S
        while self.is_first and time.monotonic() < until and not self._have_all_ended():
            time.sleep(0.05)
        for child in self._children:
            child.kill()
            child.wait()

    def _have_all_ended(self) -> bool:
        if len(self._children) == self._trainer.world_size - 1:
            return all(child.poll() is not None for child in self._children)
        return self._store is None or self._store.add("failures", 0) >= self._trainer.world_size

    def _watch(self) -> None:
        """End this process when another one has ended; runs in a thread, as it may be blocked."""
        while not self._over.wait(POLL_S):
            has_ended = any(child.poll() is not None for child in self._children)
            is_gone = has_ended or os.getppid() != self._parent
            try:
                is_said = self._store is not None and self._store.add("failures", 0) > 0
            except RuntimeError:
                is_gone, is_said = True, False
            if is_gone or is_said:
                if self._over.wait(POLL_S if is_said else FAREWELL_S):
                    return
                if self._count_failure():
                    self._say_peer_died()
                self._await_others()
                os._exit(1)

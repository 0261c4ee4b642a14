"""Collective operations between ranks; of a single process they return its own values.

Every rank must call them.
"""

import time
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def rank() -> int:
    """Return the rank of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gathered(value: T) -> list[T]:
    """Gather a value of every rank, in the order of ranks."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def mean(means: Tensor, count: Tensor) -> Tensor:
    """Compute weighted means over all ranks.

    Args:
        means: of this rank, ``(M,)``.
        count: number of samples in them; if 0, the means do not count.
    """
    if world_size() == 1:
        return means
    totals = torch.cat([torch.where(count > 0, means * count, 0), count[None]]).double()
    dist.all_reduce(totals)
    return totals[:-1] / totals[-1]


def broadcast_from_rank_zero(values: Tensor) -> None:
    """Broadcast values of rank 0 in place."""
    if world_size() > 1:
        dist.broadcast(values, 0)


def maximum(values: list[float], device: torch.device) -> list[float]:
    """Compute the maximum over all ranks of each value.

    Args:
        values: of this rank.
        device: of this rank.
    """
    if world_size() == 1:
        return values
    of_all = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(of_all, dist.ReduceOp.MAX)
    return of_all.tolist()


class PeriodicVote:
    """Vote among ranks every few seconds instead of after every step.

    Clocks differ, and a signal may reach one rank only; but all ranks have to act after the same
    step.

    Args:
        every_s: seconds between two votes.
    """

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self._steps_until_asked = self._steps_between = 1
        self._asked_at = time.monotonic()

    def after_step(self, wanted: bool, device: torch.device) -> bool:
        """Return True if any rank votes for it, and this step has a vote.

        Args:
            wanted: the vote of this rank.
            device: of this rank.
        """
        if world_size() == 1:
            return wanted
        self._steps_until_asked -= 1
        if self._steps_until_asked:
            return False
        step_s = (time.monotonic() - self._asked_at) / self._steps_between
        by_any, step_s = maximum([wanted, step_s], device)
        # All know the same duration, so all count to the same step.
        self._steps_until_asked = self._steps_between = max(1, round(self.every_s / step_s))
        self._asked_at = time.monotonic()
        return bool(by_any)

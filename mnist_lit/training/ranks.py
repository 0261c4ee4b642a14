"""Several processes that train as one: what they ask of each other.

Each has its rank, counted from 0; a process alone is rank 0 of 1, and asks nobody.
"""

import time
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def rank() -> int:
    """This process's number among those that have met."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many have met."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gathered(value: T) -> list[T]:
    """Every rank's value, in their order; all ranks have to ask."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def mean(means: Tensor, count: Tensor) -> Tensor:
    """Means over what all ranks have, each of which has to ask.

    Args:
        means: ``(M,)``, over what this rank has.
        count: how much that is; of nothing, there are no means.
    """
    if world_size() == 1:
        return means
    totals = torch.cat([torch.where(count > 0, means * count, 0), count[None]]).double()
    dist.all_reduce(totals)
    return totals[:-1] / totals[-1]


def overwrite_by_first(values: Tensor) -> None:
    """Have on all ranks, each of which has to ask, what the first one has."""
    if world_size() > 1:
        dist.broadcast(values, 0)


def greatest(values: list[float], device: torch.device) -> list[float]:
    """Of each value the greatest that any rank has; each has to ask.

    Args:
        values: any numbers.
        device: where this rank computes.
    """
    if world_size() == 1:
        return values
    of_all = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(of_all, dist.ReduceOp.MAX)
    return of_all.tolist()


class Question:
    """Whether any rank wants something, asked of all once in a while, and not in every step.

    Clocks differ, and a signal may reach one rank only; but all have to act after the same step.

    Args:
        every_s: that while, in seconds.
    """

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self._steps_until_asked = self._steps_between = 1
        self._asked_at = time.monotonic()

    def after_step(self, wanted: bool, device: torch.device) -> bool:
        """Whether any rank wants it, if this is a step after which they are asked.

        Args:
            wanted: by this one.
            device: where this rank computes.
        """
        if world_size() == 1:
            return wanted
        self._steps_until_asked -= 1
        if self._steps_until_asked:
            return False
        step_s = (time.monotonic() - self._asked_at) / self._steps_between
        by_any, step_s = greatest([wanted, step_s], device)
        # All know the same duration, so all count to the same step.
        self._steps_until_asked = self._steps_between = max(1, round(self.every_s / step_s))
        self._asked_at = time.monotonic()
        return bool(by_any)

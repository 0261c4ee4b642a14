"""`Sequential`: learning-rate schedules one after the other, given by a config."""

from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, SequentialLR

from mnist_lit.errors import UserError, one_line
from mnist_lit.models import find_class


class Sequential(SequentialLR):
    """torch's SequentialLR, whose schedules a config can name.

    Args:
        optimizer: whose learning rate is set.
        schedulers: each a mapping with ``class_path``, of torch.optim.lr_scheduler or an import
            path, and ``init_args``.
        milestones: epochs or steps at which the next one takes over.

    Raises:
        UserError: one of them cannot be made.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list[dict[str, Any]], milestones: list[int]
    ) -> None:
        super().__init__(optimizer, [_make(optimizer, spec) for spec in schedulers], milestones)


def _make(optimizer: Optimizer, spec: dict[str, Any]) -> LRScheduler:
    path = str(spec.get("class_path"))
    known = getattr(torch.optim.lr_scheduler, path, None)
    scheduler_class: Any = known or find_class(path, LRScheduler)
    try:
        scheduler: LRScheduler = scheduler_class(optimizer, **(spec.get("init_args") or {}))
    except (TypeError, ValueError) as error:
        raise UserError(f"lr_scheduler {path}: {one_line(error)}") from error
    return scheduler

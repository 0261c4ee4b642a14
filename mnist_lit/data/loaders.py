"""Batches in an order that a run can go on in."""

import math
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from mnist_lit.data.images import Batch, ImageSet


class EpochShuffle(Sampler[Tensor]):
    """Batches of positions, in a new order every epoch, set by the seed and the epoch's number.

    Args:
        size: how many images.
        batch_size: how many of them a batch has; the last one may have fewer.
        seed: two samplers of one seed give the same orders.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.epoch = 0
        self.start = 0  # how many batches of the epoch are done already

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.size / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # Seeded by both, not by their sum: epoch 1 of seed 1 is not epoch 0 of seed 2.
        mixed = random.Random(f"{self.seed} {self.epoch}").getrandbits(63)
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(mixed))
        start, self.start = self.start, 0
        yield from torch.split(order, self.batch_size)[start:]


class ResumableLoader(DataLoader[Batch]):
    """A loader of training batches that can go on in the middle of an epoch.

    Lightning puts `state_dict` into every checkpoint and gives it back on resuming.
    """

    def __init__(self, dataset: ImageSet, sampler: EpochShuffle, **kwargs: Any) -> None:
        super().__init__(dataset, sampler=sampler, **kwargs)
        self._shuffle = sampler
        self._batches_done = 0
        self._batches_to_skip = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._batches_done, self._batches_to_skip = self._batches_to_skip, 0
        self._shuffle.start = self._batches_done
        for batch in super().__iter__():
            self._batches_done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        finished = self._batches_done >= len(self)
        return {
            "seed": self._shuffle.seed,
            "epoch": self._shuffle.epoch + finished,
            "batches_done": 0 if finished else self._batches_done,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._shuffle.seed = state["seed"]
        self._shuffle.epoch = state["epoch"]
        self._batches_to_skip = state["batches_done"]

"""Samplers and a loader that resume in the middle of an epoch."""

import math
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from mnist_lit.data.images import Batch, ImageSet
from mnist_lit.errors import UserError

CPU = torch.device("cpu")


class EpochShuffle(DistributedSampler[Tensor]):
    """Batches of positions, in a new order every epoch, set by the seed and the epoch's number.

    Each rank gets a share of every batch, so a step covers the same images with any number of
    ranks, and each image comes once per epoch. Lightning does not wrap a DistributedSampler in
    its own, which would pad shares with duplicates.

    Args:
        size: how many images.
        batch_size: how many of them a batch has, over all processes; the last one may have fewer.
        seed: two samplers of one seed give the same orders.
        rank: which process this is, counted from 0.
        num_ranks: how many there are.
        device: where the positions are needed; the orders are the same for all devices.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        device: torch.device = CPU,
    ) -> None:
        super().__init__(range(size), num_ranks, rank, seed=seed)  # type: ignore[arg-type]
        self.size, self.batch_size, self.device = size, batch_size, device
        self.start = 0  # how many batches of the epoch are done already

    def __len__(self) -> int:
        return math.ceil(self.size / self.batch_size)

    def num_images(self, batch_idx: int) -> int:
        """Return the size of a batch of the epoch, over all processes."""
        return min(self.batch_size, self.size - batch_idx * self.batch_size)

    def weight(self, batch_idx: int) -> float:
        """Return the factor for this rank's mean loss.

        DDP averages ranks equally, although shares differ in size; with this factor, the average is
        the mean over the batch.
        """
        num_images = self.num_images(batch_idx)
        return len(range(self.rank, num_images, self.num_replicas)) * self.num_replicas / num_images

    def __iter__(self) -> Iterator[Tensor]:
        # Seeded by both, not by their sum: epoch 1 of seed 1 is not epoch 0 of seed 2.
        mixed = random.Random(f"{self.seed} {self.epoch}").getrandbits(63)
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(mixed))
        # The whole order at once: a copy in every step would make the host wait for the GPU.
        order = order.to(self.device)
        start, self.start = self.start, 0
        for batch in torch.split(order, self.batch_size)[start:]:
            share = batch[self.rank :: self.num_replicas]
            # If the last batch has fewer images than ranks, the others take one with weight 0.
            yield share if len(share) else batch[:1]


class EvalShare(DistributedSampler[Tensor]):
    """Batches of positions, in their order; a process gets its share of each, which may be nothing.

    Args:
        size: how many images, over all processes.
        batch_size: how many of them a batch has.
        rank: which process this is, counted from 0.
        num_ranks: how many there are; all get at least one image, if there are enough.
        device: where the positions are needed.
    """

    def __init__(
        self, size: int, batch_size: int, rank: int, num_ranks: int, device: torch.device = CPU
    ) -> None:
        super().__init__(range(size), num_ranks, rank)  # type: ignore[arg-type]
        batches = torch.split(torch.arange(size, device=device), batch_size)
        shares = [batch[rank::num_ranks] for batch in batches]
        self._shares = [share for share in shares if len(share)]

    def __len__(self) -> int:
        return len(self._shares)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._shares)


class ResumableLoader(DataLoader[Batch]):
    """A loader of training batches that can resume in the middle of an epoch.

    Lightning puts `state_dict` into every checkpoint and gives it back on resuming.
    """

    def __init__(self, dataset: ImageSet, sampler: EpochShuffle, **kwargs: Any) -> None:
        super().__init__(dataset, sampler=sampler, **kwargs)
        self._shuffle = sampler
        self._batches_done = 0
        self._batches_to_skip: dict[int, int] = {}  # by the number of the epoch

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._batches_done = self._batches_to_skip.pop(self._shuffle.epoch, 0)
        self._shuffle.start = self._batches_done
        for batch in super().__iter__():
            self._batches_done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        finished = self._batches_done >= len(self)
        return {
            "num_images": self._shuffle.size,
            "seed": self._shuffle.seed,
            "epoch": self._shuffle.epoch + finished,
            "batches_done": 0 if finished else self._batches_done,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        before, now = state.get("num_images", self._shuffle.size), self._shuffle.size
        if before != now:
            raise UserError(
                f"this run is trained on {before} images, and there are {now} now: restore the"
                " data, or start a new run without --ckpt_path"
            )
        self._shuffle.seed = state["seed"]
        self._shuffle.epoch = state["epoch"]
        self._batches_to_skip = {state["epoch"]: state["batches_done"]}

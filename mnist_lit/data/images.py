"""Images with their labels, wherever they are: in memory, or in files."""

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mnist_lit.reading.preprocessing import Preprocessing

Batch = tuple[Tensor, Tensor]
"""Images ``(B, C, H, W)`` and labels ``(B,)``; with `no_digits`, training batches have the shares
of all classes instead of labels, ``(B, K)``."""


class Pixels(Protocol):
    """Images that can be taken by their numbers: a tensor, or what reads files."""

    def __len__(self) -> int: ...

    def __getitem__(self, numbers: Tensor, /) -> Tensor:
        """From numbers, ``(B,)`` int64, to images, ``(B, C, H, W)`` uint8."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A data set.

    Attributes:
        train: images to learn from, N of them, and their labels, ``(N,)`` int64.
        test: the same of those that are held out.
        classes: what the labels mean, K names.
        val: the same as `train` of a validation set; None: a part of `train` is split off.
        preprocessing: from picture files to these images; None: they were no files.
    """

    train: tuple[Pixels, Tensor]
    test: tuple[Pixels, Tensor]
    classes: tuple[str, ...]
    val: tuple[Pixels, Tensor] | None = None
    preprocessing: Preprocessing | None = None


class ImageSet(Dataset[Batch]):
    """Some of many images, taken by whole batches.

    Args:
        images: N of them.
        labels: ``(N,)`` int64.
        indices: which of them belong to the set, ``(M,)`` int64.
    """

    def __init__(self, images: Pixels, labels: Tensor, indices: Tensor) -> None:
        self.images, self.labels, self.indices = images, labels, indices

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def pixels(self) -> Tensor:
        """All images that the set is a part of, ``(N, C, H, W)`` uint8, if they are in memory."""
        if not isinstance(self.images, Tensor):
            raise TypeError("these images are read from their files: take some by their numbers")
        return self.images

    @property
    def chosen_labels(self) -> Tensor:
        """The labels of the set, in its order, ``(M,)``."""
        return self.labels[self.indices]

    def to(self, device: torch.device) -> Self:
        """Copy the set to a device: batches are then gathered there, with nothing to transfer.

        Args:
            device: where batches are used.

        Returns:
            A set of the same images in the same order; this one if its images are read from files.
        """
        if not isinstance(self.images, Tensor):
            return self
        images, labels = self.images[self.indices].to(device), self.chosen_labels.to(device)
        return type(self)(images, labels, torch.arange(len(self), device=device))

    def __getitem__(self, positions: Tensor) -> Batch:
        chosen = self.indices[positions]
        return self.images[chosen], self.labels[chosen]

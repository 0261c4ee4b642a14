"""Images with their labels, wherever they are: in memory, or in files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mnist_lit.reading.preprocessing import Preprocessing

Batch = tuple[Tensor, Tensor]
"""Images ``(B, C, H, W)`` and labels ``(B,)``; with `negatives`, training batches have soft labels,
``(B, K)``."""


TEST_SHARE = 1 / 7  # of data without a test set: as many as of MNIST


class ImageSource(Protocol):
    """Images that are indexed by a tensor of indices: a tensor, or a reader of files."""

    def __len__(self) -> int: ...

    def __getitem__(self, numbers: Tensor, /) -> Tensor:
        """From numbers, ``(B,)`` int64, to images, ``(B, C, H, W)`` uint8."""
        ...


Labelled = tuple[ImageSource, Tensor]
"""N images, and their labels, ``(N,)`` int64."""


@dataclass(frozen=True)
class RawDataset:
    """A data set.

    Attributes:
        train: images to learn from, N of them, and their labels, ``(N,)`` int64.
        test: the same of those that are held out.
        classes: names of the labels, K.
        val: the same as `train` of a validation set; None: a part of `train` is split off.
        preprocessing: from picture files to these images; None: they were no files.
    """

    train: Labelled
    test: Labelled
    classes: tuple[str, ...]
    val: Labelled | None = None
    preprocessing: Preprocessing | None = None


class ImageSet(Dataset[Batch]):
    """A subset of images, indexed by batches of positions.

    Args:
        images: N of them.
        labels: ``(N,)`` int64.
        indices: which of them belong to the set, ``(M,)`` int64.
    """

    def __init__(self, images: ImageSource, labels: Tensor, indices: Tensor) -> None:
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
        """Labels of this subset, in order, ``(M,)``."""
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


def as_tensors(given: Any) -> tuple[Tensor, Tensor]:
    """Convert arrays or tensors to images, ``(N, C, H, W)`` uint8, and labels, ``(N,)`` int64.

    Args:
        given: images ``(N, H, W)``, ``(N, C, H, W)`` or ``(N, H, W, C)``, uint8 or float in [0, 1],
            and labels ``(N,)``.

    Raises:
        ValueError: they are invalid.
    """
    if not (isinstance(given, tuple) and len(given) == 2):
        raise ValueError(f"it gives a {type(given).__name__}, not (images, labels)")
    images, labels = (
        part if isinstance(part, Tensor) else torch.as_tensor(np.asarray(part)) for part in given
    )
    labels = labels.long()
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise ValueError(f"images of the shape {tuple(images.shape)}, not (N, C, H, W) with H = W")
    if labels.shape != images.shape[:1] or not len(labels) or int(labels.min()) < 0:
        raise ValueError(f"{len(images)} images, but labels of the shape {tuple(labels.shape)}")
    if images.dtype != torch.uint8:
        if not 0 <= float(images.min()) <= float(images.max()) <= 1:
            raise ValueError("images are neither uint8 nor in [0, 1]")
        images = (images.float() * 255).round().byte()
    return images.contiguous(), labels


def check_shapes(sets: Sequence[Tensor]) -> None:
    """Check that the images of all sets have one shape.

    Raises:
        ValueError: they differ.
    """
    shapes = {tuple(images.shape[1:]) for images in sets}
    if len(shapes) > 1:
        raise ValueError(f"the sets' images differ in shape: {' and '.join(map(str, shapes))}")


def hold_out(num_images: int) -> tuple[Tensor, Tensor]:
    """Split off `TEST_SHARE` of some images; return the indices of those kept, and of the others.

    The split is the same on every machine.
    """
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(0))
    held_out, kept = torch.tensor_split(order, [max(1, round(TEST_SHARE * num_images))])
    return kept.sort()[0], held_out.sort()[0]

"""`PersonalDataModule`: corrected digits, among MNIST's so that those are not forgotten."""

from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from mnist_lit.data.folders import unreadable
from mnist_lit.data.images import Labelled, RawDataset
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.data.sources import load
from mnist_lit.errors import UserError
from mnist_lit.files import user_path
from mnist_lit.reading.limits import PictureError
from mnist_lit.reading.preprocessing import Preprocessing

HELD_OUT = 5  # one of so many corrections is held out for validation
NUM_VAL = 1000  # of MNIST's validation images


class PersonalDataModule(MNISTDataModule):
    """Corrections of ``serve --collect``, and images of MNIST.

    A fifth of the corrections is held out for validation, beside 1,000 of MNIST's validation
    images. The test images are MNIST's.

    Args:
        dataset: the folder, with sub-folders 0 to 9 of 28x28 pictures; some may be missing.
        replay: number of MNIST's training images that are trained on too.
        repeats: how often a correction is trained on in an epoch.
        **kwargs: of `MNISTDataModule`.
    """

    def __init__(
        self,
        dataset: str = "corrections",
        replay: PositiveInt = 5000,
        repeats: PositiveInt = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(dataset=dataset, **kwargs)
        self.replay, self.repeats = int(replay), int(repeats)

    def _load(self) -> RawDataset:
        if self._loaded is None:
            corrected, labels = _read_corrections(user_path(self.dataset))
            mnist = load("mnist", self.data_dir)
            kept, held_out = self._split(len(mnist.train[1]))
            generator = torch.Generator().manual_seed(self.split_seed)
            replayed = kept[torch.randperm(len(kept), generator=generator)[: self.replay]]
            order = torch.randperm(len(labels), generator=generator)
            is_val = torch.zeros(len(labels), dtype=torch.bool)
            is_val[order[: len(labels) // HELD_OUT]] = True
            learned = corrected[~is_val].repeat(self.repeats, 1, 1, 1)
            train = _joined(mnist.train, replayed, learned, labels[~is_val].repeat(self.repeats))
            val = _joined(mnist.train, held_out[:NUM_VAL], corrected[is_val], labels[is_val])
            self._loaded = RawDataset(train, mnist.test, mnist.classes, val)
        return self._loaded


def _read_corrections(folder: Path) -> tuple[Tensor, Tensor]:
    """Read all corrections, ``(N, 1, 28, 28)`` uint8, and their labels, ``(N,)``.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    files = [(path, digit) for digit in range(10) for path in sorted(folder.glob(f"{digit}/*.png"))]
    if not files:
        raise UserError(
            f"data.dataset {folder} has no corrections, 0/*.png to 9/*.png: make some on the page"
            " of `mnist-lit serve --collect FOLDER`"
        )
    read = Preprocessing(size=28)
    try:
        images = torch.stack([read(path) for path, _ in files])
    except PictureError as error:
        raise unreadable(error) from error
    return images, torch.tensor([digit for _, digit in files])


def _joined(mnist: Labelled, numbers: Tensor, corrected: Tensor, labels: Tensor) -> Labelled:
    """Join some of MNIST's images with corrected ones."""
    return torch.cat([mnist[0][numbers], corrected]), torch.cat([mnist[1][numbers], labels])

"""`MNISTDataModule`: split, loaders, and batches as floats in [0, 1]."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mnist_lit.data.augment import Augment
from mnist_lit.data.no_digits import no_digits
from mnist_lit.data.sources import SOURCES, DatasetName, default_data_dir, load
from mnist_lit.data.styles import with_styles
from mnist_lit.errors import UserError

Batch = tuple[Tensor, Tensor]
"""Images ``(B, 1, 28, 28)`` and labels ``(B,)``; with `no_digits`, training batches have the shares
of all classes instead of labels, ``(B, K)``."""

SETS = ("train", "val", "test")

EVAL_BATCH_SIZE = 100
"""Images a batch where nothing is learned: as many as a training step usually has. Larger ones are
no faster, and the C library would find room for them in new memory again and again."""


class ImageSet(Dataset[Batch]):
    """Images in memory, taken by whole batches.

    Args:
        images: ``(N, 1, 28, 28)`` uint8.
        labels: ``(N,)`` int64.
        indices: which of them belong to the set, ``(M,)`` int64.
    """

    def __init__(self, images: Tensor, labels: Tensor, indices: Tensor) -> None:
        self.images, self.labels, self.indices = images, labels, indices

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def chosen_labels(self) -> Tensor:
        """The labels of the set, in its order, ``(M,)``."""
        return self.labels[self.indices]

    def __getitem__(self, positions: Tensor) -> Batch:
        chosen = self.indices[positions]
        return self.images[chosen], self.labels[chosen]


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


class MNISTDataModule(LightningDataModule):
    """MNIST or a data set of its form: 60,000 images to train and validate on, 10,000 to test.

    Args:
        dataset: MNIST comes with the package; Fashion-MNIST is taken from Debian's package or
            downloaded.
        data_dir: folder for the extracted files, 55 MB; null: torch's cache folder.
        batch_size: images in a training batch.
        val_size: how many of the 60,000 training images are held out for validation.
        split_seed: which ones; the same on every machine, whatever else is seeded.
        num_workers: processes that load batches; with everything in memory, 0 is fastest.
        augment: random warps of the training images.
        augment_until: share of the epochs after which training images are left as they are.
        styles: share of the 1s, 7s and 9s among the training images that get strokes which much of
            the world gives them, and which are rare in MNIST.
        no_digits: share of training images that are made into what is no digit, and of which no
            class is to be likelier than another.
    """

    def __init__(
        self,
        dataset: DatasetName = "mnist",
        data_dir: str | None = None,
        batch_size: PositiveInt = 100,
        val_size: PositiveInt = 5000,
        split_seed: NonNegativeInt = 0,
        num_workers: NonNegativeInt = 0,
        augment: Augment = Augment(),  # noqa: B008, it is frozen
        augment_until: ClosedUnitInterval = 1.0,
        styles: ClosedUnitInterval = 0.0,
        no_digits: ClosedUnitInterval = 0.0,
    ) -> None:
        super().__init__()
        self.dataset: DatasetName = dataset
        self.data_dir = Path(data_dir).expanduser() if data_dir else default_data_dir()
        self.batch_size, self.val_size = batch_size, val_size
        self.split_seed, self.num_workers = split_seed, num_workers
        self.augment, self.augment_until = augment, float(augment_until)
        self.styles, self.no_digits = float(styles), float(no_digits)
        if (self.styles or self.no_digits) and self.classes != tuple("0123456789"):
            raise UserError("data.styles and data.no_digits are for digits: leave them at 0 here")
        self._sets: dict[str, ImageSet] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels 0 to 9 mean."""
        return SOURCES[self.dataset].classes

    def prepare_data(self) -> None:
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read and split the data; `mean` and `std` are those of the training images' pixels."""
        if self._sets:
            return
        images, labels = load(self.dataset, self.data_dir, train=True)
        if self.val_size >= len(images):
            raise UserError(
                f"data.val_size is {self.val_size}, but there are {len(images)} images"
                " to share between training and validation: take fewer"
            )
        generator = torch.Generator().manual_seed(self.split_seed)
        order = torch.randperm(len(images), generator=generator)
        test_images, test_labels = load(self.dataset, self.data_dir, train=False)
        self._sets = {
            "train": ImageSet(images, labels, order[self.val_size :].sort().values),
            "val": ImageSet(images, labels, order[: self.val_size].sort().values),
            "test": ImageSet(test_images, test_labels, torch.arange(len(test_images))),
        }
        self.mean, self.std = _pixel_statistics(self._sets["train"])

    def train_dataloader(self) -> ResumableLoader:
        images = self._sets["train"]
        shuffle = EpochShuffle(len(images), self.batch_size, seed=torch.initial_seed())
        return ResumableLoader(images, shuffle, **self._loader_options())

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("test")

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """All images, in the order of `SETS` and of each set."""
        return [self._eval_loader(name) for name in SETS]

    def images(self, name: str) -> ImageSet:
        """The images of one of `SETS`, as they were before any batching."""
        return self._sets[name]

    def _eval_loader(self, name: str) -> DataLoader[Batch]:
        images = self._sets[name]
        batches = torch.split(torch.arange(len(images)), EVAL_BATCH_SIZE)
        return DataLoader(images, sampler=batches, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        return {
            "batch_size": None,  # the samplers say which positions make a batch
            "collate_fn": _as_it_is,
            "num_workers": self.num_workers,
            # A generator of its own: without one, each iteration draws from torch's global random
            # numbers, and a resumed run would no longer meet the same ones.
            "generator": torch.Generator(),
        }

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device: pixels from uint8 to float in [0, 1], warped if they are trained on."""
        images, labels = batch
        images = images.float() / 255
        if self.trainer is None or not self.trainer.training:
            return images, labels
        if self.styles:
            images = with_styles(images, labels, self.styles)
        if self.no_digits:
            images, labels = self._with_no_digits(images, labels)
        if self._is_augmenting(self.trainer):
            images = self.augment(images)
        return images, labels

    def _with_no_digits(self, images: Tensor, labels: Tensor) -> Batch:
        """Replace the first images of a batch, which is in random order."""
        num = math.ceil(self.no_digits * len(images))
        shares = F.one_hot(labels, len(self.classes)).float()
        shares[:num] = 1 / len(self.classes)
        return torch.cat([no_digits(images[:num]), images[num:]]), shares

    def _is_augmenting(self, trainer: Trainer) -> bool:
        num_epochs = trainer.max_epochs or -1  # -1: nobody knows when it ends
        return num_epochs < 0 or trainer.current_epoch < self.augment_until * num_epochs


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _pixel_statistics(images: ImageSet) -> tuple[float, float]:
    """Mean and standard deviation of all pixels in [0, 1], by counting the 256 values."""
    counts = torch.zeros(256, dtype=torch.int64)
    for chosen in torch.split(images.indices, 10_000):
        counts += torch.bincount(images.images[chosen].flatten(), minlength=256)
    values = torch.linspace(0, 1, 256, dtype=torch.float64)
    weights = counts.double() / counts.sum()
    mean = (weights * values).sum()
    variance = (weights * (values - mean) ** 2).sum()
    return mean.item(), variance.sqrt().item()

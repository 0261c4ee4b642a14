"""`MNISTDataModule`: split, loaders, and batches as floats in [0, 1]."""

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeInt,
    PositiveInt,
    restricted_number_type,
)
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mnist_lit.data.augment import Augment
from mnist_lit.data.downloads import DOWNLOADS
from mnist_lit.data.images import Batch, ImageSet, RawDataset
from mnist_lit.data.loaders import CPU, EpochShuffle, EvalShare, ResumableLoader
from mnist_lit.data.negatives import make_negatives
from mnist_lit.data.sources import default_data_dir, load
from mnist_lit.data.styles import with_styles
from mnist_lit.errors import UserError
from mnist_lit.files import user_path
from mnist_lit.models import ModuleSpec, Shape
from mnist_lit.models.characters import DIGITS
from mnist_lit.reading.preprocessing import Fit, Preprocessing

if TYPE_CHECKING:
    Count = int
    OpenShare = float
    Seed = int
else:
    OpenShare = restricted_number_type("OpenShare", float, [(">", 0), ("<=", 1)])
    Count = restricted_number_type("Count", int, [(">=", 1), ("<=", 10**9)])
    Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**63)])

SETS = ("train", "val", "test")
# Options that say which images a data set has and which are held out, also `PersonalDataModule`'s.
SELECTION = (
    *("dataset", "dataset_args", "data_dir", "image_size", "fit"),
    *("val_size", "split_seed", "fold", "subset", "replay", "repeats"),
)

EVAL_BATCH_SIZE = 100
"""Batch size for evaluation. Larger batches are no faster and make the C allocator request new
memory each time."""


class MNISTDataModule(LightningDataModule):
    """MNIST or any other data set of images: some to train and validate on, others to test.

    Args:
        dataset: mnist, which comes with the package; fashion_mnist, kmnist, qmnist, emnist_letters
            and other splits of EMNIST, which are downloaded; a folder with a sub-folder of pictures
            for each class, or with train, val and test, which each have these sub-folders; a folder
            of IDX files; a CSV file, label,pixel0,...; an npz file, x_train, y_train, ...; or the
            import path of a function, load(train: bool), that returns images and labels.
        dataset_args: further arguments of the function.
        data_dir: folder for downloaded data sets; null: torch's cache folder.
        image_size: height and width that images are brought to, in pixels; null: as they are;
            pictures in a folder: the shorter side of the first one, but 64 at most.
        fit: how pictures in a folder get square: crop cuts off their ends, pad adds black.
        batch_size: images in a training batch, over all processes.
        val_size: how many of the training images are held out for validation; not used where a
            folder of pictures has val, whose pictures are the validation images.
        split_seed: which ones; the same on every machine, whatever else is seeded.
        fold: 2/5: the validation images are the second of five parts of the training images, in
            place of val_size.
        subset: share of the images to train on that is used, the same of each class; validation
            and test images stay all.
        num_workers: processes that load batches; with everything in memory, 0 is fastest.
        augment: random warps of the training images.
        augment_until: share of the epochs after which training images are left as they are.
        transform: any torch.nn.Module that changes training batches, (B, C, H, W) in [0, 1], on the
            device, by its import path; after `augment`.
        styles: share of the 1s, 7s and 9s among the training images that get strokes which much of
            the world gives them, and which are rare in MNIST.
        negatives: share of each batch, rounded up, that is replaced by non-digits, with a uniform
            target over the classes.
    """

    def __init__(
        self,
        dataset: str = "mnist",
        dataset_args: dict[str, Any] | None = None,
        data_dir: str | None = None,
        image_size: PositiveInt | None = None,
        fit: Fit = "crop",
        batch_size: Count = 100,
        val_size: Count = 5000,
        split_seed: Seed = 0,
        fold: str | None = None,
        subset: OpenShare = 1.0,
        num_workers: NonNegativeInt = 0,
        augment: Augment = Augment(),  # noqa: B008, it is frozen
        augment_until: ClosedUnitInterval = 1.0,
        transform: nn.Module | None = None,
        styles: ClosedUnitInterval = 0.0,
        negatives: ClosedUnitInterval = 0.0,
    ) -> None:
        super().__init__()
        self.dataset, self.dataset_args = dataset, dataset_args
        self._asked_size, self._fit = image_size, fit
        self.fold, self.subset = _parse_fold(fold), float(subset)
        self.data_dir = user_path(data_dir) if data_dir else default_data_dir()
        self.batch_size, self.val_size = batch_size, val_size
        self.split_seed, self.num_workers = split_seed, num_workers
        self.augment, self.augment_until = augment, float(augment_until)
        self.transform = (
            transform.build(Shape()) if isinstance(transform, ModuleSpec) else transform
        )
        self.styles, self.negatives = float(styles), float(negatives)
        if dataset in DOWNLOADS:  # before it is downloaded
            self._check_options(DOWNLOADS[dataset].classes)
        self._loaded: RawDataset | None = None
        self._sets: dict[str, ImageSet] = {}
        self._on_gpu: dict[str, ImageSet] = {}
        self.holds_test_back = False  # True: `images("test")` raises, during model selection

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._load().classes

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """C: 1, grey, or 3."""
        return int(self._first().shape[1])

    @property
    def image_size(self) -> int:
        """H and W, in pixels."""
        return int(self._first().shape[2])

    @property
    def preprocessing(self) -> Preprocessing:
        """From a picture to an image of this data set."""
        usual = Preprocessing.scaled(self.image_size, self.in_channels)
        return self._load().preprocessing or usual

    def _first(self) -> Tensor:
        return self._load().train[0][torch.tensor([0])]

    def _load(self) -> RawDataset:
        """Load the data set on first use.

        Raises:
            UserError: it is missing or invalid.
        """
        if self._loaded is None:
            self._loaded = load(
                self.dataset, self.data_dir, self._asked_size, self._fit, self.dataset_args
            )
            self._check_options(self._loaded.classes)
        return self._loaded

    def _check_options(self, classes: tuple[str, ...]) -> None:
        if (self.styles or self.negatives) and classes != DIGITS:
            raise UserError("data.styles and data.negatives are for digits: leave them at 0 here")

    def setup(self, stage: str | None = None) -> None:
        """Read and split the data; `mean` and `std` are those of the training images' pixels."""
        if self._sets:
            return
        loaded = self._load()
        images, labels = loaded.train
        test_images, test_labels = loaded.test
        if loaded.val is None:
            kept, held_out = self._split(len(images))
            val = ImageSet(images, labels, held_out)
        else:
            if self.fold:
                raise UserError(f"data.fold: {self.dataset} has its own validation images")
            kept = torch.arange(len(images))
            val = ImageSet(*loaded.val, torch.arange(len(loaded.val[1])))
        if self.subset < 1:
            kept = self._subset(kept, labels)
        self._sets = {
            "train": ImageSet(images, labels, kept),
            "val": val,
            "test": ImageSet(test_images, test_labels, torch.arange(len(test_images))),
        }
        self.mean, self.std = _pixel_statistics(self._sets["train"])

    def _split(self, num_images: int) -> tuple[Tensor, Tensor]:
        """Split training images into those that are kept and those held out for validation.

        Raises:
            UserError: there are too few.
        """
        generator = torch.Generator().manual_seed(self.split_seed)
        order = torch.randperm(num_images, generator=generator)
        if self.fold:
            number, num_folds = self.fold
            if num_folds > num_images:
                raise UserError(f"data.fold: {num_images} images are too few for {num_folds} parts")
            folds = list(torch.tensor_split(order, num_folds))
            held_out = folds.pop(number - 1)
            return torch.cat(folds).sort().values, held_out.sort().values
        if self.val_size >= num_images:
            raise UserError(
                f"data.val_size is {self.val_size}, but there are {num_images} images"
                " to share between training and validation: take fewer"
            )
        return order[self.val_size :].sort().values, order[: self.val_size].sort().values

    def _subset(self, kept: Tensor, labels: Tensor) -> Tensor:
        """Choose a share of some images, by their numbers; one at least of each class."""
        generator = torch.Generator().manual_seed(self.split_seed)
        shuffled = kept[torch.randperm(len(kept), generator=generator)]
        of_classes = [shuffled[labels[shuffled] == label] for label in range(self.num_classes)]
        of_classes = [some for some in of_classes if len(some)]
        chosen = [some[: max(1, round(self.subset * len(some)))] for some in of_classes]
        return torch.cat(chosen).sort().values

    def train_dataloader(self) -> ResumableLoader:
        images = self._on_device("train")
        seed, device = torch.initial_seed(), images.indices.device
        shuffle = EpochShuffle(len(images), self.batch_size, seed, *self._rank_of_ranks(), device)
        return ResumableLoader(images, shuffle, **self._loader_options())

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("test")

    def predict_dataloader(self) -> list[DataLoader[Batch]]:
        """All images, in the order of `SETS` and of each set."""
        return [self._eval_loader(name) for name in SETS]

    def images(self, name: str) -> ImageSet:
        """The images of one of `SETS`, as they were before any batching.

        Raises:
            RuntimeError: they are held back.
        """
        if name == "test" and self.holds_test_back:
            raise RuntimeError("test images are held back until everything is chosen")
        return self._sets[name]

    def _eval_loader(self, name: str) -> DataLoader[Batch]:
        images = self._on_device(name)
        rank, num_ranks = self._rank_of_ranks()
        if len(images) < num_ranks:
            raise UserError(f"{name}: {len(images)} images are too few for {num_ranks} processes")
        device = images.indices.device
        share = EvalShare(len(images), EVAL_BATCH_SIZE, rank, num_ranks, device)
        return DataLoader(images, sampler=share, **self._loader_options())

    def _on_device(self, name: str) -> ImageSet:
        """Keep the images of one of `SETS` on the GPU that trains, if they fit there.

        Returns:
            The set, on the GPU or, without one, where it was.
        """
        images = self.images(name)
        device = self.trainer.strategy.root_device if self.trainer else CPU
        if device.type != "cuda" or self.num_workers:  # worker processes cannot share the GPU's
            return images
        if name not in self._on_gpu:
            free_bytes, _ = torch.cuda.mem_get_info(device)
            num_bytes = len(images) * self._first().numel()
            self._on_gpu[name] = images.to(device) if num_bytes < free_bytes / 4 else images
        return self._on_gpu[name]

    def _rank_of_ranks(self) -> tuple[int, int]:
        """Return this process's rank and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader_options(self) -> dict[str, Any]:
        return {
            "batch_size": None,  # the samplers yield whole batches
            "collate_fn": _as_it_is,
            "num_workers": self.num_workers,
            # A generator of its own: without one, each iteration draws from torch's global random
            # numbers, and a resumed run would no longer meet the same ones.
            "generator": torch.Generator(),
        }

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device: pixels from uint8 to float in [0, 1], warped if they are trained on."""
        if isinstance(batch, Tensor):  # Lightning's example for summaries and graphs
            return batch
        images, labels = batch
        images = images.float() / 255
        if self.trainer is None or not self.trainer.training:
            return images, labels
        if self.styles:
            images = with_styles(images, labels, self.styles)
        if self.negatives:
            images, labels = self._with_negatives(images, labels)
        if self._is_augmenting(self.trainer):
            images = self.augment(images)
            if self.transform is not None:
                images = self.transform(images)
        return images, labels

    def _with_negatives(self, images: Tensor, labels: Tensor) -> Batch:
        """Replace the first images of a batch, which is in random order, in each process."""
        rank, num_ranks = self._rank_of_ranks()
        num_in_all = math.ceil(self.negatives * min(self.batch_size, len(images) * num_ranks))
        num = len(range(rank, num_in_all, num_ranks))
        shares = F.one_hot(labels, len(self.classes)).float()
        shares[:num] = 1 / len(self.classes)
        return torch.cat([make_negatives(images[:num]), images[num:]]), shares

    def _is_augmenting(self, trainer: Trainer) -> bool:
        num_epochs = trainer.max_epochs or -1  # -1: nobody knows when it ends
        return num_epochs < 0 or trainer.current_epoch < self.augment_until * num_epochs


def _parse_fold(text: str | None) -> tuple[int, int] | None:
    """Parse ``2/5``: the number of a part, from 1 on, and how many there are.

    Raises:
        UserError: it is something else.
    """
    if text is None:
        return None
    number, _, num_folds = text.partition("/")
    if not (number.isdecimal() and num_folds.isdecimal()) or not (
        1 <= int(number) <= int(num_folds) >= 2
    ):
        raise UserError(f"data.fold {text}: give a part and how many there are, 2/5")
    return int(number), int(num_folds)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _pixel_statistics(images: ImageSet) -> tuple[float, float]:
    """Compute mean and standard deviation of pixels in [0, 1]; of files, from some 10,000."""
    counts = torch.zeros(256, dtype=torch.int64)
    # Files are sorted by class.
    step = 1 if isinstance(images.images, Tensor) else math.ceil(len(images) / 10_000)
    for chosen in torch.split(images.indices[::step], 10_000):
        counts += torch.bincount(images.images[chosen].flatten(), minlength=256)
    values = torch.linspace(0, 1, 256, dtype=torch.float64)
    weights = counts.double() / counts.sum()
    mean = (weights * values).sum()
    variance = (weights * (values - mean) ** 2).sum()
    return mean.item(), variance.sqrt().item()

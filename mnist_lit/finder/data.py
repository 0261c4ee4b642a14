"""`PagesDataModule`: pages drawn on the fly, each of them once."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_lit.data.images import Batch, ImageSet
from mnist_lit.data.loaders import EpochShuffle, ResumableLoader
from mnist_lit.data.module import SETS, Count, MNISTDataModule, Seed
from mnist_lit.data.styles import STROKES, Stroke, with_styles
from mnist_lit.finder.page import Page
from mnist_lit.finder.pages import Drawer
from mnist_lit.finder.targets import batch_of

STYLES = {
    **STROKES,
    1: (Stroke(at=(0.0, 0.0), angle_deg=(115, 160), ahead=(0.2, 1.0)), *STROKES[1][1:]),
    3: (Stroke(at=(1.0, 1.0), angle_deg=(135, 200), ahead=(0.15, 1.0)),),  # a tail
}
ROOM = 10  # pixels around MNIST's images, for strokes that go beyond them
AT_ONCE = 5000  # digits that get other strokes; of more, the tensors take memory
EVAL_PAGES = 480


class PageSet(ImageSet):
    """Pages with the digits of a set, by their numbers; the same number, the same page.

    Args:
        digits: what is drawn on them.
        num_pages: how many there are; numbers may go beyond.
        seed: of all of them; two numbers.
        styles: share of the 1s, 3s, 7s and 9s that get strokes which are rare in MNIST.
    """

    def __init__(
        self, digits: ImageSet, num_pages: int, seed: tuple[int, int], styles: float
    ) -> None:
        super().__init__(digits.images, digits.labels, digits.indices)
        self.num_pages, self.seed, self.styles = num_pages, seed, styles
        self._drawer: Drawer | None = None  # until a page is asked for

    def __len__(self) -> int:
        return self.num_pages

    def __getitem__(self, positions: Tensor) -> Batch:
        """Pages ``(B, 1, H, W)`` float in [0, 1], and what is on them; see `batch_of`."""
        return batch_of([self.page(number) for number in positions.tolist()])

    def page(self, number: int) -> Page:
        """One of them."""
        return self._made_drawer().draw(np.random.default_rng([*self.seed, number]))

    def _made_drawer(self) -> Drawer:
        if self._drawer is None:
            images, labels = F.pad(self.pixels[self.indices], [ROOM] * 4), self.chosen_labels
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                for some in torch.split(torch.arange(len(images)), AT_ONCE):
                    styled = with_styles(images[some] / 255, labels[some], self.styles, STYLES)
                    images[some] = (styled * 255).round().byte()
            self._drawer = Drawer(images, labels)
        return self._drawer


class NewPages(EpochShuffle):
    """Numbers that go on from epoch to epoch: no page comes twice."""

    def __iter__(self) -> Iterator[Tensor]:
        first = self.epoch * self.size
        start, self.start = self.start, 0
        yield from torch.split(torch.arange(first, first + self.size), self.batch_size)[start:]


class PagesDataModule(MNISTDataModule):
    """Pages drawn with MNIST's digits.

    Args:
        data_dir: folder for files that are extracted; null: torch's cache folder.
        batch_size: pages in a training batch.
        num_pages: of a training epoch; the next one has others.
        val_size: how many of the training digits are held out for the pages of the validation.
        split_seed: which ones; the same on every machine, whatever else is seeded.
        num_workers: processes that draw.
        styles: share of the 1s, 3s, 7s and 9s that get strokes which much of the world gives them,
            and which are rare in MNIST.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        batch_size: Count = 24,
        num_pages: PositiveInt = 6000,
        val_size: Count = 5000,
        split_seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
        styles: ClosedUnitInterval = 0.35,
    ) -> None:
        super().__init__(
            data_dir=data_dir,
            batch_size=batch_size,
            val_size=val_size,
            split_seed=split_seed,
            num_workers=num_workers,
        )
        self.num_pages, self.page_styles = num_pages, float(styles)

    def setup(self, stage: str | None = None) -> None:
        if self._sets:
            return
        super().setup(stage)
        sizes = (self.num_pages, EVAL_PAGES, EVAL_PAGES)
        for number, (name, size) in enumerate(zip(SETS, sizes, strict=True)):
            seed = torch.initial_seed() if name == "train" else 0
            digits = self._sets[name]
            self._sets[name] = PageSet(digits, size, (seed, number), self.page_styles)

    def train_dataloader(self) -> ResumableLoader:
        pages = self._sets["train"]
        new = NewPages(len(pages), self.batch_size, seed=0)
        return ResumableLoader(pages, new, **self._loader_options())

    def _eval_loader(self, name: str) -> DataLoader[Batch]:
        pages = self.images(name)
        positions = list(torch.split(torch.arange(len(pages)), self.batch_size))
        return DataLoader(pages, sampler=positions, **self._loader_options())

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch

    def page(self, name: str, number: int) -> Page:
        """A page of one of `SETS`."""
        pages = self.images(name)
        assert isinstance(pages, PageSet)
        return pages.page(number)

"""`SheetDataModule`: synthetic sheets, drawn while training, each used once."""

from collections.abc import Iterator
from pathlib import Path

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
from mnist_lit.errors import UserError
from mnist_lit.files import user_path
from mnist_lit.synthetic.glyphs import font_files
from mnist_lit.synthetic.layouts import SheetDrawer
from mnist_lit.synthetic.letters import letter_file
from mnist_lit.synthetic.sheet import Sheet
from mnist_lit.synthetic.targets import batch_of

STYLES = {
    **STROKES,
    1: (Stroke(at=(0.0, 0.0), angle_deg=(115, 160), ahead=(0.2, 1.0)), *STROKES[1][1:]),
    3: (Stroke(at=(1.0, 1.0), angle_deg=(135, 200), ahead=(0.15, 1.0)),),  # a tail
}
PADDING_PX = 10  # around MNIST's images, for strokes that go beyond them
CHUNK = 5000  # digits that get other strokes at once; of more, the tensors take memory
NUM_EVAL_SHEETS = 480


class SheetSet(ImageSet):
    """Sheets with the digits of a set; the same number gives the same sheet.

    Args:
        digits: the digits to draw with.
        num_sheets: the set's length; larger numbers are valid too.
        seed: two numbers, for all sheets.
        styles: share of the 1s, 3s, 7s and 9s that get strokes which are rare in MNIST.
        fonts: files of handwriting fonts.
        letters: package with handwritten letters.
    """

    def __init__(
        self,
        digits: ImageSet,
        num_sheets: int,
        seed: tuple[int, int],
        styles: float,
        fonts: tuple[Path, ...],
        letters: Path | None,
    ) -> None:
        super().__init__(digits.images, digits.labels, digits.indices)
        self.num_sheets, self.seed, self.styles = num_sheets, seed, styles
        self.fonts, self.letters = fonts, letters
        self._drawer: SheetDrawer | None = None  # made for the first sheet

    def __len__(self) -> int:
        return self.num_sheets

    def __getitem__(self, positions: Tensor) -> Batch:
        """Draw sheets and targets; see `batch_of`."""
        return batch_of([self.sheet(number) for number in positions.tolist()])

    def sheet(self, number: int) -> Sheet:
        """Draw one sheet."""
        return self._made_drawer().draw(np.random.default_rng([*self.seed, number]))

    def _made_drawer(self) -> SheetDrawer:
        if self._drawer is None:
            images, labels = F.pad(self.pixels[self.indices], [PADDING_PX] * 4), self.chosen_labels
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                for some in torch.split(torch.arange(len(images)), CHUNK):
                    styled = with_styles(images[some] / 255, labels[some], self.styles, STYLES)
                    images[some] = (styled * 255).round().byte()
            self._drawer = SheetDrawer(images, labels, self.fonts, self.letters)
        return self._drawer


class NewSheets(EpochShuffle):
    """Sample numbers that continue from epoch to epoch, so that no sheet comes twice."""

    def __iter__(self) -> Iterator[Tensor]:
        first = self.epoch * self.size
        start, self.start = self.start, 0
        yield from torch.split(torch.arange(first, first + self.size), self.batch_size)[start:]


class SheetDataModule(MNISTDataModule):
    """Sheets drawn with MNIST's digits.

    Args:
        batch_size: sheets in a training batch.
        num_sheets: of a training epoch; the next one has others.
        val_size: number of training digits held out for the sheets of the validation.
        split_seed: of that choice; the same on every machine, whatever else is seeded.
        num_workers: processes that draw.
        styles: share of the 1s, 3s, 7s and 9s that get strokes which much of the world gives them,
            and which are rare in MNIST.
        fonts: folder of handwriting fonts for letters and signs, perhaps also of the package with
            handwritten letters that `mnist_lit.synthetic.letters` names; null: matplotlib's printed
            ones and strokes.
    """

    def __init__(
        self,
        batch_size: Count = 24,
        num_sheets: PositiveInt = 6000,
        val_size: Count = 5000,
        split_seed: Seed = 0,
        num_workers: NonNegativeInt = 0,
        styles: ClosedUnitInterval = 0.35,
        fonts: str | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            val_size=val_size,
            split_seed=split_seed,
            num_workers=num_workers,
        )
        self.num_sheets, self.sheet_styles, self.fonts = num_sheets, float(styles), fonts

    def setup(self, stage: str | None = None) -> None:
        if self._sets:
            return
        fonts = font_files(user_path(self.fonts)) if self.fonts else ()
        letters = letter_file(user_path(self.fonts)) if self.fonts else None
        if self.fonts and not fonts:
            raise UserError(f"data.fonts: no fonts (*.ttf, *.otf, *.woff) below {self.fonts}")
        super().setup(stage)
        sizes = (self.num_sheets, NUM_EVAL_SHEETS, NUM_EVAL_SHEETS)
        for number, (name, size) in enumerate(zip(SETS, sizes, strict=True)):
            seed = torch.initial_seed() if name == "train" else 0
            digits = self._sets[name]
            self._sets[name] = SheetSet(
                digits, size, (seed, number), self.sheet_styles, fonts, letters
            )

    def train_dataloader(self) -> ResumableLoader:
        sheets = self._sets["train"]
        new = NewSheets(len(sheets), self.batch_size, seed=0)
        return ResumableLoader(sheets, new, **self._loader_options())

    def _eval_loader(self, name: str) -> DataLoader[Batch]:
        sheets = self.images(name)
        positions = list(torch.split(torch.arange(len(sheets)), self.batch_size))
        return DataLoader(sheets, sampler=positions, **self._loader_options())

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch

    def sheet(self, name: str, number: int) -> Sheet:
        """Return a sheet of one of `SETS`."""
        sheets = self.images(name)
        assert isinstance(sheets, SheetSet)
        return sheets.sheet(number)

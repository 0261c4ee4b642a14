"""Folders of pictures, a sub-folder for each class."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mnist_lit.data.images import Loaded, Pixels
from mnist_lit.errors import UserError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP", "TIFF")
MAX_BYTES_IN_MEMORY = 2_000_000_000  # of all images as they are trained on; more stay in the files
LARGEST = 64  # pixels along each side, unless more are asked for
TEST_SHARE = 1 / 7  # of a folder that has no pictures to test: as many as of MNIST
NUM_THREADS = 2


class PictureFiles:
    """Images that are read whenever they are asked for.

    Args:
        paths: the files.
        size: height and width that they are brought to: what is longer is cut off on both sides.
        mode: Pillow's: L, grey, or RGB.
    """

    def __init__(self, paths: Sequence[Path], size: int, mode: str) -> None:
        self.paths, self.size, self.mode = paths, size, mode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, numbers: Tensor, /) -> Tensor:
        if not len(numbers):
            return torch.zeros(0, 1 if self.mode == "L" else 3, self.size, self.size).byte()
        return torch.stack([self._read(self.paths[number]) for number in numbers.tolist()])

    def in_memory(self) -> Tensor:
        """All of them, ``(N, C, H, W)`` uint8."""
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            return torch.stack(list(threads.map(self._read, self.paths)))

    def _read(self, path: Path) -> Tensor:
        try:
            with Image.open(path, formats=FORMATS) as image:
                upright = ImageOps.exif_transpose(image).convert(self.mode)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is no picture, or damaged: mend or remove it") from error
        fitted = np.asarray(ImageOps.fit(upright, (self.size, self.size)))
        pixels = torch.from_numpy(fitted.copy())
        return pixels[None] if self.mode == "L" else pixels.permute(2, 0, 1).contiguous()


def load_folder(folder: Path, image_size: int | None = None) -> Loaded:
    """A folder with a sub-folder for each class; or with two of these, ``train`` and ``test``.

    Of one that has no ``test``, a seventh is held out, the same ones on every machine.

    Args:
        folder: which.
        image_size: height and width that pictures are brought to; None: the shorter side of the
            first one, but 64 at most.

    Raises:
        UserError: it has no classes or no pictures, or one that cannot be read.
    """
    split = (folder / "train").is_dir() and (folder / "test").is_dir()
    train_folder = folder / "train" if split else folder
    classes = sorted(inside.name for inside in train_folder.iterdir() if inside.is_dir())
    if len(classes) < 2:
        raise UserError(f"{train_folder} has no sub-folders, one for each of two or more classes")
    files, labels = _files(train_folder, classes)
    size, mode = _form(files)
    size = image_size or min(LARGEST, size)
    pixels = _pixels(PictureFiles(files, size, mode))
    if split:
        test_files, test_labels = _files(folder / "test", classes)
        test = _pixels(PictureFiles(test_files, size, mode)), test_labels
        return Loaded((pixels, labels), test, tuple(classes))
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))
    held_out, kept = torch.tensor_split(order, [max(1, round(TEST_SHARE * len(files)))])
    parts = [(_some(pixels, some), labels[some]) for some in (kept.sort()[0], held_out.sort()[0])]
    return Loaded(parts[0], parts[1], tuple(classes))


def _files(folder: Path, classes: Sequence[str]) -> tuple[list[Path], Tensor]:
    """All pictures below a folder and their labels, sorted."""
    suffixes = {end for end, form in Image.registered_extensions().items() if form in FORMATS}
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = sorted(path for path in (folder / name).rglob("*") if path.is_file())
        found = [path for path in inside if path.suffix.lower() in suffixes]
        files += found
        labels += [label] * len(found)
    if not files:
        raise UserError(f"there are no pictures in the sub-folders of {folder}")
    return files, torch.tensor(labels)


def _form(files: Sequence[Path]) -> tuple[int, str]:
    """The shorter side of the first picture, and RGB if any is coloured, else L."""
    size, mode = 0, "L"
    for path in files:
        try:
            with Image.open(path, formats=FORMATS) as image:
                size = size or min(image.size)
                if image.mode not in ("1", "L", "LA", "I", "I;16", "F"):
                    mode = "RGB"
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"{path} is no picture, or damaged: mend or remove it") from error
    return size, mode


def _pixels(files: PictureFiles) -> Pixels:
    num_bytes = len(files) * files.size**2 * (1 if files.mode == "L" else 3)
    return files.in_memory() if num_bytes <= MAX_BYTES_IN_MEMORY else files


def _some(pixels: Pixels, numbers: Tensor) -> Pixels:
    if isinstance(pixels, PictureFiles):
        paths = [pixels.paths[number] for number in numbers.tolist()]
        return PictureFiles(paths, pixels.size, pixels.mode)
    return pixels[numbers]

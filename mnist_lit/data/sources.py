"""Load data sets by name, path or function, and verify the packaged ones."""

import gzip
import hashlib
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import MNIST, FashionMNIST

from mnist_lit.data.array_files import idx_files, load_csv, load_idx, load_npz
from mnist_lit.data.downloads import DOWNLOADS, NO_DOWNLOAD, cannot_keep, load_download
from mnist_lit.data.folders import load_folder
from mnist_lit.data.functions import load_function
from mnist_lit.data.images import Labelled, Loaded
from mnist_lit.errors import UserError
from mnist_lit.files import one_at_a_time, user_path
from mnist_lit.reading.preprocessing import Fit

ARRAY_FILES: Mapping[str, Callable[[Path], Loaded]] = {".csv": load_csv, ".npz": load_npz}


@dataclass(frozen=True)
class Source:
    """A data set in MNIST's form, whose four IDX files are known byte for byte.

    Attributes:
        dataset: the torchvision class that downloads, checks and reads it.
        local: a folder that may hold its four ``.gz`` files; asked before any mirror.
        sha256: of the four extracted files, by name.
        classes: what the labels 0 to 9 mean.
        how_to_get: for somebody without network, what to do.
    """

    dataset: type[MNIST]
    local: Path
    sha256: Mapping[str, str]
    classes: tuple[str, ...]
    how_to_get: str


SOURCES: Mapping[str, Source] = {
    "mnist": Source(
        dataset=MNIST,
        local=Path(__file__).parent / "mnist",
        sha256={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738"
            "ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5"
            "333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77"
            "db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351"
            "222c34898ecbeaf847f06e48f7ec33f2",
        },
        classes=tuple("0123456789"),
        how_to_get="install mnist-lit again: the files come with it",
    ),
    "fashion_mnist": Source(
        dataset=FashionMNIST,
        local=Path("/usr/share/datasets/fashion-mnist"),
        sha256={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f8388776"
            "8d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec29"
            "4ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe0"
            "87ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494"
            "c5af83dab82d92729df917d7dec38c34",
        },
        classes=tuple(FashionMNIST.classes),
        how_to_get="`apt-get install dataset-fashion-mnist` (Debian, Ubuntu),"
        " or go online and start again",
    ),
}


def default_data_dir() -> Path:
    """Return the default folder of data sets, in torch's cache folder."""
    return Path(torch.hub.get_dir()).parent / "mnist_lit"


def load(
    dataset: str,
    data_dir: Path,
    image_size: int | None = None,
    fit: Fit = "crop",
    args: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read a data set, fetching it first where it is missing.

    Args:
        dataset: the name of one of `SOURCES` or `DOWNLOADS`; a folder of pictures or IDX files; a
            file, .csv or .npz; or the import path of a function.
        data_dir: where extracted files are, or will be.
        image_size: height and width that images are brought to; None: as they are.
        fit: how pictures in a folder get square: crop or pad.
        args: further arguments of the function.

    Raises:
        UserError: it can be had nowhere, ``data_dir`` cannot be written, or it is no data set.
    """
    path = user_path(dataset)
    if args and (dataset in (*SOURCES, *DOWNLOADS) or path.exists()):
        raise UserError("data.dataset_args are for a function: leave them out here")
    if dataset in SOURCES:
        return _resized(_load_source(SOURCES[dataset], data_dir), image_size)
    if dataset in DOWNLOADS:
        return _resized(load_download(dataset, data_dir), image_size)
    if path.is_dir() and idx_files(path):
        return _resized(load_idx(path), image_size)
    if path.is_dir():
        return load_folder(path, image_size, fit)
    if path.suffix.lower() in ARRAY_FILES:
        return _resized(ARRAY_FILES[path.suffix.lower()](path), image_size)
    if "." in dataset and "/" not in dataset:
        return _resized(load_function(dataset, args or {}), image_size)
    raise UserError(
        f"data.dataset {dataset}: there is no such folder or file; known are"
        f" {', '.join([*SOURCES, *DOWNLOADS])}, and functions by their import path"
    )


def _resized(loaded: Loaded, side: int | None) -> Loaded:
    """Resize all images to a height and width."""
    if side is None:
        return loaded

    def resize(images: Any) -> Tensor:
        parts = [
            F.interpolate(part.float(), [side, side], mode="bilinear", antialias=True)
            for part in torch.split(images, 1000)
        ]
        return torch.cat([part.round().clamp(0, 255).byte() for part in parts])

    def resized(part: Labelled) -> Labelled:
        return resize(part[0]), part[1]

    val = resized(loaded.val) if loaded.val else None
    return Loaded(resized(loaded.train), resized(loaded.test), loaded.classes, val)


def _load_source(source: Source, data_dir: Path) -> Loaded:
    folder = _raw_folder(source, data_dir)
    try:
        if not _complete(source, folder):
            with one_at_a_time(folder):
                if not _complete(source, folder):
                    _fetch(source, data_dir)
    except OSError as error:
        raise cannot_keep(data_dir, error) from error
    train, test = (source.dataset(data_dir, train=train) for train in (True, False))
    return Loaded(
        (train.data.unsqueeze(1), train.targets),
        (test.data.unsqueeze(1), test.targets),
        source.classes,
    )


def _raw_folder(source: Source, data_dir: Path) -> Path:
    return data_dir / source.dataset.__name__ / "raw"  # where torchvision looks for them


def _complete(source: Source, folder: Path) -> bool:
    """Tell whether all four files are there and have the right checksums."""
    for name, expected in source.sha256.items():
        try:
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return False
        except FileNotFoundError:
            return False
    return True


def _fetch(source: Source, data_dir: Path, num_downloads: int = 3) -> None:
    """Fetch and extract into a folder of its own, then move each whole file into place.

    So a fetch that breaks off leaves nothing, and of two at once each leaves the same files.
    """
    folder = _raw_folder(source, data_dir)
    folder.mkdir(exist_ok=True)
    fetches: list[Callable[[Source, Path], None]] = [
        partial(_extract_local, data_dir),
        partial(_extract_local, source.local),
        *[_download] * num_downloads,
    ]
    for fetch in fetches:
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            fetched = _raw_folder(source, Path(temporary))
            fetch(source, Path(temporary))
            if _complete(source, fetched):
                for name in source.sha256:
                    os.replace(fetched / name, folder / name)
                return
    raise UserError(f"{source.dataset.__name__} cannot be had: {source.how_to_get}")


def _extract_local(place: Path, source: Source, root: Path) -> None:
    folder = _raw_folder(source, root)
    folder.mkdir(parents=True)
    for name in source.sha256:
        compressed = place / f"{name}.gz"
        if compressed.is_file():
            # What is damaged comes out wrong or not at all; the caller compares the contents.
            with (
                suppress(EOFError, gzip.BadGzipFile, zlib.error),
                gzip.open(compressed) as packed,
                (folder / name).open("wb") as extracted,
            ):
                shutil.copyfileobj(packed, extracted)


def _download(source: Source, root: Path) -> None:
    try:
        source.dataset(root, download=True)  # from any of torchvision's mirrors
    except NO_DOWNLOAD:
        time.sleep(1)  # before the next attempt

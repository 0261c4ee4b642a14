"""Data sets that torchvision downloads and checks."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

from torch import Tensor
from torchvision.datasets import EMNIST, KMNIST, QMNIST

from mnist_lit.data.images import Loaded
from mnist_lit.errors import UserError
from mnist_lit.files import one_at_a_time


@dataclass(frozen=True)
class Download:
    """A data set that torchvision downloads, verifies and reads.

    Attributes:
        make: function (folder, train, download) -> torchvision data set.
        classes: what the labels mean.
        first_label: of the first class.
        transposed: whether rows and columns have changed places.
    """

    make: Callable[[Path, bool, bool], Any]
    classes: tuple[str, ...]
    first_label: int = 0
    transposed: bool = False


def _emnist(split: str) -> Download:
    classes = [name for name in EMNIST.classes_split_dict[split] if name != "N/A"]
    return Download(
        lambda folder, train, download: EMNIST(folder, split, train=train, download=download),
        tuple(classes),
        first_label=1 if split == "letters" else 0,
        transposed=True,
    )


DOWNLOADS: Mapping[str, Download] = {
    "kmnist": Download(
        lambda folder, train, download: KMNIST(folder, train=train, download=download),
        tuple(KMNIST.classes),
    ),
    "qmnist": Download(
        lambda folder, train, download: QMNIST(folder, train=train, download=download),
        tuple("0123456789"),
    ),
    **{f"emnist_{split}": _emnist(split) for split in EMNIST.splits},
}


# What torchvision raises where there is no network, or a mirror gives something else.
NO_DOWNLOAD = (
    RuntimeError,
    URLError,
    EOFError,
    HTTPException,
    ConnectionError,
    TimeoutError,
)


def cannot_keep(data_dir: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot keep the data set in {data_dir} ({error.strerror or error});"
        " choose another folder with --data.data_dir"
    )


def load_download(name: str, data_dir: Path, num_downloads: int = 3) -> Loaded:
    download, folder = DOWNLOADS[name], data_dir / name
    try:
        if not folder.is_dir():
            with one_at_a_time(folder):
                _download(download, folder, num_downloads)
    except OSError as error:
        raise cannot_keep(data_dir, error) from error
    try:
        train, test = (_tensors(download, folder, train) for train in (True, False))
    except (RuntimeError, ValueError, OSError, EOFError) as error:
        raise UserError(f"{folder} is damaged: remove it, and start again") from error
    return Loaded(train, test, download.classes)


def _download(download: Download, folder: Path, num_downloads: int) -> None:
    for _ in range(num_downloads):
        if folder.is_dir():
            return
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            with suppress(*NO_DOWNLOAD):
                download.make(Path(temporary) / folder.name, True, True)
                download.make(Path(temporary) / folder.name, False, True)
                os.replace(Path(temporary) / folder.name, folder)
                return
            time.sleep(1)  # before the next attempt
    raise UserError(f"{folder.name} cannot be downloaded: go online and start again")


def _tensors(download: Download, folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    dataset = download.make(folder, train, False)
    images, labels = dataset.data, dataset.targets
    if labels.ndim > 1:  # QMNIST's say more than the class, which is the first
        labels = labels[:, 0]
    if download.transposed:
        images = images.transpose(-1, -2).contiguous()
    return images.unsqueeze(1), labels.long() - download.first_label

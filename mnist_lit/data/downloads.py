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
from torchvision.datasets import EMNIST, KMNIST, QMNIST, FashionMNIST

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
        otherwise: what to do without network.
    """

    make: Callable[[Path, bool, bool], Any]
    classes: tuple[str, ...]
    first_label: int = 0
    transposed: bool = False
    otherwise: str = ""


def _emnist(split: str) -> Download:
    classes = [name for name in EMNIST.classes_split_dict[split] if name != "N/A"]
    return Download(
        lambda folder, train, download: EMNIST(folder, split, train=train, download=download),
        tuple(classes),
        first_label=1 if split == "letters" else 0,
        transposed=True,
    )


DOWNLOADS: Mapping[str, Download] = {
    "fashion_mnist": Download(
        lambda folder, train, download: FashionMNIST(folder, train=train, download=download),
        tuple(FashionMNIST.classes),
        otherwise=", or, on Debian and Ubuntu, `apt-get install dataset-fashion-mnist`",
    ),
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


NUM_ATTEMPTS = 3
# What torchvision raises where there is no network, or a mirror gives something else.
NO_DOWNLOAD = (
    RuntimeError,
    URLError,
    EOFError,
    HTTPException,
    ConnectionError,
    TimeoutError,
)


def load_download(name: str, data_dir: Path) -> Loaded:
    """Read a data set; download it first if it is missing.

    Raises:
        UserError: it cannot be downloaded or kept, or is damaged.
    """
    download, folder = DOWNLOADS[name], data_dir / name
    try:
        if not folder.is_dir():
            with one_at_a_time(folder):
                _download(download, folder)
    except OSError as error:
        raise UserError(
            f"cannot keep the data set in {data_dir} ({error.strerror or error});"
            " choose another folder with --data.data_dir"
        ) from error
    try:
        train, test = (_tensors(download, folder, train) for train in (True, False))
    except (RuntimeError, ValueError, OSError, EOFError) as error:
        raise UserError(f"{folder} is damaged: remove it, and start again") from error
    return Loaded(train, test, download.classes)


def _download(download: Download, folder: Path) -> None:
    for _ in range(NUM_ATTEMPTS):
        if folder.is_dir():
            return
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            with suppress(*NO_DOWNLOAD):
                download.make(Path(temporary) / folder.name, True, True)
                download.make(Path(temporary) / folder.name, False, True)
                os.replace(Path(temporary) / folder.name, folder)
                return
            time.sleep(1)  # before the next attempt
    raise UserError(
        f"{folder.name} cannot be downloaded: go online and start again{download.otherwise}"
    )


def _tensors(download: Download, folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    dataset = download.make(folder, train, False)
    images, labels = dataset.data, dataset.targets
    if labels.ndim > 1:  # QMNIST's say more than the class, which is the first
        labels = labels[:, 0]
    if download.transposed:
        images = images.transpose(-1, -2).contiguous()
    return images.unsqueeze(1), labels.long() - download.first_label

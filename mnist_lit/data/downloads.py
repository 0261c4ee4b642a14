"""Data sets that torchvision downloads and checks."""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

from filelock import FileLock
from torch import Tensor
from torchvision.datasets import EMNIST, KMNIST, QMNIST, FashionMNIST

from mnist_lit.data.images import RawDataset
from mnist_lit.errors import UserError
from mnist_lit.models.characters import DIGITS


@dataclass(frozen=True)
class Download:
    """A data set that torchvision downloads, verifies and reads.

    Attributes:
        make: (folder, train=..., download=...) -> torchvision data set.
        classes: names of the labels.
        first_label: of the first class.
        transposed: True: its images are transposed.
        offline_hint: what to do without network.
    """

    make: Callable[..., Any]
    classes: tuple[str, ...]
    first_label: int = 0
    transposed: bool = False
    offline_hint: str = ""


def _emnist(split: str) -> Download:
    classes = [name for name in EMNIST.classes_split_dict[split] if name != "N/A"]
    return Download(
        partial(EMNIST, split=split),
        tuple(classes),
        first_label=1 if split == "letters" else 0,
        transposed=True,
    )


DOWNLOADS: Mapping[str, Download] = {
    "fashion_mnist": Download(
        FashionMNIST,
        tuple(FashionMNIST.classes),
        offline_hint=", or, on Debian and Ubuntu, `apt-get install dataset-fashion-mnist`",
    ),
    "kmnist": Download(KMNIST, tuple(KMNIST.classes)),
    "qmnist": Download(QMNIST, DIGITS),
    **{f"emnist_{split}": _emnist(split) for split in EMNIST.splits},
}

# What torchvision raises where there is no network, or a mirror gives something else.
NO_DOWNLOAD = RuntimeError, URLError, EOFError, HTTPException, ConnectionError, TimeoutError


def load_download(name: str, data_dir: Path) -> RawDataset:
    """Read a data set; download it first if it is missing.

    Raises:
        UserError: it cannot be downloaded or kept, or is damaged.
    """
    download, folder = DOWNLOADS[name], data_dir / name
    try:
        if not folder.is_dir():
            data_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(data_dir / f".{name}.lock"):
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
    return RawDataset(train, test, download.classes)


def _download(download: Download, folder: Path) -> None:
    if folder.is_dir():  # another process has downloaded it meanwhile
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        try:
            for train in (True, False):
                download.make(Path(temporary) / folder.name, train=train, download=True)
            os.replace(Path(temporary) / folder.name, folder)
        except NO_DOWNLOAD as error:
            raise UserError(
                f"{folder.name} cannot be downloaded: go online and start again"
                f"{download.offline_hint}"
            ) from error


def _tensors(download: Download, folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    dataset = download.make(folder, train=train, download=False)
    images, labels = dataset.data, dataset.targets
    if labels.ndim > 1:  # QMNIST's say more than the class, which is the first
        labels = labels[:, 0]
    if download.transposed:
        images = images.transpose(-1, -2).contiguous()
    return images.unsqueeze(1), labels.long() - download.first_label

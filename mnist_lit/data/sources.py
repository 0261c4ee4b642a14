"""Load data sets by name, path or function."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_lit.data.array_files import idx_files, load_csv, load_idx, load_npz
from mnist_lit.data.downloads import DOWNLOADS, load_download
from mnist_lit.data.folders import load_folder
from mnist_lit.data.functions import load_function
from mnist_lit.data.images import Labelled, RawDataset
from mnist_lit.errors import UserError
from mnist_lit.files import user_path
from mnist_lit.reading.preprocessing import Fit

PACKAGED_MNIST = Path(__file__).parent / "mnist"
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
ARRAY_FILES: Mapping[str, Callable[[Path], RawDataset]] = {".csv": load_csv, ".npz": load_npz}


def default_data_dir() -> Path:
    """Return the default folder of downloaded data sets, in torch's cache folder."""
    return Path(torch.hub.get_dir()).parent / "mnist_lit"


def load(
    dataset: str,
    data_dir: Path,
    image_size: int | None = None,
    fit: Fit = "crop",
    args: Mapping[str, Any] | None = None,
) -> RawDataset:
    """Read a data set; download it first if it is missing.

    Args:
        dataset: mnist, or the name of one of `DOWNLOADS`; a folder of pictures or IDX files; a
            file, .csv or .npz; or the import path of a function.
        data_dir: where downloaded files are, or will be.
        image_size: height and width that images are brought to; None: as they are.
        fit: how pictures in a folder get square: crop or pad.
        args: further arguments of the function.

    Raises:
        UserError: it is missing or invalid, or ``data_dir`` cannot be written.
    """
    path = user_path(dataset)
    if args and (dataset in ("mnist", *DOWNLOADS) or path.exists()):
        raise UserError("data.dataset_args are for a function: leave them out here")
    if dataset == "mnist":
        return _resized(_packaged(), image_size)
    if dataset == "fashion_mnist":
        given = next(filter(idx_files, (data_dir, DEBIAN_FASHION)), None)
        if given:
            loaded = replace(load_idx(given), classes=DOWNLOADS[dataset].classes)
            return _resized(loaded, image_size)
    if dataset in DOWNLOADS:
        return _resized(load_download(dataset, data_dir), image_size)
    if path.is_dir() and idx_files(path):
        return _resized(load_idx(path), image_size)
    if path.is_dir():
        return load_folder(path, image_size, fit)
    if path.suffix.lower() in ARRAY_FILES:
        return _resized(ARRAY_FILES[path.suffix.lower()](path), image_size)
    if path.is_file():
        known = ", ".join(sorted(ARRAY_FILES))
        raise UserError(f"data.dataset {dataset}: of files, these are read: {known}")
    if "." in dataset and "/" not in dataset:
        return _resized(load_function(dataset, args or {}), image_size)
    raise UserError(
        f"data.dataset {dataset}: there is no such folder or file; known are"
        f" {', '.join(['mnist', *DOWNLOADS])}, and functions by their import path"
    )


@cache
def _packaged() -> RawDataset:
    """Read MNIST, once in a process: its tensors are shared, so nobody may change them."""
    return load_idx(PACKAGED_MNIST)


def _resized(loaded: RawDataset, side: int | None) -> RawDataset:
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
    return RawDataset(resized(loaded.train), resized(loaded.test), loaded.classes, val)

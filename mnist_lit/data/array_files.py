"""Data sets in files of arrays: CSV as Kaggle has it, npz as Keras has it, and IDX as MNIST's."""

import gzip
import math
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_lit.data.images import Labelled, RawDataset, as_tensors, check_shapes, hold_out
from mnist_lit.errors import UserError, join_names, one_line

LABEL = "label"  # the column of a CSV file that holds the class
# Names of a set's arrays, images and labels, in npz files: Keras's, MedMNIST's and usual ones.
NPZ_NAMES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "train": (
        ("x_train", "y_train"),
        ("train_images", "train_labels"),
        ("images", "labels"),
        ("x", "y"),
        ("X", "y"),
    ),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
# Beginnings of the names of a set's two IDX files.
IDX_NAMES = {"train": "train", "test": "t10k"}
IDX_UINT8 = b"\0\0\x08"


def load_csv(path: Path) -> RawDataset:
    """Load a table with a column ``label`` and a column for each pixel, in rows from the top.

    A seventh of the rows is held out to test.

    Raises:
        UserError: it is not such a table.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            names = [name.strip().strip('"') for name in file.readline().split(",")]
            if LABEL not in names:
                raise UserError(f"{path} has no column {LABEL}; it has {join_names(names)}")
            place = names.index(LABEL)
            pixels = [number for number in range(len(names)) if number != place]
            table = partial(np.loadtxt, file, delimiter=",", quotechar='"', comments=None)
            text = table(dtype=str, usecols=place)
            file.seek(0)
            values = table(skiprows=1, dtype=np.float32, usecols=pixels, ndmin=2)
        side = math.isqrt(len(pixels))
        if side**2 != len(pixels):
            raise ValueError(f"{len(pixels)} pixels make no square image")
        images = values.reshape(-1, side, side)
        if images.max() > 1:
            if images.min() < 0 or images.max() > 255 or (images % 1).any():
                raise ValueError("pixels are neither whole numbers from 0 to 255 nor in [0, 1]")
            images = images.astype(np.uint8)
        return _loaded({"train": (images, np.atleast_1d(text))})
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a table of images: {one_line(error)}") from error


def load_npz(path: Path) -> RawDataset:
    """Load arrays by the names of `NPZ_NAMES`; without a test set, a seventh is held out.

    Raises:
        UserError: it has no such arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            sets = {
                name: next(((file[x], file[y]) for x, y in pairs if x in file and y in file), None)
                for name, pairs in NPZ_NAMES.items()
            }
            if sets["train"] is None:
                raise UserError(
                    f"{path} has {join_names(file.files, 8)}: arrays x_train and y_train, with"
                    " x_test and y_test or without, are expected"
                )
        return _loaded({name: given for name, given in sets.items() if given is not None})
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or one_line(error)}") from error
    except (ValueError, TypeError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no images with labels: {one_line(error)}") from error


def idx_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Find the IDX files of a folder, images and labels of each set, ``.gz`` or not."""
    found = {}
    for name, start in IDX_NAMES.items():
        pair = [
            next(iter(sorted(folder.glob(f"{start}*{what}*idx{ndim}-ubyte*"))), None)
            for what, ndim in (("images", 3), ("labels", 1))
        ]
        if pair[0] and pair[1]:
            found[name] = (pair[0], pair[1])
    return found


def load_idx(folder: Path) -> RawDataset:
    """Load a folder of IDX files; without a test set, a seventh is held out.

    Raises:
        UserError: one of them is damaged, or there is none to train on.
    """
    files = idx_files(folder)
    if "train" not in files:
        raise UserError(f"{folder} has no IDX files to train on, train-images-idx3-ubyte")
    return _loaded({name: (_idx(x), _idx(y)) for name, (x, y) in files.items()})


def _idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes.

    Source of the format: the MNIST page, "the IDX file format".

    Raises:
        UserError: it is not one.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        ndim = content[3]
        shape = np.frombuffer(content, ">u4", ndim, offset=4).astype(int)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * ndim)
        if content[:3] != IDX_UINT8:
            raise ValueError("its values are not bytes")
        return values.reshape(shape).copy()
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise UserError(f"{path} is not an IDX file: {one_line(error)}") from error


def _loaded(sets: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> RawDataset:
    """Make a data set of arrays; labels other than numbers from 0 on are sorted.

    Raises:
        ValueError: they are not images with labels.
    """
    labels = {part: np.asarray(y).reshape(len(y), -1) for part, (_, y) in sets.items()}
    if any(part.shape[1] != 1 for part in labels.values()):  # shares of classes, or one of them 1
        labels = {part: y.argmax(1)[:, None] for part, y in labels.items()}
    every = np.concatenate([y[:, 0] for y in labels.values()])
    names = np.unique(every)
    if every.dtype.kind in "US" and all(text.isdecimal() for text in names.tolist()):
        names = np.array(sorted(names.tolist(), key=int))
    is_counted = every.dtype.kind in "iu" and names.min() >= 0 and names.max() < 2 * len(names)
    classes = np.arange(names.max() + 1) if is_counted else names
    places = {value: place for place, value in enumerate(classes.tolist())}
    tensors: dict[str, tuple[Tensor, Tensor]] = {}
    for part, (images, _) in sets.items():
        numbers = torch.tensor([places[value] for value in labels[part][:, 0].tolist()])
        tensors[part] = as_tensors((images, numbers))
    check_shapes([images for images, _ in tensors.values()])
    train: Labelled = tensors["train"]
    test: Labelled | None = tensors.get("test")
    if test is None:
        pixels, targets = train
        train, test = ((pixels[part], targets[part]) for part in hold_out(len(targets)))
    return RawDataset(train, test, tuple(map(str, classes.tolist())), tensors.get("val"))

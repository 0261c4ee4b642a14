"""Folders of pictures as data sets, with a sub-folder for each class."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from mnist_lit.data.images import ImageSource, RawDataset, hold_out
from mnist_lit.errors import UserError, join_names, printable
from mnist_lit.reading.decode import SUFFIXES, has_several_pages, open_picture
from mnist_lit.reading.limits import PictureError
from mnist_lit.reading.pixels import extremes, has_wide_range, upright, usual_range
from mnist_lit.reading.preprocessing import Fit, Preprocessing, kind_of

MAX_BYTES_IN_MEMORY = 2_000_000_000  # of all images as they are trained on; more stay in the files
LARGEST = 64  # pixels along each side, unless more are asked for
NUM_THREADS = 2
GREY_KINDS = ("1", "L", "LA", "I", "I;16", "F")  # as `kind_of` says them
SETS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of sub-folders that are a set and no class, in lower case."""


class PictureFiles:
    """Images that are read from their files each time they are indexed."""

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.paths, self.preprocessing = paths, preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, numbers: Tensor, /) -> Tensor:
        if not len(numbers):
            size, num_channels = self.preprocessing.size, self.preprocessing.num_channels
            return torch.zeros(0, num_channels, size, size).byte()
        return torch.stack([self._read(self.paths[number]) for number in numbers.tolist()])

    def in_memory(self) -> Tensor:
        """Read all of them, ``(N, C, H, W)`` uint8."""
        with ThreadPoolExecutor(NUM_THREADS) as threads:
            return torch.stack(list(threads.map(self._read, self.paths)))

    def _read(self, path: Path) -> Tensor:
        try:
            return self.preprocessing(path)
        except PictureError as error:
            raise unreadable(error) from error


def load_folder(folder: Path, image_size: int | None = None, fit: Fit = "crop") -> RawDataset:
    """Load a folder with a sub-folder for each class, or with ``train``, ``val`` and ``test``.

    Without ``test``, a seventh of the pictures to train is held out, the same on every machine.
    Hidden files and folders are skipped; what else is left out is printed.

    Args:
        folder: which.
        image_size: height and width that pictures are brought to; None: the shorter side of the
            first one, but 64 at most.
        fit: how pictures that are not square get so: crop or pad.

    Raises:
        UserError: it has no classes, a class without pictures, or a file that cannot be read.
    """
    skipped: list[Path] = []
    folders = _set_folders(folder, skipped)
    classes = _classes(folders["train"])
    files = {name: _files(part, classes, skipped) for name, part in folders.items()}
    _check_classes(files, folders, classes)
    if skipped:
        names = [os.path.relpath(path, folder) for path in skipped]
        say(f"{folder}: skipped, not pictures of a class: {join_names(names)}")
    every = [path for paths, _ in files.values() for path in paths]
    found = _preprocessing(folder, every, image_size, fit)
    if "val" in files:
        num_val = len(files["val"][1])
        say(f"{folder}: validation is on the {num_val} of val; data.val_size is not used")
    if "test" not in files:
        paths, labels = files["train"]
        files["train"], files["test"] = (
            ([paths[index] for index in part], labels[part]) for part in hold_out(len(paths))
        )
    sets = {name: (_pixels(PictureFiles(paths, found)), y) for name, (paths, y) in files.items()}
    return RawDataset(sets["train"], sets["test"], classes, sets.get("val"), found)


@rank_zero_only
def say(line: str) -> None:
    """Print a line to stderr on rank 0, with control characters escaped."""
    print(printable(line), file=sys.stderr)


def _set_folders(folder: Path, skipped: list[Path]) -> dict[str, Path]:
    """Find the folders of the sets; without ``train``, the classes to train on are right here."""
    inside = _inside(folder)
    sets: dict[str, Path] = {}
    for path in inside:
        name = SETS.get(path.name.lower())
        if name and path.is_dir():
            if name in sets:
                raise UserError(f"{folder} has {sets[name].name} and {path.name}: keep one of them")
            sets[name] = path
    others = [path for path in inside if path not in sets.values()]
    has_only_sets = not any(path.is_dir() for path in others)
    if sets and has_only_sets and "train" not in sets:
        raise UserError(f"{folder} has {join_names(sorted(sets))}, but no train, to learn from")
    if "train" not in sets or not (len(sets) > 1 or has_only_sets):
        return {"train": folder}  # what is called as a set is a class
    skipped += others
    return sets


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(path.name for path in _inside(folder) if path.is_dir())
    if len(classes) < 2:
        found = f"one sub-folder, {classes[0]}" if classes else "no sub-folders"
        raise UserError(f"{folder} has {found}: one for each of two or more classes is needed")
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{folder / name}: the class's name is not UTF-8: rename it") from None
    return classes


def _files(folder: Path, classes: Sequence[str], skipped: list[Path]) -> tuple[list[Path], Tensor]:
    """List the pictures of a set, sorted by class and path, and their labels."""
    inside = _inside(folder)
    skipped += [path for path in inside if not path.is_dir()]
    unknown = [path.name for path in inside if path.is_dir() and path.name not in classes]
    if unknown:
        raise UserError(f"{folder} has classes that train does not have: {join_names(unknown)}")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _pictures(folder / name, skipped) if folder / name in inside else []
        files += found
        labels += [label] * len(found)
    if not files:
        raise UserError(f"there are no pictures in the sub-folders of {folder}")
    return files, torch.tensor(labels)


def _pictures(folder: Path, skipped: list[Path]) -> list[Path]:
    """List the pictures below a folder, sorted; links are followed, but no folder is read twice."""
    found: list[Path] = []
    seen: set[str] = set()
    for at, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in sorted(Path(at, name) for name in names if not name.startswith(".")):
            is_picture = path.suffix.lower() in SUFFIXES and path.is_file()
            (found if is_picture else skipped).append(path)
    return sorted(found)


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error


def _check_classes(
    files: dict[str, tuple[list[Path], Tensor]], folders: dict[str, Path], classes: Sequence[str]
) -> None:
    """Refuse a class without pictures to train on; print which ones have none in other sets.

    Raises:
        UserError: there is one.
    """
    for name, (_, labels) in files.items():
        counts = torch.bincount(labels, minlength=len(classes)).tolist()
        empty = [each for each, num in zip(classes, counts, strict=True) if not num]
        if empty and name == "train":
            raise UserError(
                f"{folders[name]}: there are no pictures of {join_names(empty)}: add some, or"
                " remove the sub-folder"
            )
        if empty:
            say(f"{folders[name]}: there are no pictures of {join_names(empty)}")


def _preprocessing(
    folder: Path, files: Sequence[Path], image_size: int | None, fit: Fit
) -> Preprocessing:
    """Find the common form: RGB if any picture is coloured; the first one's size if none is given.

    Prints what would otherwise be lost silently.
    """
    size, mode, num_paged, num_long = 0, "L", 0, 0
    values: dict[str, list[float]] = {}
    for path in files:
        try:
            with open_picture(path) as image:
                kind = kind_of(image)
                size = size or min(image.size)
                num_long += image.width != image.height
                mode = mode if kind in GREY_KINDS else "RGB"
                if has_wide_range(image.mode):
                    values.setdefault(kind, []).extend(extremes(upright(image)))
                num_paged += has_several_pages(image)
        except PictureError as error:
            raise unreadable(error) from error
    if num_paged:
        say(f"{folder}: of {num_paged} pictures with several pages, only the first is taken")
    if num_long and fit == "crop":
        say(
            f"{folder}: {num_long} of {len(files)} pictures are not square: their ends are cut off"
            " (--data.fit pad keeps them)"
        )
    ranges = {kind: usual_range(min(some), max(some)) for kind, some in values.items()}
    return Preprocessing(int(image_size or min(LARGEST, size)), mode, fit, ranges)


def unreadable(error: PictureError) -> UserError:
    """Make the error of a picture of a data set."""
    return UserError(f"{error}; to continue without it, remove it")


def _pixels(files: PictureFiles) -> ImageSource:
    form = files.preprocessing
    num_bytes = len(files) * form.size**2 * form.num_channels
    return files.in_memory() if num_bytes <= MAX_BYTES_IN_MEMORY else files

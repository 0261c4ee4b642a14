"""Data sets in CSV, npz and IDX files; folds and subsets."""

import csv
import gzip
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small import digits

from mnist_lit import MNISTDataModule
from mnist_lit.__main__ import main
from mnist_lit.data import sources
from mnist_lit.data.sources import PACKAGED_MNIST, load
from mnist_lit.errors import UserError
from mnist_lit.training import config_files


def _arrays(train: bool, num: int = 70) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = digits(train)
    return images[:num, 0].numpy(), labels[:num].numpy()


def _write_csv(path: Path, images: NDArray[np.uint8], labels: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["label", *(f"pixel{number}" for number in range(images[0].size))])
        rows.writerows([label, *image.ravel()] for label, image in zip(labels, images, strict=True))
    return path


def test_csv_is_kaggles(tmp_path: Path) -> None:
    images, labels = _arrays(train=True)
    path = _write_csv(tmp_path / "train.csv", images, [str(label) for label in labels])
    loaded = load(str(path), tmp_path)

    assert loaded.classes == tuple("0123456789")
    assert (len(loaded.train[1]), len(loaded.test[1])) == (60, 10)
    found = torch.cat([part[0][torch.arange(len(part[1]))] for part in (loaded.train, loaded.test)])
    known = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    held = [*loaded.train[1].tolist(), *loaded.test[1].tolist()]
    assert [known[image[0].numpy().tobytes()] for image in found] == held


def test_csv_may_have_names_for_classes(tmp_path: Path) -> None:
    images, labels = _arrays(train=True)
    names = ["C#" if label % 2 == 0 else "C" for label in labels]  # not a comment
    loaded = load(str(_write_csv(tmp_path / "train.csv", images, names)), tmp_path)

    assert loaded.classes == ("C", "C#")
    assert set(loaded.train[1].tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("digit,pixel0\n1,0\n", "has no column label"),
        ("label,pixel0,pixel1\n1,0,0\n2,0,1\n", "2 pixels make no square"),
        ("label,pixel0\n1,white\n", "is not a table of images"),
        ("label,pixel0\n1,0\n2\n", "is not a table of images"),
        ("label,pixel0\n1,0\n2,300\n", "neither whole numbers from 0 to 255 nor"),
        ("label,pixel0\n1,-0.5\n2,2.5\n", "neither whole numbers from 0 to 255 nor"),
    ],
)
def test_csv_that_is_none_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load(str(tmp_path / "train.csv"), tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_npz_is_kerass_or_medmnists(names: tuple[str, ...], tmp_path: Path) -> None:
    train, test = _arrays(train=True), _arrays(train=False)
    labels = train[1][:, None] if names[0] == "train_images" else train[1]
    arrays: Any = dict(zip(names, (train[0], labels, *test), strict=True))
    np.savez(tmp_path / "mnist.npz", **arrays)
    loaded = load(str(tmp_path / "mnist.npz"), tmp_path)

    assert torch.equal(loaded.train[0][torch.arange(70)][:, 0], torch.from_numpy(train[0]))
    assert loaded.train[1].tolist() == train[1].tolist()
    assert loaded.test[1].tolist() == test[1].tolist()


def test_npz_without_such_arrays_is_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pictures=np.zeros(3))
    with pytest.raises(UserError, match="has pictures: arrays x_train and y_train"):
        load(str(tmp_path / "a.npz"), tmp_path)
    np.savez_compressed(tmp_path / "c.npz", x_train=np.arange(10_000), y_train=np.arange(3))
    cut = bytearray((tmp_path / "c.npz").read_bytes())
    cut[100:400] = bytes(300)
    with BytesIO() as array:
        np.save(array, np.zeros(3))
        for damaged in (b"", b"none", bytes(cut), array.getvalue()):
            (tmp_path / "b.npz").write_bytes(damaged)
            with pytest.raises(UserError, match=r"b\.npz"):
                load(str(tmp_path / "b.npz"), tmp_path)


def test_sets_of_different_shapes_are_one_line(tmp_path: Path) -> None:
    x_train, x_test = np.zeros((5, 28, 28), np.uint8), np.zeros((5, 32, 32), np.uint8)
    labels = np.arange(5)
    np.savez(tmp_path / "a.npz", x_train=x_train, y_train=labels, x_test=x_test, y_test=labels)
    with pytest.raises(UserError, match=r"differ in shape: .*28.* and .*32|.*32.* and .*28"):
        load(str(tmp_path / "a.npz"), tmp_path)


@pytest.mark.parametrize("compressed", [True, False])
def test_folder_of_idx_files_is_a_data_set(compressed: bool, tmp_path: Path) -> None:
    for path in PACKAGED_MNIST.glob("*.gz"):
        if compressed:
            shutil.copy(path, tmp_path)
        else:
            (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    loaded = load(str(tmp_path), tmp_path)
    expected = load("mnist", sources.default_data_dir())

    assert loaded.train[1].tolist() == expected.train[1].tolist()
    numbers = torch.arange(100)
    assert torch.equal(loaded.test[0][numbers], expected.test[0][numbers])


def test_damaged_idx_file_is_one_line(tmp_path: Path) -> None:
    for path in PACKAGED_MNIST.glob("*.gz"):
        shutil.copy(path, tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    overwritten = bytearray(labels.read_bytes())
    overwritten[100:400] = bytes(300)
    for damaged in (b"\x1f\x8b damaged", bytes(overwritten)):
        labels.write_bytes(damaged)
        with pytest.raises(UserError, match=r"train-labels-idx1-ubyte\.gz is not an IDX file"):
            load(str(tmp_path), tmp_path)


def test_data_files_are_no_code() -> None:
    options = {"data": {"dataset": "train.csv"}, "model": {"network": "own.Net"}}
    assert list(config_files.names_of_code(options)) == ["own.Net"]


def test_function_takes_arguments(tmp_path: Path) -> None:
    data = MNISTDataModule(dataset="own.shaded", dataset_args={"num": 40}, val_size=10)
    data.setup()
    assert len(data.images("train")) == 30

    with pytest.raises(UserError, match="unexpected keyword argument 'some'"):
        load("own.shaded", tmp_path, args={"some": 1})
    with pytest.raises(UserError, match="are for a function"):
        load("mnist", tmp_path, args={"some": 1})


def test_folds_are_disjoint_and_complete() -> None:
    held_out: list[int] = []
    for number in range(1, 6):
        data = MNISTDataModule(dataset="small.digits", fold=f"{number}/5")
        data.setup()
        train, val = (data.images(name).indices.tolist() for name in ("train", "val"))
        assert not {*train} & {*val}
        assert len(train) + len(val) == 2500
        held_out += val

    assert sorted(held_out) == list(range(2500))


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "2", "a/b", "1/9999"])
def test_fold_that_is_none_is_one_line(
    fold: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--data.fold={fold}", "--data.dataset=small.digits"]
    assert main(["fit", f"--trainer.default_root_dir={tmp_path}", *options]) == 2
    assert "data.fold" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_subset_keeps_the_proportions_and_the_validation() -> None:
    whole, tenth = (
        MNISTDataModule(dataset="small.digits", val_size=500, subset=share) for share in (1.0, 0.1)
    )
    for data in (whole, tenth):
        data.setup()
    counts = [data.images("train").chosen_labels.bincount().tolist() for data in (whole, tenth)]

    assert counts[1] == [round(0.1 * count) for count in counts[0]]
    kept, all_kept = (data.images("train").indices.tolist() for data in (tenth, whole))
    assert {*kept} <= {*all_kept}
    assert torch.equal(whole.images("val").indices, tenth.images("val").indices)

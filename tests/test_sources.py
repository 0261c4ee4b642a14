"""Sources of the files; damaged and foreign ones are refused."""

import shutil
from pathlib import Path

import pytest
import torch
from torchvision.datasets import MNIST, FashionMNIST
from torchvision.datasets.utils import check_integrity

from mnist_lit.data import sources
from mnist_lit.data.sources import DEBIAN_FASHION, PACKAGED_MNIST, load
from mnist_lit.errors import UserError


def test_packaged_mnist_is_the_original(tmp_path: Path) -> None:
    loaded = load("mnist", tmp_path)
    (images, labels), (test_images, test_labels) = loaded.train, loaded.test

    assert isinstance(images, torch.Tensor)
    assert isinstance(test_images, torch.Tensor)
    assert images.shape == (60_000, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert test_images.shape == (10_000, 1, 28, 28)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert loaded.classes == tuple("0123456789")
    assert not list(tmp_path.iterdir()), "nothing is extracted"


@pytest.mark.parametrize(("name", "md5"), MNIST.resources)
def test_packaged_files_have_the_checksums_that_torchvision_knows(name: str, md5: str) -> None:
    assert check_integrity(PACKAGED_MNIST / name, md5)


@pytest.mark.parametrize("place", ["data_dir", "Debian"])
def test_fashion_mnist_is_taken_from_files_that_are_there(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "DEBIAN_FASHION", tmp_path / "Debian")
    shutil.copytree(PACKAGED_MNIST, tmp_path / place)  # files of the same form
    loaded = load("fashion_mnist", tmp_path / "data_dir")

    assert len(loaded.train[1]) == 60_000
    assert loaded.classes[:2] == ("T-shirt/top", "Trouser")


def test_fashion_mnist_that_cannot_be_had_says_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "DEBIAN_FASHION", tmp_path / "no")
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    with pytest.raises(UserError, match=r"go online .*apt-get install dataset-fashion-mnist"):
        load("fashion_mnist", tmp_path / "data")

    assert not list((tmp_path / "data").rglob("*ubyte*")), "half a data set was left"


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_from_debian(tmp_path: Path) -> None:
    images, labels = load("fashion_mnist", tmp_path).train

    assert isinstance(images, torch.Tensor)
    assert images.shape == (60_000, 1, 28, 28)
    assert labels.bincount().tolist() == [6000] * 10


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match="choose another folder"):
        load("kmnist", tmp_path / "file" / "data")

"""Sources of the files; damaged and foreign ones are refused."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.datasets import FashionMNIST

from mnist_lit.data.sources import SOURCES, load
from mnist_lit.errors import UserError

RAW = Path("MNIST") / "raw"


def test_packaged_mnist_is_the_original(data_dir: Path) -> None:
    loaded = load("mnist", data_dir)
    (images, labels), (test_images, test_labels) = loaded.train, loaded.test

    assert isinstance(images, torch.Tensor)
    assert isinstance(test_images, torch.Tensor)
    assert images.shape == (60_000, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert test_images.shape == (10_000, 1, 28, 28)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test_labels[:5].tolist() == [7, 2, 1, 0, 4]


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_damaged_file_is_replaced(damage: str, data_dir: Path, tmp_path: Path) -> None:
    expected, labels = load("mnist", data_dir).test
    load("mnist", tmp_path)
    victim = tmp_path / RAW / "t10k-images-idx3-ubyte"
    content = bytearray(victim.read_bytes())
    if damage == "truncated":
        victim.write_bytes(content[:-1000])
    elif damage == "changed":
        content[5000] ^= 1
        victim.write_bytes(content)
    else:
        victim.unlink()

    found, found_labels = load("mnist", tmp_path).test

    numbers = torch.arange(10_000)
    assert torch.equal(found[numbers], expected[numbers])
    assert torch.equal(found_labels, labels)


def test_two_at_once_in_an_empty_folder_both_work(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        loaded = list(pool.map(lambda _: load("mnist", tmp_path), range(2)))

    assert [len(each.train[1]) for each in loaded] == [60_000, 60_000]
    assert [path.name for path in (tmp_path / "MNIST").iterdir()] == ["raw"], "leftovers"


def test_files_that_were_compressed_anew_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in SOURCES["mnist"].local.glob("*.gz"):
        content = gzip.decompress(path.read_bytes())
        (tmp_path / path.name).write_bytes(gzip.compress(content, compresslevel=1))
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], local=tmp_path))
    monkeypatch.setattr(SOURCES["mnist"].dataset, "mirrors", [])

    _, labels = load("mnist", tmp_path / "data").train

    assert len(labels) == 60_000


@pytest.mark.parametrize("copy", ["none", "damaged"])
def test_fashion_mnist_that_cannot_be_had_says_both_ways(
    copy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "local").mkdir()
    if copy == "damaged":
        (tmp_path / "local" / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bnot really")
    source = replace(SOURCES["fashion_mnist"], local=tmp_path / "local")
    monkeypatch.setitem(SOURCES, "fashion_mnist", source)
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    with pytest.raises(UserError, match=r"apt-get install dataset-fashion-mnist.*go online"):
        load("fashion_mnist", tmp_path / "data")

    assert not list((tmp_path / "data").rglob("*ubyte*")), "half a data set was left"


@pytest.mark.skipif(
    not SOURCES["fashion_mnist"].local.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
def test_fashion_mnist_from_debian(tmp_path: Path) -> None:
    images, labels = load("fashion_mnist", tmp_path).train

    assert isinstance(images, torch.Tensor)
    assert images.shape == (60_000, 1, 28, 28)
    assert labels.bincount().tolist() == [6000] * 10


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match="choose another folder"):
        load("mnist", tmp_path / "file" / "data")

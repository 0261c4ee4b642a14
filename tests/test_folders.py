"""Folders of pictures as data sets: what is read from them, and what is refused or skipped."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from conftest import Fit, results_of
from numpy.typing import NDArray
from PIL import Image

from mnist_lit.data.folders import load_folder
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError

Bar = NDArray[np.uint8]
Printed = pytest.CaptureFixture[str]


def bar(label: int, seed: int = 0) -> Bar:
    """A light bar on a dark ground, upright or lying, ``(20, 20)``."""
    picture = np.random.default_rng(seed).integers(0, 60, (20, 20), dtype=np.uint8)
    picture[8:12] += np.uint8(150 * label)
    picture[:, 8:12] += np.uint8(150 * (1 - label))
    return picture


def make(
    folder: Path,
    classes: Sequence[str] = "ab",
    num: int = 7,
    save: Callable[[Bar], Image.Image] = Image.fromarray,
    end: str = "png",
    **options: Any,
) -> Path:
    """A folder with ``num`` pictures in a sub-folder for each class."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for n in range(num):
            save(bar(label % 2, n)).save(folder / name / f"{n}.{end}", **options)
    return folder


def pixels_of(folder: Path) -> torch.Tensor:
    """All pictures to train on, as float."""
    images, labels = load_folder(folder).train
    return images[torch.arange(len(labels))].float()


def _with_alpha(picture: Bar) -> Image.Image:
    black = Image.new("RGBA", picture.shape[::-1])
    black.putalpha(Image.fromarray(picture))
    return black


DEPTHS: dict[str, tuple[Callable[[Bar], Image.Image], str]] = {
    "16 bit": (lambda picture: Image.fromarray(picture.astype(np.uint16) * 257), "png"),
    "16 bit TIFF": (lambda picture: Image.fromarray(picture.astype(np.uint16) * 257), "tif"),
    "32 bit": (lambda picture: Image.fromarray(picture.astype(np.int32)), "tif"),
    "float": (lambda picture: Image.fromarray(picture.astype(np.float32) / 255), "tif"),
    "float to 255": (lambda picture: Image.fromarray(picture.astype(np.float32)), "tif"),
}


@pytest.mark.parametrize("depth", DEPTHS)
def test_pictures_of_more_bits_have_the_same_pixels(depth: str, tmp_path: Path) -> None:
    save, end = DEPTHS[depth]
    expected = pixels_of(make(tmp_path / "8 bit"))

    assert torch.equal(pixels_of(make(tmp_path / "deep", save=save, end=end)), expected)


def test_brightness_of_more_bits_is_compared_over_all_pictures(tmp_path: Path) -> None:
    """12 bits in 16: a dark picture alone might be taken for one of 9 bits."""
    for name, value in (("dark", 400), ("light", 4000)):
        (tmp_path / name).mkdir()
        for n in range(7):
            picture = Image.fromarray(np.full((20, 20), value, np.uint16))
            picture.save(tmp_path / name / f"{n}.png")

    assert set(pixels_of(tmp_path).flatten().tolist()) == {25, 249}  # of 4,095


def test_black_ink_on_transparent_paper_is_dark_on_light(tmp_path: Path) -> None:
    seen = pixels_of(make(tmp_path / "alpha", save=_with_alpha))
    expected = 255 - pixels_of(make(tmp_path / "grey"))

    assert torch.equal(seen, expected.expand_as(seen))


def test_silhouette_that_fills_its_picture_is_seen(tmp_path: Path) -> None:
    seen = pixels_of(make(tmp_path, save=lambda picture: _with_alpha(255 - picture)))

    assert seen.std() > 50


def test_pictures_are_brought_to_one_size_and_colour(tmp_path: Path) -> None:
    folder = make(tmp_path, save=lambda picture: Image.fromarray(picture).resize((40, 30)))
    Image.new("L", (40, 31)).save(folder / "b" / "other.png")
    assert pixels_of(folder).shape[1:] == (1, 30, 30)

    Image.new("RGB", (90, 90), "red").save(folder / "a" / "red.png")
    images, _ = load_folder(folder, image_size=20).train
    assert images[torch.tensor([0])].shape == (1, 3, 20, 20)


# --- sub-folders ----------------------------------------------------------------------------------


def test_hidden_files_and_folders_are_no_pictures(tmp_path: Path, capsys: Printed) -> None:
    folder = make(tmp_path)
    for hidden in (folder / ".ipynb_checkpoints", folder / "a" / ".ipynb_checkpoints"):
        hidden.mkdir()
        (hidden / "1.png").write_bytes((folder / "a" / "1.png").read_bytes())
    (folder / "b" / "._1.png").write_bytes(b"as a Mac leaves it on other disks")
    loaded = load_folder(folder)

    assert loaded.classes == ("a", "b")
    assert len(loaded.train[1]) + len(loaded.test[1]) == 14
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", None), ("Train", None, "Test"), ("training", "validation", "testing")],
)
def test_sets_are_found_by_their_names(
    train: str, val: str | None, test: str | None, tmp_path: Path
) -> None:
    make(tmp_path / train, num=7)
    if val:
        make(tmp_path / val, num=3)
    if test:
        make(tmp_path / test, num=2)
    loaded = load_folder(tmp_path)

    assert loaded.classes == ("a", "b")
    assert len(loaded.train[1]) == (14 if test else 12)
    assert len(loaded.test[1]) == (4 if test else 2)
    assert (len(loaded.val[1]) if loaded.val else None) == (6 if val else None)


def test_class_may_be_called_as_a_set_is(tmp_path: Path) -> None:
    make(tmp_path, classes=["bus", "train"])

    assert load_folder(tmp_path).classes == ("bus", "train")


def test_val_is_the_validation_set(tmp_path: Path, capsys: Printed) -> None:
    make(tmp_path / "train", num=7)
    make(tmp_path / "val", num=3)
    data = MNISTDataModule(dataset=str(tmp_path), val_size=5000)
    data.setup()
    (line,) = capsys.readouterr().err.splitlines()

    assert [len(data.images(name)) for name in ("train", "val", "test")] == [12, 6, 2]
    assert data.images("val").chosen_labels.tolist() == [0, 0, 0, 1, 1, 1]
    pixels, _ = data.images("val")[torch.tensor([4])]
    assert torch.equal(pixels[0, 0], torch.from_numpy(bar(1, 1)))
    assert line == f"{tmp_path}: validation is on the 6 of val; data.val_size is not used"


@pytest.mark.usefixtures("undrawn")
def test_run_with_val_is_resumed(tmp_path: Path, fit: Fit) -> None:
    make(tmp_path / "data" / "train", num=20)
    make(tmp_path / "data" / "val", num=5)
    options = ("--data.batch_size=10", "--trainer.log_every_n_steps=2", "--model.lr=0.003")
    run = fit(f"--data.dataset={tmp_path / 'data'}", *options, "--trainer.max_epochs=1")
    assert fit("--ckpt_path=last", "--trainer.max_epochs=2").folder == run.folder

    assert results_of(run)["epochs"] == 2
    assert results_of(run)["num_test_images"] == 6


def test_links_are_followed_once(tmp_path: Path) -> None:
    folder = make(tmp_path / "data")
    make(tmp_path / "elsewhere", classes="xy", num=3)
    (folder / "c").symlink_to(tmp_path / "elsewhere" / "x")
    (folder / "a" / "more").symlink_to(tmp_path / "elsewhere" / "y")
    (folder / "a" / "loop").symlink_to(folder / "a")
    loaded = load_folder(folder)
    labels = torch.cat([loaded.train[1], loaded.test[1]])

    assert loaded.classes == ("a", "b", "c")
    assert torch.bincount(labels).tolist() == [10, 7, 3]


def test_what_is_skipped_is_printed(tmp_path: Path, capsys: Printed) -> None:
    folder = make(tmp_path)
    (folder / "labels.csv").write_text("no picture")
    (folder / "a" / "notes.txt").write_text("no picture")
    (folder / "b" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "b" / "pipe.png")
    load_folder(folder)
    (line,) = capsys.readouterr().err.splitlines()

    assert line.endswith(
        "skipped, not pictures of a class: labels.csv, a/notes.txt, b/gone.png, and 1 more"
    )


def test_further_pages_are_said_to_be_left_out(tmp_path: Path, capsys: Printed) -> None:
    folder = make(tmp_path)
    pages = [Image.fromarray(bar(0, n)) for n in range(3)]
    pages[0].save(folder / "a" / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(folder / "a" / "pages.gif", save_all=True, append_images=pages[1:])
    load_folder(folder)

    assert "of 2 pictures with several pages, only the first is taken" in capsys.readouterr().err


def test_class_without_pictures_to_test_is_printed(tmp_path: Path, capsys: Printed) -> None:
    make(tmp_path / "train")
    make(tmp_path / "test", classes="a")
    load_folder(tmp_path)

    assert capsys.readouterr().err == f"{tmp_path / 'test'}: there are no pictures of b\n"


# --- refusals -------------------------------------------------------------------------------------


def _no_class(folder: Path) -> None:
    pass


def _one_class(folder: Path) -> None:
    (folder / "a").mkdir()


def _no_pictures(folder: Path) -> None:
    make(folder, num=0)


def _empty_class(folder: Path) -> None:
    make(folder)
    (folder / "c").mkdir()


def _class_of_test_only(folder: Path) -> None:
    make(folder / "train")
    make(folder / "test", classes="abc")


def _no_train(folder: Path) -> None:
    make(folder / "val")
    make(folder / "test")


def _two_to_train(folder: Path) -> None:
    make(folder / "train")
    make(folder / "Train")


def _not_utf8(folder: Path) -> None:
    make(folder)
    os.rename(folder / "a", os.fsencode(folder) + b"/\xff\xfe")


def _too_large(folder: Path) -> None:
    make(folder)
    Image.new("1", (14_000, 14_000)).save(folder / "b" / "big.png")


def _cut_off(folder: Path) -> None:
    path = make(folder) / "b" / "3.png"
    path.write_bytes(path.read_bytes()[:-30])


def _cut_header(folder: Path) -> None:
    path = make(folder) / "b" / "3.png"
    path.write_bytes(path.read_bytes()[:30])


def _broken_chunk(folder: Path) -> None:
    """A PNG whose pixels are in two chunks, of which the second has no name."""
    path = make(folder) / "b" / "3.png"
    content = path.read_bytes()
    at = content.index(b"IDAT")
    first = b"IDAT" + content[at + 4 : at + 24]
    chunks = (20).to_bytes(4) + first + crc32(first).to_bytes(4) + (20).to_bytes(4) + b"\0" * 200
    path.write_bytes(content[: at - 4] + chunks)


REFUSED: dict[Callable[[Path], None], str] = {
    _no_class: "has no sub-folders",
    _one_class: "has one sub-folder, a: one for each of two or more classes is needed",
    _no_pictures: "no pictures in the sub-folders",
    _empty_class: "there are no pictures of c: add some, or remove the sub-folder",
    _class_of_test_only: "test has classes that train does not have: c",
    _no_train: "has test, val, but no train",
    _two_to_train: "has Train and train: keep one",
    _not_utf8: "the class's name is not UTF-8: rename it",
    _too_large: "big.png is refused: more than 120 million pixels",
    _cut_off: "3.png is damaged or cut off; to continue without it, remove it",
    _cut_header: "3.png is not a picture",
    _broken_chunk: "3.png is damaged or cut off",
}


@pytest.mark.parametrize("spoil", REFUSED)
def test_what_is_no_data_set_is_refused(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    spoil(tmp_path)

    with pytest.raises(UserError, match=REFUSED[spoil]):
        load_folder(tmp_path)

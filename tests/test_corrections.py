"""Corrected digits: kept, taken back, and trained on among MNIST's."""

import errno
from pathlib import Path

import pytest
import torch
from conftest import fit_in
from PIL import Image

from mnist_lit import Classifier, MNISTDataModule
from mnist_lit.__main__ import main
from mnist_lit.data.personal import PersonalDataModule
from mnist_lit.serve import corrections
from mnist_lit.serve.corrections import Corrections


def _crop(value: int) -> bytes:
    return bytes([value, *[0] * 783])


def _no_space(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_correction_is_a_picture_of_its_class(tmp_path: Path) -> None:
    kept = Corrections(tmp_path / "new" / "folder")
    name = kept.keep(_crop(200), 7)
    (path,) = (tmp_path / "new" / "folder").rglob("*.png")

    assert path == tmp_path / "new" / "folder" / "7" / f"{name}.png"
    with Image.open(path) as image:
        assert image.tobytes() == _crop(200)


def test_crop_has_one_truth_and_can_be_taken_back(tmp_path: Path) -> None:
    kept = Corrections(tmp_path)
    first, again = kept.keep(_crop(1), 7), kept.keep(_crop(1), 1)
    other = kept.keep(_crop(2), 7)
    assert first == again
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.png")} == {"1", "7"}

    kept.take_back(first)
    assert [path.stem for path in tmp_path.rglob("*.png")] == [other]
    kept.take_back("../7/" + other)
    kept.take_back("*")
    assert [path.stem for path in tmp_path.rglob("*.png")] == [other]


def test_full_disk_leaves_the_older_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Corrections(tmp_path)
    name = kept.keep(_crop(1), 7)
    monkeypatch.setattr(Image.Image, "save", _no_space)
    with pytest.raises(OSError, match="No space left"):
        kept.keep(_crop(1), 1)

    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")] == [
        Path("7") / f"{name}.png"
    ]


@pytest.mark.parametrize(("pixels", "digit"), [(b"", 1), (bytes(785), 1), (bytes(784), 10)])
def test_what_is_no_correction_is_refused(pixels: bytes, digit: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="28x28 bytes and a digit"):
        Corrections(tmp_path).keep(pixels, digit)
    assert not list(tmp_path.iterdir())


def test_folder_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "MAX_CORRECTIONS", 2)
    kept = Corrections(tmp_path)
    for value in (1, 2):
        kept.keep(_crop(value), 3)
    with pytest.raises(ValueError, match="are kept already"):
        kept.keep(_crop(3), 3)
    kept.keep(_crop(2), 4)  # in the place of another truth


def _corrected(folder: Path, num: int) -> list[int]:
    """Keep crops of MNIST's validation digits, all as 3; their labels."""
    data = MNISTDataModule()
    data.setup()
    numbers = data.images("val").indices[:num]
    kept = Corrections(folder)
    for pixels in data.images("val").pixels[numbers]:
        kept.keep(pixels.numpy().tobytes(), 3)
    return data.images("val").labels[numbers].tolist()


def test_personal_data_are_corrections_among_mnist(tmp_path: Path, data_dir: Path) -> None:
    _corrected(tmp_path, 20)
    data = PersonalDataModule(str(tmp_path), replay=700, repeats=16, data_dir=str(data_dir))
    data.setup()
    plain = MNISTDataModule(data_dir=str(data_dir))
    plain.setup()
    train, val = (data.images(name) for name in ("train", "val"))

    assert len(train) == 700 + 16 * 16
    assert len(val) == 1004
    known = {image.numpy().tobytes() for image in plain.images("train").pixels[:60_000]}
    held_out = plain.images("val").indices
    of_val = {image.numpy().tobytes() for image in plain.images("val").pixels[held_out]}
    assert all(image.numpy().tobytes() in known for image in train.pixels[:700])
    assert not any(image.numpy().tobytes() in of_val for image in train.pixels[:700])
    assert torch.equal(data.images("test").labels, plain.images("test").labels)


@pytest.mark.slow
def test_network_learns_what_is_corrected(tmp_path: Path) -> None:
    truth = _corrected(tmp_path / "corrections", 20)
    options = [f"--data.dataset={tmp_path / 'corrections'}", "--data.repeats=100"]
    run = fit_in(tmp_path, "--config", "personal", *options)
    data = MNISTDataModule()
    data.setup()
    numbers = data.images("val").indices[:20]
    images = data.images("val").pixels[numbers]

    assert (Classifier.load().probabilities(images).argmax(1) == torch.tensor(truth)).all()
    taught = Classifier.load(run.best).probabilities(images).argmax(1)
    assert (taught == 3).sum() > 12, "as they were corrected, if absurdly"
    assert main(["report", str(run.folder), "--output", str(tmp_path / "report.html")]) == 0


def test_without_corrections_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", "--config=personal", f"--data.dataset={tmp_path / 'no'}", root]) == 2
    assert "has no corrections" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

"""Pictures of one's own, 90x60 and coloured: trained on, predicted, served, exported."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import fit_in
from onnxruntime import InferenceSession
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, expect
from server import running

from mnist_lit import Classifier
from mnist_lit.__main__ import main
from mnist_lit.training.run_folders import Run

pytestmark = pytest.mark.slow
Printed = pytest.CaptureFixture[str]

COLOURS = {"apple": (190, 40, 30), "leaf": (40, 150, 60), "sky": (70, 130, 230)}


def picture(name: str, random: np.random.Generator) -> Image.Image:
    """Draw a noisy picture with a blot in the colour of a class."""
    pixels = random.integers(90, 160, (60, 90, 3), dtype=np.uint8)
    drawn = Image.fromarray(pixels)
    left, top = map(int, random.integers(5, (45, 25)))
    ImageDraw.Draw(drawn).ellipse([left, top, left + 40, top + 30], COLOURS[name])
    return drawn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to train on, and new ones with their truth."""
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in COLOURS:
        (root / "train" / name).mkdir(parents=True)
        for number in range(40):
            picture(name, random).save(root / "train" / name / f"{number}.png")
    (root / "new").mkdir()
    rows = [(f"{number}.png", name) for number, name in enumerate([*COLOURS] * 4)]
    for file, name in rows:
        picture(name, random).save(root / "new" / file)
    with (root / "new" / "labels.csv").open("w", newline="", encoding="utf-8") as file_:
        csv.writer(file_).writerows([("file", "truth"), *rows])
    return root


@pytest.fixture(scope="module")
def run(folder: Path, data_dir: Path) -> Run:
    options = ["--data.image_size=32", "--data.val_size=20", "--data.batch_size=10"]
    options += [f"--data.dataset={folder / 'train'}", "--trainer.max_epochs=15"]
    return fit_in(folder, *options, "--model.lr=0.003", "--trainer.log_every_n_steps=5")


@pytest.fixture(autouse=True)
def _beside_the_run(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def _rows(printed: str) -> list[dict[str, str]]:
    return list(csv.DictReader(printed.splitlines()))


def test_new_pictures_are_classified(folder: Path, capsys: Printed) -> None:
    with (folder / "new" / "labels.csv").open(encoding="utf-8") as file:
        truth = {Path(row["file"]).stem: row["truth"] for row in csv.DictReader(file)}

    assert main(["predict", "new/1.png", "--ckpt_path=best", "--format=json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["class"] == truth["1"]
    assert next(iter(answer["probabilities"])) == answer["class"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert main(["predict", "new", "--ckpt_path=best", "--format=kaggle"]) == 0
    submitted = {row["id"]: row["label"] for row in _rows(capsys.readouterr().out)}
    assert submitted.keys() == truth.keys()
    assert sum(submitted[name] == truth[name] for name in truth) >= 11
    assert main(["predict", "new", "--ckpt_path=best", "--format=csv"]) == 0
    assert {Path(row["path"]).stem: row["class"] for row in _rows(capsys.readouterr().out)} == (
        submitted
    )
    assert main(["predict", "new", "--ckpt_path=best"]) == 0
    assert "apple" in capsys.readouterr().out


def test_each_page_has_its_class(run: Run, folder: Path, capsys: Printed) -> None:
    first, *others = (Image.open(folder / "new" / f"{number}.png") for number in (0, 2))
    first.save("pages.tif", save_all=True, append_images=others)
    assert main(["predict", "pages.tif", "--ckpt_path=best", "--format=csv"]) == 0
    rows = _rows(capsys.readouterr().out)
    answer = Classifier.load(run.best).classify("pages.tif")

    assert [(row["class"], row["page"]) for row in rows] == [("apple", "1"), ("sky", "2")]
    assert (answer.label, answer.note) == ("apple", "only the first page was read")


def test_unreadable_picture_leaves_no_part_of_a_submission(capsys: Printed) -> None:
    assert main(["predict", "new/0.png", "absent.png", "--ckpt_path=best", "--format=kaggle"]) == 1
    printed = capsys.readouterr()

    assert not printed.out
    assert "absent.png" in printed.err


def test_classes_are_measured(capsys: Printed) -> None:
    assert main(["predict", "--truth=new/labels.csv", "--ckpt_path=last"]) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines()]
    (counts,) = (row for row in rows if row[:1] == ["all"])

    assert counts[1] == "12"
    assert 11 <= int(counts[2]) <= 12
    assert "with more than 99% confidence" in printed


def test_file_that_is_no_picture_leaves_the_others(folder: Path, capsys: Printed) -> None:
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    files = ["new/0.png", "text.png", "absent.png", "new/2.png"]
    assert main(["predict", *files, "--ckpt_path=best", "--format=csv"]) == 1
    rows = _rows(capsys.readouterr().out)

    assert [row["class"] for row in rows] == ["apple", "", "", "sky"]
    assert "is not a picture" in rows[1]["error"]
    assert "absent.png" in rows[2]["error"]


def test_wrong_truth_is_one_line(folder: Path, capsys: Printed) -> None:
    (folder / "wrong.csv").write_text("file,truth\nnew/0.png,pear\n", encoding="utf-8")

    assert main(["predict", "--truth=wrong.csv", "--ckpt_path=best"]) == 2
    assert "one of apple, leaf, sky, not 'new/0.png' and 'pear'" in capsys.readouterr().err


def test_training_and_prediction_see_the_same(run: Run, folder: Path) -> None:
    classifier = Classifier.load(run.best)
    answer = classifier.classify(folder / "train" / "leaf" / "0.png")
    image = classifier.preprocessing(folder / "train" / "leaf" / "0.png")

    assert image.shape == (3, 32, 32)
    assert classifier.preprocessing.fit == "crop"
    probs = classifier.probabilities(image[None])[0]
    assert answer.confidence == pytest.approx(float(probs.max()))
    whole = Image.open(folder / "train" / "leaf" / "0.png")
    assert classifier.classify(whole) == classifier.classify(np.asarray(whole)) == answer


def test_padding_keeps_the_ends(folder: Path, tmp_path: Path, capsys: Printed) -> None:
    options = ["--data.image_size=32", "--data.val_size=20", "--data.batch_size=50"]
    options += [f"--data.dataset={folder / 'train'}", "--trainer.max_epochs=1", "--data.fit=pad"]
    padded = fit_in(tmp_path, *options, "--trainer.log_every_n_steps=1")
    image = Classifier.load(padded.best).preprocessing(folder / "new" / "0.png")

    assert "cut off" not in capsys.readouterr().err
    assert not image[:, :4].any(), "black above"
    assert image[:, 16, :2].any(), "the left end"


def test_network_is_exported_with_what_it_expects(run: Run, folder: Path, capsys: Printed) -> None:
    assert main(["export", "--ckpt_path=best", "--output=model.onnx"]) == 0
    assert "of PyTorch's" in capsys.readouterr().out
    facts = {p.key: json.loads(p.value) for p in onnx.load("model.onnx").metadata_props}
    picture = Image.open(folder / "new" / "2.png").convert(facts["preprocessing"]["mode"])
    size = facts["preprocessing"]["size"]
    square = picture.crop((15, 0, 75, 60)).resize((size, size), Image.Resampling.BICUBIC)
    images = np.asarray(square, np.float32).transpose(2, 0, 1)[None] / 255
    (probs,) = InferenceSession("model.onnx").run(["probabilities"], {"images": images})

    answer = Classifier.load(run.best).classify(folder / "new" / "2.png")
    assert facts["classes"] == ["apple", "leaf", "sky"]
    assert facts["preprocessing"]["fit"] == "crop"
    expected = torch.tensor([answer.probabilities[name] for name in facts["classes"]])
    assert torch.allclose(torch.from_numpy(probs[0]), expected, atol=1e-3)
    assert main(["export", "--ckpt_path=best", "--output=reader.html"]) == 2
    assert "it reads no digits" in capsys.readouterr().err


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with running("--ckpt_path=best") as server:
        yield server.url
        status, answer = server.predict((folder / "new" / "0.png").read_bytes())
        assert (status, answer["class"]) == (200, "apple")
        status, answer = server.predict(b"no picture")
        assert status == 400
        assert "not a picture" in answer["detail"]


def test_page_classifies_what_is_chosen(browser: Browser, url: str, folder: Path) -> None:
    complaints: list[str] = []
    with browser.new_page(viewport={"width": 375, "height": 700}) as page:
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(url)
        expect(page.locator("#expected")).to_contain_text("apple, leaf, sky")
        page.locator("#file").set_input_files(folder / "new" / "1.png")
        expect(page.locator("#label")).to_have_text("leaf")
        expect(page.locator("#classes li")).to_have_count(3)
        width = page.evaluate("document.documentElement.scrollWidth")
        page.screenshot(path=folder / "classes.png")

    assert width <= 375
    assert complaints == []

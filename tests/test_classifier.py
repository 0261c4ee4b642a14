"""From a checkpoint to what a picture says."""

import base64
import doctest
import io
import math
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import package
import pytest
import stress
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import mnist_lit.reading.classifier
from mnist_lit import Classifier
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.reading.classifier import tta_views
from mnist_lit.reading.limits import PictureError
from mnist_lit.reading.result import joined
from mnist_lit.training.classification import LitClassifier
from mnist_lit.training.run_folders import Run


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load()


def test_probabilities_are_those_of_the_trained_network(brief_run: Run) -> None:
    data = MNISTDataModule()
    data.setup()
    images = data.images("test").pixels[:700]
    lit = LitClassifier.load_from_checkpoint(brief_run.best, weights_only=True).eval()
    with torch.no_grad():
        logits = lit.network(images / 255)
    classifier = Classifier.load(brief_run.best)
    expected = (logits / classifier.temperature).softmax(dim=1)

    torch.testing.assert_close(classifier.probabilities(images / 255), expected)
    torch.testing.assert_close(classifier.probabilities(images), expected)
    assert classifier.probabilities(images[:0]).shape == (0, 10)


def test_temperature_changes_how_sure_and_not_what(brief_run: Run, tmp_path: Path) -> None:
    checkpoint = torch.load(brief_run.best, weights_only=True)
    warmer = {**checkpoint, "temperature": 2 * checkpoint["temperature"]}
    torch.save(warmer, tmp_path / "calm.pt")
    images = torch.rand(100, 1, 28, 28)
    before = Classifier.load(brief_run.best).probabilities(images)
    after = Classifier.load(tmp_path / "calm.pt").probabilities(images)

    assert torch.equal(before.argmax(1), after.argmax(1))
    assert (after.amax(1) < before.amax(1)).all()
    torch.testing.assert_close(after.sum(1), torch.ones(100))


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    made_by = {"version": "0.1.0", "config": {"data": {"dataset": "mnist"}}}
    network = {"hyper_parameters": {"network": "of tomorrow"}, "state_dict": {}}
    torch.save({"mnist_lit": made_by, **network}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no classifier"):
        Classifier.load(tmp_path / "other.pt")
    with pytest.raises(UserError, match="cannot be read"):
        Classifier.load(tmp_path / "missing.pt")


def test_network_of_other_things_reads_no_digits(brief_run: Run, tmp_path: Path) -> None:
    checkpoint = torch.load(brief_run.best, weights_only=True)
    checkpoint["classes"] = [f"clothes {number}" for number in range(10)]
    torch.save(checkpoint, tmp_path / "clothes.pt")
    classifier = Classifier.load(tmp_path / "clothes.pt")

    assert classifier.probabilities(torch.rand(1, 1, 28, 28)).shape == (1, 10)
    with pytest.raises(UserError, match="other classes"):
        classifier.read(Image.new("L", (100, 100), 255))


def test_what_is_no_picture_at_all_is_refused(classifier: Classifier) -> None:
    with pytest.raises(TypeError, match="not list"):
        classifier.read([[0.0]])  # type: ignore[arg-type]
    with pytest.raises(PictureError, match=r"\(2, 28, 28\) of uint8: \(H, W\), \(H, W, 3\)"):
        classifier.read(np.zeros((2, 28, 28), np.uint8))


def test_arrays_and_tensors_are_read_as_the_picture_that_they_are(classifier: Classifier) -> None:
    picture = _drawn(SEVEN)
    expected = classifier.read(picture)
    grey = np.asarray(picture)
    rgb = np.asarray(picture.convert("RGB"))
    given: dict[str, NDArray[Any] | torch.Tensor] = {
        "grey": grey,
        "grey, bool": grey > 127,
        "grey, float": grey / 255,
        "grey, int64": grey.astype(np.int64),
        "grey, uint16": grey.astype(np.uint16) * 257,
        "RGB": rgb,
        "RGB, mirrored twice": rgb[:, ::-1].copy()[:, ::-1],
        "RGB, float": rgb.astype(np.float32) / 255,
        "RGB, channels first": np.moveaxis(rgb, -1, 0),
        "RGBA": np.asarray(picture.convert("RGBA")),
        "tensor": torch.tensor(grey),
        "tensor, one channel": torch.tensor(grey)[None],
        "tensor, RGB": torch.tensor(rgb).permute(2, 0, 1) / 255,
        "tensor, bfloat16": (torch.tensor(grey) / 255).bfloat16().requires_grad_(),
    }

    assert expected.number == "7"
    for name, each in given.items():
        reading = classifier.read(each)
        assert reading.number == "7", name
        assert np.allclose(reading.digits[0].box, expected.digits[0].box, atol=1), name


def test_pages_are_read_one_by_one(classifier: Classifier, tmp_path: Path) -> None:
    pages = [_drawn(SEVEN), _drawn(ONE), Image.new("L", (300, 500), 255)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    first = classifier.read(tmp_path / "pages.tif")
    readings = classifier.read_pages(tmp_path / "pages.tif")

    assert (first.number, first.note) == ("7", "only the first page was read")
    assert [(reading.number, reading.note) for reading in readings] == [
        ("7", ""),
        ("1", ""),
        ("", ""),
    ]
    assert [reading.number for reading in classifier.read_pages(pages[1])] == ["1"]
    whole = joined(readings)
    assert whole.number == "7 1"
    assert [digit.line for digit in whole.digits] == [0, 1]


def test_example_in_the_documentation_is_true() -> None:
    failed, attempted = doctest.testmod(mnist_lit.reading.classifier)

    assert attempted == 5
    assert failed == 0


def test_reading_shows_itself_in_a_notebook(classifier: Classifier) -> None:
    canvas = Image.new("L", (280, 280), "white")
    nothing = classifier.read(canvas)
    ImageDraw.Draw(canvas).line([(140, 40), (140, 240)], fill="black", width=20)
    one = classifier.read(canvas)
    (seen,) = re.findall(r"data:image/png;base64,([^\"]+)", one._repr_html_())
    assert len(repr(one)) < 300, "images and probabilities would flood a terminal"

    assert ">1</p>" in one._repr_html_()
    with Image.open(io.BytesIO(base64.b64decode(seen))) as picture:
        assert np.array_equal(np.asarray(picture) > 127, one.digits[0].image[0].numpy() > 0.5)
    assert "no digit found" in nothing._repr_html_()


def test_images_of_another_shape_are_refused(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="28, 28"):
        classifier.probabilities(torch.zeros(28, 28))


@pytest.mark.slow
def test_preparation_costs_little_accuracy_on_mnist(classifier: Classifier) -> None:
    data = MNISTDataModule()
    data.setup()
    held_out = data.images("val")
    chosen = held_out.indices[:1000]
    images, labels = held_out.pixels[chosen], held_out.labels[chosen]
    plain = classifier.probabilities(images).argmax(1).eq(labels).double().mean().item()
    pictures = [
        stress.Stress(
            stress.encode(image[0].float().numpy()[..., None].repeat(3, 2) / 255), str(label)
        )
        for image, label in zip(images, labels.tolist(), strict=True)
    ]
    prepared = stress.share_right(classifier, pictures)

    assert plain > 0.985
    assert prepared >= plain - 0.008


def test_other_views_turn_and_slant_either_way() -> None:
    bar = torch.zeros(1, 1, 28, 28)
    bar[..., 4:24, 13:15] = 1
    seen = tta_views(bar.expand(3, -1, -1, -1)).view(4, 3, 28, 28)
    tops = [(image[5] @ torch.arange(28.0) / image[5].sum()).item() for image in seen[:, 0]]
    bottoms = [(image[22] @ torch.arange(28.0) / image[22].sum()).item() for image in seen[:, 0]]
    leaning = [top - bottom for top, bottom in zip(tops, bottoms, strict=True)]

    assert torch.equal(seen[:, 0], seen[:, 2])
    expected = 17 * math.tan(math.radians(8))
    assert sorted(leaning) == pytest.approx([-expected, -expected, expected, expected], abs=0.3)


def _drawn(*strokes: list[tuple[int, int]]) -> Image.Image:
    """Strokes of a round pen, 16 pixels wide, from point to point on white."""
    picture = np.full((300, 500), 255, np.uint8)
    cv2.polylines(picture, [np.array(points) for points in strokes], False, 0, 16, cv2.LINE_AA)
    return Image.fromarray(picture)


FOUR = [(100, 60), (85, 160), (150, 160)], [(185, 60), (180, 250)]
ONE = [(330, 50), (325, 250)]
SEVEN = [(100, 60), (210, 60), (150, 250)]
BROKEN_FIVE = (
    [(110, 50), (200, 45)],
    [(112, 120), (110, 150), (150, 140), (185, 170), (180, 215), (140, 240), (100, 230)],
)


def _half(stroke: list[tuple[int, int]], right: int, down: int) -> list[tuple[int, int]]:
    """Half as large, and moved."""
    return [(x // 2 + right, y // 2 + down) for x, y in stroke]


@pytest.mark.parametrize(
    ("strokes", "number"),
    [
        (FOUR, "4"),
        ([*FOUR, ONE], "41"),
        (BROKEN_FIVE, "5"),
        ([SEVEN, [(60, 285), (260, 285)]], "7"),
        ([_half(ONE, 0, 0), _half(SEVEN, 100, 120)], "1 7"),
        ([_half(SEVEN, 0, 0), _half(ONE, -60, 130), _half(SEVEN, 90, 140)], "7 17"),
        ([_half(ONE, 0, 0), _half(ONE, 70, 0)], "11"),
        ([_half(SEVEN, 0, 0), _half(ONE, 80, 0)], "71"),
    ],
    ids=[
        *("open four", "open four and one"),
        *("broken five", "underlined seven", "one above seven", "two lines"),
        *("two strokes", "seven and one"),
    ],
)
def test_drawn_numbers_are_read(
    classifier: Classifier, strokes: list[list[tuple[int, int]]], number: str
) -> None:
    assert classifier.read(_drawn(*strokes)).number == number


def test_line_drawn_under_a_number_is_no_part_of_it(classifier: Classifier) -> None:
    data = MNISTDataModule()
    data.setup()
    held_out = data.images("val")
    random = np.random.default_rng(0)
    num_right = 0
    for chosen in held_out.indices[:120].view(40, 3):
        digits = list(held_out.pixels[chosen, 0].float().numpy() / 255)
        sheet = np.pad(stress.write(digits, 100, 0.02, random), ((40, 90), (60, 60)))
        height, width = sheet.shape
        cv2.line(sheet, (45, height - 75), (width - 45, height - 80), 1, 8, cv2.LINE_AA)
        number = "".join(map(str, held_out.labels[chosen].tolist()))
        reading = classifier.read(Image.fromarray((255 * (1 - sheet)).astype(np.uint8)))
        num_right += reading.number == number

    assert num_right >= 36


NUM_PICTURES = 50


@pytest.mark.slow
def test_model_card_states_what_is_measured(classifier: Classifier) -> None:
    card = package.read_card()

    assert card["test images, as they are"] > 0.99
    assert card["calibration error"] < 0.005
    for name, share in package.measure(classifier).items():
        assert share == pytest.approx(card[name], abs=2e-4), name  # two images


@pytest.mark.slow
@pytest.mark.parametrize("kind", stress.KINDS)
def test_pictures_as_people_make_them_are_read(classifier: Classifier, kind: str) -> None:
    """Fewer pictures than the card's: within three standard deviations of it."""
    stated = package.read_card()[kind]
    share = stress.share_right(classifier, stress.make(kind, "test", NUM_PICTURES))

    assert share >= stated - 3 * (stated * (1 - stated) / NUM_PICTURES) ** 0.5


@pytest.mark.slow
def test_digits_of_other_writers_are_read_as_the_card_says(classifier: Classifier) -> None:
    share = stress.share_right(classifier, stress.other_writers())

    assert share == pytest.approx(package.read_card()[stress.OTHER_WRITERS], abs=0.005)

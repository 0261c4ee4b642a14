"""The finder: what is drawn for it, what it is asked, and what it sees."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mnist_lit.__main__ import main
from mnist_lit.reading.classifier import PACKAGED
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.finder.data import NewPages, PagesDataModule
from mnist_lit.finder.detector import Detector
from mnist_lit.finder.module import LitFinder, counts
from mnist_lit.finder.network import NUM_DIGITS, USUAL, Finder
from mnist_lit.finder.page import FAINT, HEIGHT, WIDTH, Page, where_they_touch
from mnist_lit.finder.pages import Drawer
from mnist_lit.finder.pen import Hand
from mnist_lit.finder.shapes import (
    CURSIVE,
    CURSIVE_FONTS,
    FONTS,
    FRAME,
    STEPS,
    ZERO,
    handwritten,
    printed,
    thinned,
)
from mnist_lit.finder.surroundings import cut_out
from mnist_lit.finder.targets import batch_of, loss, target

SMALL = ("--config=finder", "--model.width=16", "--data.num_pages=36", "--data.batch_size=12")
FEW = ("--trainer.limit_val_batches=2", "--trainer.limit_test_batches=2")
CPU = ("--trainer.precision=32-true", "--trainer.log_every_n_steps=1", *FEW)


@pytest.fixture(scope="module")
def drawer(data_dir: Path) -> Drawer:
    data = MNISTDataModule(data_dir=str(data_dir))
    data.setup()
    train = data.images("train")
    return Drawer(train.pixels[:2000], train.labels[:2000])


@pytest.fixture(scope="module")
def pages(drawer: Drawer) -> list[Page]:
    return [drawer.draw(np.random.default_rng(number)) for number in range(100)]


def answering(target: Tensor) -> Tensor:
    """What a finder would have to say for a target, without any doubt."""
    logits = (target[:, :NUM_DIGITS].clamp(1e-4, 1 - 1e-4)).logit()
    return torch.cat([logits, target[:, NUM_DIGITS:-1]], dim=1)


class Told(nn.Module):
    """A network that says what it was told of a page, and nothing of the page in other sizes."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, ink: Tensor) -> Tensor:
        margin = 6  # cells, of the paper that is put around what is looked at
        framed = torch.full((1, 12, ink.shape[2] // 2, ink.shape[3] // 2), -20.0)
        if ink.shape[2:] == (HEIGHT + 24, WIDTH + 24):
            framed[:, :, margin:-margin, margin:-margin] = self.answer
        return framed


def test_a_page_is_the_same_whenever_it_is_drawn_and_no_two_are_alike(drawer: Drawer) -> None:
    first, again, other = (drawer.draw(np.random.default_rng(seed)) for seed in (7, 7, 8))

    assert np.array_equal(first.ink, again.ink)
    assert first.digits == again.digits
    assert not np.array_equal(first.ink, other.ink)


def test_pages_have_all_digits_and_their_boxes_hold_ink(pages: list[Page]) -> None:
    labels = [label for page in pages for label, *_ in page.digits]

    assert set(labels) == set(range(10))
    assert any(not page.digits for page in pages), "a page may have none"
    for page in pages:
        assert page.ink.shape == (HEIGHT, WIDTH)
        assert 0 <= page.ink.min() <= page.ink.max() <= 1
        for _, left, top, right, bottom in page.digits:
            assert 0 <= left < right <= WIDTH
            assert 0 <= top < bottom <= HEIGHT
    inside = [
        page.ink[int(top) : int(bottom), int(left) : int(right)].max()
        for page in pages
        for _, left, top, right, bottom in page.digits
    ]
    assert np.mean(np.array(inside) > 0.4) > 0.97


@pytest.mark.parametrize("seed", range(20))
def test_digits_that_touch_are_as_near_as_their_ink_lets_them(drawer: Drawer, seed: int) -> None:
    random = np.random.default_rng(seed)
    hand = Hand.any(random)
    left, right = (hand.draw(drawer.written[0], 2 * seed + n, 28, random) > FAINT for n in (0, 1))
    x = round(where_they_touch(left, 0, 0, right, seed - 10))

    def ink_of_both(at: int) -> int:
        sheet = np.zeros((2, 99, 99), int)
        sheet[0, 30 : 30 + left.shape[0], 30 : 30 + left.shape[1]] = left
        top = 20 + seed
        sheet[1, top : top + right.shape[0], 30 + at : 30 + at + right.shape[1]] = right
        return int(sheet.prod(axis=0).sum())

    assert ink_of_both(x) == 0
    assert ink_of_both(x - 1) > 0


@pytest.mark.parametrize(
    ("right", "is_digit", "is_unclear"),
    [(90, True, False), (85, True, False), (83, False, True), (72, False, False)],
)
def test_what_the_edge_cuts_off_is_a_digit_or_unclear_or_none(
    right: int, is_digit: bool, is_unclear: bool
) -> None:
    page = Page()
    page.put(np.ones((30, 20), np.float32), 70, 20, label=3)
    page.cut(0, 0, right, HEIGHT)

    assert bool(page.digits) == is_digit
    assert bool(page.unclear) == is_unclear
    assert page.ink[:, right:].max() == 0


def test_a_digit_that_is_to_be_seen_is_told_wherever_others_are() -> None:
    num_whole = 0
    for seed in range(200):
        page = Page()
        page.put(np.ones((30, 20), np.float32), 80, 30, label=3)
        page.put(np.ones((30, 20), np.float32), -28, 30, label=4)
        cut_out(page, np.random.default_rng(seed))
        is_whole = bool(page.ink[30:60, 80:100].all())
        num_whole += is_whole
        assert not is_whole or page.digits == [(3, 80, 30, 100, 60)]
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


def test_a_pen_draws_a_digit_as_wide_as_it_is(drawer: Drawer) -> None:
    images, labels = torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.tensor([1])
    images[0, 0, 4:24, 12:16] = 255
    as_it_is, strokes = handwritten(images, labels)
    for pen in (1.0, 3.0):
        middle = (strokes.field(0)[FRAME // 2].astype(float) - ZERO) / STEPS
        assert (middle < pen).sum() == pytest.approx(2 * pen, abs=1.1)
    assert ((as_it_is.field(0)[FRAME // 2].astype(float) - ZERO) < 0).sum() == 8


def test_some_loops_are_open(drawer: Drawer) -> None:
    zero = int((drawer.written[1].labels == 0).argmax())
    hand = Hand(by_pen=True, pen=0.5, soft=0.8, strength=1.0, slant=0.0, bend=0.0)
    draws = [hand.draw(drawer.written[1], zero, 28, np.random.default_rng(n)) for n in range(200)]
    sheets = [np.pad(ink <= FAINT, 1, constant_values=True).view(np.uint8) for ink in draws]
    num_open = sum(cv2.connectedComponents(sheet, connectivity=4)[0] == 2 for sheet in sheets)

    assert 10 < num_open < 60, "of paper there is one piece, not one around and one within"


def test_letters_in_loops_are_letters() -> None:
    shapes, strokes = printed(CURSIVE, CURSIVE_FONTS)
    fields = [shapes.field(0), shapes.field(27), strokes.field(0)]  # A, b, A

    assert (shapes.labels == -1).all()
    assert all(20 < (field <= ZERO).sum() < 800 for field in fields)
    assert len({field.tobytes() for field in fields}) == 3
    plain = printed("A")[0].field(FONTS.index("STIXGeneral"))
    assert not np.array_equal(fields[0], plain)


def test_a_pen_leaves_no_dot_out() -> None:
    _, strokes = printed("!i:.")
    for index in range(4 * len(FONTS)):
        ink = (strokes.field(index) <= ZERO).view(np.uint8)
        assert cv2.connectedComponents(ink)[0] == 1 + (2, 2, 2, 1)[index % 4]


def test_marks_and_letters_stand_as_they_do_beside_a_digit() -> None:
    by_printer, by_pen = printed("8Axg.'")
    digit, capital, low, hanging, dot, quote = by_printer.lower[:6]

    assert np.array_equal(by_printer.lower, by_pen.lower)
    assert digit == 0
    assert abs(capital) < 0.03
    assert quote < -0.2 < 0 < low < 0.2 < hanging < dot < 0.5


def test_the_right_answer_is_better_than_nothing_and_that_than_a_wrong_one(
    pages: list[Page],
) -> None:
    _, targets = batch_of(pages[:20])
    right = answering(targets)
    nothing = torch.full_like(right, -6.0)
    wrong = torch.cat([right[:, [*range(1, NUM_DIGITS), 0]], right[:, NUM_DIGITS:]], dim=1)
    losses = [float(loss(answer, targets)) for answer in (right, nothing, wrong)]

    assert losses[0] < 0.2
    assert losses == sorted(losses)
    num_there = sum(len(page.digits) for page in pages[:20])
    assert counts(right, targets).tolist() == pytest.approx([num_there, num_there], abs=3)
    assert counts(nothing, targets).tolist() == [0, num_there]
    assert counts(wrong, targets)[0] == 0


def test_what_is_unclear_is_not_asked() -> None:
    page = Page(unclear=[(40, 20, 70, 60)])
    answer = torch.full((1, 12, HEIGHT // 2, WIDTH // 2), -9.0)
    _, targets = batch_of([page])
    before = float(loss(answer, targets))
    answer[0, 4, 20, 27] = 9.0

    assert float(loss(answer, targets)) == before
    answer[0, 4, 20, 60] = 9.0
    assert float(loss(answer, targets)) > before + 1


def test_detector_finds_the_boxes_that_were_asked_for(pages: list[Page]) -> None:
    num_found = num_there = 0
    for page in pages[:40]:
        answer = answering(torch.from_numpy(target(page))[None])
        ink = (255 * page.ink).astype(np.uint8)
        ink[0, 0] = ink[-1, -1] = 255  # all of the page has ink, what is around it has none
        seen = Detector(Told(answer)).detect(np.pad(ink, ((30, 9), (50, 70))), [USUAL])
        assert seen is not None
        num_there += len(page.digits)
        for label, *box in page.digits:
            moved = torch.tensor(box) + torch.tensor([50, 30, 50, 30])
            is_near = (seen.boxes - moved).abs().amax(dim=1) <= 1.5
            num_found += bool((is_near & (seen.probs.argmax(dim=1) == label)).any())

    assert num_there > 50
    assert num_found >= 0.95 * num_there, "some that overlap are taken for one"


def test_finder_learns_and_goes_on_to_the_very_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"--trainer.default_root_dir={tmp_path / name}" for name in ("whole", "parts")]
    three = ["finder", *SMALL, *CPU, "--trainer.max_epochs=3", "--model.schedule=constant"]
    assert main([*three, places[0]]) == 0
    printed = capsys.readouterr().out
    assert main([*three, places[1], "--trainer.max_epochs=1"]) == 0
    last = tmp_path / "parts" / "lightning_logs" / "finder_0" / "checkpoints" / "last.ckpt"
    assert main([*three, places[1], f"--ckpt_path={last}"]) == 0

    whole, parts = (tmp_path / name / "lightning_logs/finder_0" for name in ("whole", "parts"))
    results = json.loads((whole / "results.json").read_text())
    assert results["epochs"] == 3
    with (whole / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert losses[-1] < losses[0] - 0.3, "nine steps: from 4.8 to 4.1"
    assert results["test/loss"] > 0
    assert (whole / "figures" / "pages.png").stat().st_size > 10_000
    assert "of the digits of test pages found right" in printed
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, parts)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    seen = Detector.load(whole / "checkpoints" / "best.ckpt").detect(
        np.zeros((50, 70), np.uint8), [28]
    )
    assert seen is not None
    assert seen.boxes.isfinite().all()
    capsys.readouterr()
    assert main([*three, places[1], "--ckpt_path=last", "--data.num_pages=24"]) == 2
    assert "data.num_pages" in capsys.readouterr().err
    assert main(["report", str(whole)]) == 2
    assert "is no run of fit" in capsys.readouterr().err


def test_whether_a_finder_has_answers_does_not_change_it() -> None:
    model = LitFinder(width=8).train()
    before = {name: part.clone() for name, part in model.state_dict().items()}

    assert model.has_answers()
    assert model.training
    assert all(torch.equal(before[name], part) for name, part in model.state_dict().items())


def test_finder_takes_another_optimizer(tmp_path: Path) -> None:
    place = f"--trainer.default_root_dir={tmp_path}"
    options = ["--trainer.fast_dev_run=1", "--optimizer=AdamW", "--model.schedule=constant"]

    assert main(["finder", *SMALL, *CPU, place, *options]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.lr=-1"], "model.lr"),
        (["--model.width=15"], "model.width: an even number"),
        (["--data.augment.shift_px=1"], "data.augment"),
        (["--trainer.devices=2", "--trainer.strategy=ddp"], "one process"),
    ],
)
def test_finder_says_what_is_wrong_with_its_options(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"--trainer.default_root_dir={tmp_path}"
    assert main(["finder", *SMALL, place, *options]) == 2
    error = capsys.readouterr().err

    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_finder_help_is_its_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finder", "--help"]) == 0
    assert "num_pages: 6000" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["finder", "--trainer.help"])
    assert "--trainer.accumulate_grad_batches" in capsys.readouterr().out


def test_fit_says_that_the_recipe_is_not_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config=finder"]) == 2
    error = capsys.readouterr().err
    assert "data.num_pages" in error or "model.width" in error
    assert error.count("\n") == 1
    assert main(["fit", "--help"]) == 0
    assert "finder" not in capsys.readouterr().out


def test_a_classifier_is_no_finder() -> None:
    with pytest.raises(UserError, match="holds no finder"):
        Detector.load(PACKAGED)


def test_validation_pages_have_digits_that_no_training_page_has(data_dir: Path) -> None:
    data = PagesDataModule(data_dir=str(data_dir), num_pages=10)
    data.setup()
    train, val = (set(data.images(name).indices.tolist()) for name in ("train", "val"))

    assert not train & val
    assert len(train) + len(val) == 60_000


def test_no_training_page_comes_twice(data_dir: Path) -> None:
    data = PagesDataModule(data_dir=str(data_dir), num_pages=6, batch_size=4)
    data.setup()
    loader = data.train_dataloader()
    sampler = loader.sampler
    assert isinstance(sampler, NewPages)
    numbers: list[int] = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        numbers += [position for batch in sampler for position in batch.tolist()]

    assert numbers == list(range(12))


def test_finder_takes_pictures_of_any_size() -> None:
    network = Finder(16).eval()
    with torch.no_grad():
        answer = network(torch.zeros(2, 1, 36, 52))

    assert answer.shape == (2, 12, 18, 26)
    assert (answer[:, :NUM_DIGITS].sigmoid() < 0.02).all(), "before it has learned anything"

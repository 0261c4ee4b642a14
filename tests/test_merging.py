"""What two networks say of a picture, made one."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mnist_lit.finder.detector import Detections
from mnist_lit.finder.merging import merged
from mnist_lit.pictures import Box
from mnist_lit.pictures.sheet import Sheet
from mnist_lit.reading import Digit

SHEET = Sheet(np.zeros((100, 100), np.uint8), (28.0,), 1.0, is_canvas=False)
WHOLE, STROKE, ELSEWHERE = (20, 20, 60, 80), (25, 22, 35, 78), (70, 20, 95, 80)


def sees(*seen: tuple[Box, int, float]) -> Detections:
    """What a finder sees: boxes, and which digit is there, and how probable that is."""
    boxes = torch.tensor([box for box, *_ in seen], dtype=torch.float32)
    probs = torch.full((len(seen), 10), 0.01)
    for number, (_, digit, prob) in enumerate(seen):
        probs[number, digit] = prob
    return Detections(boxes, probs)


def reads(box: Box, digit: int, prob: float) -> Digit:
    probs: Tensor = torch.full((10,), (1 - prob) / 9)
    probs[digit] = prob
    return Digit(digit, prob, box, probs, torch.zeros(1, 28, 28))


@pytest.mark.parametrize(
    ("prob", "read", "digits"),
    [(0.3, 7, []), (0.3, 4, [4]), (0.5, 7, [4]), (0.1, 4, [])],
    ids=["too faint", "faint, but for both", "clear for one", "too faint for both"],
)
def test_the_finder_says_what_is_there(prob: float, read: int, digits: list[int]) -> None:
    both = merged(SHEET, [reads(WHOLE, read, 0.5)], sees((WHOLE, 4, prob)))

    assert [digit.digit for digit in both] == digits


def test_what_only_rules_have_found_is_not_there() -> None:
    both = merged(SHEET, [reads(WHOLE, 4, 0.99), reads(ELSEWHERE, 1, 0.99)], sees((WHOLE, 4, 0.9)))

    assert [digit.box for digit in both] == [WHOLE]


def test_what_only_the_finder_sees_is_there() -> None:
    (digit,) = merged(SHEET, [reads(ELSEWHERE, 1, 0.99)], sees((WHOLE, 4, 0.9)))

    assert (digit.digit, digit.box) == (4, WHOLE)
    assert digit.probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize("box", [(-9, -9, -2, -4), (104, 20, 110, 60), (50.1, 50.1, 50.3, 50.2)])
def test_a_box_has_a_pixel_of_the_picture(box: Box) -> None:
    (digit,) = merged(SHEET, [], sees((box, 4, 0.9)))
    left, top, right, bottom = digit.box

    assert 0 <= left < right <= 100
    assert 0 <= top < bottom <= 100


def test_who_agree_are_surer_than_who_do_not() -> None:
    seen = sees((WHOLE, 4, 0.7))
    agree, alone, differ = (
        merged(SHEET, read, seen)[0]
        for read in ([reads(WHOLE, 4, 0.9)], [], [reads(WHOLE, 9, 0.9)])
    )

    assert agree.confidence > alone.confidence > differ.confidence
    assert differ.probabilities.topk(2).indices.tolist() == [4, 9]


@pytest.mark.parametrize(
    ("box", "is_same"),
    [((20, 20, 60, 80), True), ((22, 20, 90, 80), True), ((20, 20, 40, 80), False)],
    ids=["the same", "too large", "of one of two that touch"],
)
def test_a_box_that_is_too_large_may_be_the_same_digit_s_and_half_of_one_not(
    box: Box, is_same: bool
) -> None:
    (digit,) = merged(SHEET, [reads(WHOLE, 4, 0.99)], sees((box, 9, 0.5)))

    assert (digit.box == WHOLE) == is_same


def test_a_stroke_of_a_digit_is_no_digit() -> None:
    seen = sees((STROKE, 1, 0.5), (WHOLE, 4, 0.4), (ELSEWHERE, 1, 0.5))

    assert [digit.digit for digit in merged(SHEET, [reads(WHOLE, 4, 0.9)], seen)] == [4, 1]
    assert [digit.digit for digit in merged(SHEET, [], seen)] == [1, 1], "the clearer one"

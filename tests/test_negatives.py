"""Negative examples: parts and pairs of digits."""

import pytest
import small
import torch
from torch import Tensor

from mnist_lit.data.negatives import make_negatives


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return small.digits(True)[0][:500] / 255


def _sides(images: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of the ink, in pixels."""
    ink = images[:, 0] > 0.3
    return ink.any(dim=1).sum(dim=1), ink.any(dim=2).sum(dim=1)


def test_they_are_as_large_and_central_as_digits_are(digits: Tensor) -> None:
    torch.manual_seed(0)
    made = make_negatives(digits)
    longest = torch.maximum(*_sides(made)).float()

    assert made.shape == digits.shape
    assert made.min() >= 0
    assert made.max() <= 1
    assert longest.median() == pytest.approx(20, abs=1)
    middle = made[:, 0].mean(dim=0)
    places = torch.arange(28.0)
    assert (middle.sum(dim=0) @ places / middle.sum()).item() == pytest.approx(13.5, abs=0.5)
    assert (middle.sum(dim=1) @ places / middle.sum()).item() == pytest.approx(13.5, abs=0.5)


def test_most_are_two_digits_beside_each_other(digits: Tensor) -> None:
    torch.manual_seed(0)
    width, height = _sides(make_negatives(digits))
    usual_width, usual_height = _sides(digits)

    assert (usual_width > usual_height).float().mean() < 0.15
    assert (width > height).float().mean() > 0.5


def test_none_is_the_digit_it_was_made_of(digits: Tensor) -> None:
    torch.manual_seed(0)
    difference = (make_negatives(digits) - digits).abs().sum((1, 2, 3)) / digits.sum((1, 2, 3))

    assert difference.quantile(0.05) > 0.4


@pytest.mark.parametrize("num", [0, 1])
def test_one_image_is_enough_and_none_is_none(num: int, digits: Tensor) -> None:
    assert make_negatives(digits[:num]).shape == (num, 1, 28, 28)

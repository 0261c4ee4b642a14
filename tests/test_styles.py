"""1, 3, 7 and 9 as much of the world writes them."""

import pytest
import small
import torch
from torch import Tensor

from mnist_lit.data.styles import STROKES, with_styles
from mnist_lit.synthetic import data as synthetic


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images, labels = small.digits(True)
    return images[:2000] / 255, labels[:2000]


def _width_near_top(images: Tensor) -> Tensor:
    """In how many columns the upper half of a digit has ink."""
    return (images[:, 0, 4:14] > 0.5).any(dim=1).sum(dim=1).float()


def test_some_1s_7s_and_9s_get_more_ink_and_all_else_stays(digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits
    torch.manual_seed(0)
    made = with_styles(images, labels, share=0.3)
    changed = (made != images).flatten(1).any(dim=1)
    may_change = (labels == 1) | (labels == 7) | (labels == 9)

    assert not changed[~may_change].any()
    assert changed[may_change].float().mean() == pytest.approx(0.3, abs=0.06)
    assert made.min() >= 0
    assert made.max() <= 1
    more = made.sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert (more[changed] > 1.02).float().mean() > 0.9


def test_1s_get_an_upstroke_and_7s_a_bar(digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits
    torch.manual_seed(0)
    made = with_styles(images, labels, share=1.0)
    ones, sevens = labels == 1, labels == 7

    assert _width_near_top(made[ones]).mean() > _width_near_top(images[ones]).mean() + 2
    widths = [(of[sevens][:, 0, 13:17] > 0.5).any(dim=1).sum(dim=1) for of in (images, made)]
    assert (widths[1] > widths[0]).float().mean() > 0.8


def test_detectors_1s_have_longer_upstrokes_and_its_3s_tails(digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits
    room = torch.nn.functional.pad(images, [synthetic.PADDING_PX] * 4)
    torch.manual_seed(0)
    usual, made = (with_styles(room, labels, 1.0, styles) for styles in (STROKES, synthetic.STYLES))
    ink = [of[labels == 1].sum((1, 2, 3)) for of in (usual, made)]
    widths = [(of[labels == 3] > 0.5).any(dim=2).sum((1, 2)).float() for of in (room, made)]

    assert ink[1].mean() > ink[0].mean()
    assert torch.equal(usual[labels == 3], room[labels == 3])
    assert (widths[1] - widths[0]).mean() > 2


def test_they_are_centred_as_digits_are(digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits
    made = with_styles(images, labels, share=1.0)[labels == 1, 0]
    place = torch.arange(28.0)

    for ink in (made.sum(dim=1), made.sum(dim=2)):
        centre = ink @ place / ink.sum(dim=1)
        assert (centre - 14).abs().quantile(0.95) < 1


def test_broken_stroke_is_no_trouble(digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits
    sevens = images[labels == 7].clone()
    sevens[:, :, 11:17] = 0
    made = with_styles(sevens, torch.full((len(sevens),), 7), share=1.0)

    assert made.isfinite().all()

"""Random warps."""

import math

import pytest
import small
import torch

from mnist_lit.data.augment import Augment


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return small.digits(True)[0][:500] / 255


def _bar() -> torch.Tensor:
    """An upright bar through the middle, twice as tall as it is far from the edges."""
    image = torch.zeros(1, 1, 28, 28)
    image[..., 7:21, 13:15] = 1
    return image


def _moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centre (right, down) and covariance (B, 2, 2) of the ink, in pixels."""
    place = torch.arange(28.0)
    ink = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
    right, down = (ink.sum(1) * place).sum(1), (ink.sum(2) * place).sum(1)
    x = place[None] - right[:, None]
    y = place[None] - down[:, None]
    xx, yy = (ink.sum(1) * x**2).sum(1), (ink.sum(2) * y**2).sum(1)
    xy = torch.einsum("bij,bi,bj->b", ink, y, x)
    return right, down, torch.stack([xx, xy, xy, yy], 1).reshape(-1, 2, 2)


def _tilt_deg(images: torch.Tensor) -> torch.Tensor:
    """Compute the angle between the bar and the vertical."""
    covariance = _moments(images)[2]
    angle = torch.atan2(2 * covariance[:, 0, 1], covariance[:, 1, 1] - covariance[:, 0, 0]) / 2
    return angle * 180 / math.pi


def test_nothing_is_changed_unless_asked(digits: torch.Tensor) -> None:
    assert Augment()(digits) is digits


def test_rotation_stays_within_its_limit_and_reaches_it() -> None:
    torch.manual_seed(0)
    tilt = _tilt_deg(Augment(rotate_deg=20)(_bar().expand(500, -1, -1, -1)))

    assert 18 < tilt.max() < 21
    assert -21 < tilt.min() < -18
    assert abs(tilt.mean()) < 2


def test_shear_slants_and_keeps_the_height() -> None:
    torch.manual_seed(0)
    slanted = Augment(shear_deg=20)(_bar().expand(500, -1, -1, -1))
    height = _moments(slanted)[2][:, 1, 1].sqrt()

    assert 17 < _tilt_deg(slanted).max() < 22
    assert height.max() / height.min() < 1.05


def test_shift_is_in_pixels() -> None:
    torch.manual_seed(0)
    right, down, _ = _moments(Augment(shift_px=3)(_bar().expand(500, -1, -1, -1)))

    for centre in (right, down):
        assert 2.8 < (centre - 13.5).max() < 3.01
        assert -3.01 < (centre - 13.5).min() < -2.8


def test_scale_is_a_share_of_the_size() -> None:
    torch.manual_seed(0)
    height = _moments(Augment(scale=0.25)(_bar().expand(500, -1, -1, -1)))[2][:, 1, 1].sqrt()
    relative = height / _moments(_bar())[2][:, 1, 1].sqrt()

    assert 1.2 < relative.max() < 1.27
    assert 0.78 < relative.min() < 0.83


def test_elastic_warp_bends_but_keeps_the_digit(digits: torch.Tensor) -> None:
    torch.manual_seed(0)
    warped = Augment(elastic_px=1.0)(digits)

    assert warped.shape == digits.shape
    assert warped.min() >= 0
    assert warped.max() <= 1
    assert warped.sum() == pytest.approx(digits.sum().item(), rel=0.05)
    assert (warped - digits).abs().mean() > 0.01


def test_every_image_is_warped_in_its_own_way() -> None:
    torch.manual_seed(0)
    augment = Augment(rotate_deg=8, shear_deg=6, scale=0.1, shift_px=2, elastic_px=1)
    warped = augment(_bar().expand(100, -1, -1, -1))

    assert len({tuple(image.flatten().tolist()) for image in warped}) == 100


def test_another_pen_moves_the_edges_of_strokes_by_a_pixel_at_most(digits: torch.Tensor) -> None:
    torch.manual_seed(0)
    bars = _bar().expand(500, -1, -1, -1)
    thickness = Augment(stroke_px=1)(bars)[:, 0, 14].sum(1)

    assert 3.9 < thickness.max() <= 4
    assert 0 <= thickness.min() < 0.1
    assert thickness.mean() == pytest.approx(2, abs=0.2)


def test_low_resolution_takes_details_and_leaves_ink_and_place(digits: torch.Tensor) -> None:
    torch.manual_seed(0)
    coarse = Augment(low_resolution=1)(digits)

    assert _roughness(coarse) < 0.8 * _roughness(digits)
    assert coarse.sum() == pytest.approx(digits.sum().item(), rel=0.02)
    for before, after in zip(_moments(digits)[:2], _moments(coarse)[:2], strict=True):
        assert (before - after).abs().max() < 0.5


def _roughness(images: torch.Tensor) -> float:
    return images.diff(dim=-1).abs().mean().item()


def test_mirror_changes_the_sides_of_its_share_of_images(digits: torch.Tensor) -> None:
    torch.manual_seed(0)
    seen = Augment(mirror=0.3)(digits)
    kept = torch.isclose(seen, digits, atol=1e-4).flatten(1).all(1)
    mirrored = torch.isclose(seen, digits.flip(-1), atol=1e-4).flatten(1).all(1)

    assert (kept | mirrored).all()
    assert mirrored.float().mean() == pytest.approx(0.3, abs=0.07)


def test_low_resolution_of_tiny_images_changes_them() -> None:
    tiny = torch.rand(2, 1, 8, 8)
    seen = Augment(low_resolution=1.0)(tiny)

    assert seen.shape == tiny.shape
    assert not torch.equal(seen, tiny)

"""Learning rates and the logging of training metrics."""

import math

import pytest

from mnist_lit.training.module import one_cycle


@pytest.mark.parametrize(
    ("progress", "share"),
    [(0.0, 0.04), (0.1, 0.52), (0.2, 1.0), (0.6, 0.5), (1.0, 0.0)],
)
def test_one_cycle_rises_and_falls(progress: float, share: float) -> None:
    assert one_cycle(progress, warmup=0.2) == pytest.approx(share)


def test_one_cycle_without_warmup_only_falls() -> None:
    assert one_cycle(0.0, warmup=0.0) == 1.0


def test_one_cycle_may_be_asked_before_the_length_is_known() -> None:
    assert one_cycle(0 / math.inf, warmup=0.2) == pytest.approx(0.04)

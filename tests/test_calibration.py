"""Calibration of the confidence."""

import pytest
import torch
from conftest import results_of

from mnist_lit import Classifier
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.training.calibration import calibration_error, fit_temperature
from mnist_lit.training.run_folders import Run


def _honest_logits(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits, and labels drawn with just the probabilities that they state."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(num, 10, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).flatten()
    return logits, labels


@pytest.mark.parametrize("boast", [0.5, 1.0, 2.0])
def test_temperature_undoes_what_makes_a_network_too_sure(boast: float) -> None:
    logits, labels = _honest_logits(4_000)

    assert fit_temperature(logits * boast, labels) == pytest.approx(boast, rel=0.05)


def test_error_is_small_for_an_honest_network_and_large_for_a_boaster() -> None:
    logits, labels = _honest_logits(20_000)

    assert calibration_error(logits.softmax(1), labels) < 0.01
    assert calibration_error((2 * logits).softmax(1), labels) > 0.1


def test_temperature_has_a_limit_where_there_is_no_mistake() -> None:
    assert fit_temperature(torch.eye(10), torch.arange(10)) == pytest.approx(0.2)


def test_a_finished_run_is_calibrated_on_its_validation_images(brief_run: Run) -> None:
    classifier = Classifier.load(brief_run.best)
    data = MNISTDataModule()
    data.setup()
    test = data.images("test")
    probs = classifier.probabilities(test.pixels)
    results = results_of(brief_run)

    assert classifier.temperature == results["temperature"] != 1
    error = calibration_error(probs, test.chosen_labels)
    assert error == pytest.approx(results["test/calibration_error"], abs=1e-4)

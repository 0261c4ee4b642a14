"""The figures of a run."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_lit.reports import figures

DIGITS = "0123456789"


def _answers(labels: list[int], confidence: float) -> torch.Tensor:
    rest = (1 - confidence) / 9
    probs = torch.full((len(labels), 10), rest)
    probs[torch.arange(len(labels)), torch.tensor(labels)] = confidence
    return probs


def test_predictions_tell_right_from_wrong() -> None:
    images = torch.rand(2, 1, 28, 28)
    figure = figures.predictions(images, torch.tensor([3, 8]), _answers([3, 5], 0.9), DIGITS)
    right, wrong = figure.axes[0].title, figure.axes[1].title

    assert (right.get_text(), right.get_color()) == ("read 3\n90.0%", figures.RIGHT)
    assert (wrong.get_text(), wrong.get_color()) == ("read 5, is 8\n90.0%", figures.WRONG)


def test_nothing_is_called_wholly_certain_that_is_not() -> None:
    images = torch.rand(1, 1, 28, 28)
    figure = figures.predictions(images, torch.tensor([3]), _answers([3], 0.99999), DIGITS)

    assert figure.axes[0].title.get_text() == "read 3\n99.9%"


def test_mistakes_come_surest_first() -> None:
    labels = torch.tensor([0, 1, 2])
    probs = torch.cat([_answers([9], 0.6), _answers([1], 0.9), _answers([8], 0.8)])
    figure = figures.mistakes(torch.rand(3, 1, 28, 28), labels, probs, DIGITS)
    titles = [axis.title.get_text() for axis in figure.axes if axis.title.get_text()]

    assert titles == ["read 8, is 2\n80.0%", "read 9, is 0\n60.0%"]


def test_no_mistakes_is_said() -> None:
    figure = figures.mistakes(
        torch.rand(1, 1, 28, 28), torch.tensor([3]), _answers([3], 0.9), DIGITS
    )

    assert figure.get_suptitle() == "No mistakes"


def test_confusion_counts() -> None:
    labels, answers = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 7, 1])
    (axis,) = figures.confusion(labels, answers, DIGITS).axes
    cells = {text.get_position(): text.get_text() for text in axis.texts}

    assert cells == {(0, 0): "2", (7, 0): "1", (1, 1): "1"}  # (answered, true)


def test_figure_shows_itself_in_a_notebook() -> None:
    figure = figures.curves({"train/loss": [(49, 1.0), (99, 0.5)]})

    with Image.open(io.BytesIO(figure._repr_png_())) as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10, "something is drawn"


def test_curves_of_a_run_that_never_validated() -> None:
    figure = figures.curves({"train/loss": [(49, 1.0), (99, 0.5)]})

    points = np.asarray(figure.axes[0].lines[0].get_xydata())

    assert points.tolist() == [[49, 1.0], [99, 0.5]]


def test_class_names_are_drawn_as_they_are() -> None:
    names = ["$\\frac{$", "a$b", "\udcff", *DIGITS[3:]]
    images, labels = torch.rand(3, 1, 28, 28), torch.tensor([0, 1, 2])
    drawn = figures.predictions(images, labels, _answers([0, 2, 2], 0.9), names)
    confusion = figures.confusion(labels, torch.tensor([0, 2, 2]), names)
    for figure in (drawn, confusion):
        figure.savefig(io.BytesIO(), format="png")

    titles = [axis.title.get_text() for axis in drawn.axes[:3]]
    assert titles == [
        "read $\\frac{$\n90.0%", "read \\udcff,\nis a$b\n90.0%", "read \\udcff\n90.0%"
    ]  # fmt: skip
    ticks = [tick.get_text() for tick in confusion.axes[0].get_xticklabels()]
    assert ticks[:3] == ["$\\frac{$", "a$b", "\\udcff"]


HISTORY = {
    "train/loss": [(0, 2.3), (50, 0.4), (99, 0.02)],
    "train/acc": [(0, 0.1), (50, 0.9), (99, 1.0)],
    "val/acc": [(99, 1.0)],
    "images_per_s": [(99, 1000.0)],
}


def _panels(history: dict[str, list[tuple[int, float]]]) -> list[str]:
    return [axis.get_title() for axis in figures.curves(history).axes]


def test_constant_learning_rate_has_no_panel() -> None:
    constant = {**HISTORY, "lr": [(0, 0.001), (50, 0.001)]}
    changing = {**HISTORY, "lr": [(0, 0.001), (50, 0.0)]}

    assert _panels(constant) == ["loss", "accuracy", "training images per second"]
    assert _panels(changing) == ["loss", "accuracy", "learning rate", "training images per second"]


def test_loss_is_logarithmic_unless_it_is_negative() -> None:
    negative = {**HISTORY, "train/loss": [(0, -1.0), (50, -2.0)]}

    assert figures.curves(HISTORY).axes[0].get_yscale() == "log"
    assert figures.curves(negative).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("losses", [(2.3, 0.2), (2.3, 0.00001), (0.161, 0.102)])
def test_loss_has_numbers_on_its_scale(losses: tuple[float, ...]) -> None:
    figure = figures.curves({**HISTORY, "train/loss": list(enumerate(losses))})
    figure.savefig(io.BytesIO(), format="png")
    axis = figure.axes[0]
    low, high = axis.get_ylim()
    ticks = axis.get_yticks(), axis.get_yticklabels()
    shown = [tick.get_text() for at, tick in zip(*ticks, strict=True) if low <= at <= high]

    assert len(shown) >= 2
    assert all(shown)


@pytest.mark.parametrize("accuracies", [(0.1, 0.9, 1.0), (1.0, 1.0, 1.0)])
def test_all_accuracies_are_in_view(accuracies: tuple[float, ...]) -> None:
    """The early ones as well as perfect ones, and 98 % and 99 % are apart."""
    history = {**HISTORY, "train/acc": list(enumerate(accuracies))}
    axis = figures.curves(history).axes[1]
    low, high = axis.get_ylim()
    heights = axis.transData.transform([(0, value) for value in (low, 0.98, 0.99, 1.0)])[:, 1]

    assert 0 <= low < min(accuracies)
    assert high == 1
    assert np.diff(heights / np.ptp(heights))[1] > 0.07

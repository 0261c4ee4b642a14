"""What the figures say."""

import io

import numpy as np
import torch
from PIL import Image

from mnist_lit import figures

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

    assert (right.get_text(), right.get_color()) == ("3   90.0%", figures.RIGHT)
    assert (wrong.get_text(), wrong.get_color()) == ("5   90.0%\nis 8", figures.WRONG)


def test_nothing_is_called_wholly_certain_that_is_not() -> None:
    images = torch.rand(1, 1, 28, 28)
    figure = figures.predictions(images, torch.tensor([3]), _answers([3], 0.99999), DIGITS)

    assert figure.axes[0].title.get_text() == "3   99.9%"


def test_mistakes_come_surest_first() -> None:
    labels = torch.tensor([0, 1, 2])
    probs = torch.cat([_answers([9], 0.6), _answers([1], 0.9), _answers([8], 0.8)])
    figure = figures.mistakes(torch.rand(3, 1, 28, 28), labels, probs, DIGITS)
    titles = [axis.title.get_text() for axis in figure.axes if axis.title.get_text()]

    assert titles == ["8   80.0%\nis 2", "9   60.0%\nis 0"]


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

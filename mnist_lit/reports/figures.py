"""The figures of a run, and their style: arrays in, matplotlib figures out."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_confusion_matrix

from mnist_lit.data.images import ImageSource
from mnist_lit.errors import printable
from mnist_lit.reports.measures import balanced_sample, surest_mistakes
from mnist_lit.reports.run_data import Points

# Blue and orange are distinct for the colour-blind, too. Source: Okabe and Ito, "Color Universal
# Design" (2008); their orange is darker here, to be legible as text on white.
BLUE, ORANGE = "#0072b2", "#c25100"
RIGHT, WRONG = BLUE, ORANGE
TRAINING = {"color": BLUE}
VALIDATION = {"color": ORANGE, "marker": "o"}
COUNTS = LinearSegmentedColormap.from_list("counts", ["#ffffff", ORANGE])
SIGNED = LinearSegmentedColormap.from_list("signed", [ORANGE, "#ffffff", BLUE])

STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # class names may contain $
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.25,
    "grid.color": "black",
    "figure.titlesize": 15,
    "axes.titlesize": 13,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
}
styled = mpl.rc_context(STYLE)
"""Decorator that gives a drawing function the style of all figures."""

MAX_NAME_LENGTH = 14  # of a class, in characters
MAX_TITLE_LENGTH = 18  # of a line above an image, in characters
MIN_ERROR_RATE = 0.003  # added to error rates, whose logarithm would be infinite at 0
NUM_SHOWN = 25  # images of a figure, at most
ACCURACY_TICKS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1)


class NotebookFigure(Figure):
    """A figure that notebooks display."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


@styled
def predictions(
    images: ImageSource, labels: Tensor, probs: Tensor, classes: Sequence[str]
) -> NotebookFigure:
    """Draw images of all classes with prediction and probability: blue if right, else orange.

    Args:
        images: N of them; indices give ``(B, C, H, W)`` uint8; in grey ones, ink is 255.
        labels: ``(N,)`` the true classes.
        probs: ``(N, K)`` in [0, 1].
        classes: K names.
    """
    shown = balanced_sample(labels, NUM_SHOWN)
    num_right = int((probs.argmax(1) == labels).sum())
    title = f"Test images: {num_right:,} of {len(labels):,} right"
    return _image_grid(title, images[shown], labels[shown], probs[shown], classes)


@styled
def mistakes(
    images: ImageSource, labels: Tensor, probs: Tensor, classes: Sequence[str]
) -> NotebookFigure:
    """Draw the wrong predictions with the highest confidence; arguments as for `predictions`."""
    wrong = surest_mistakes(labels, probs)
    shown = wrong[:NUM_SHOWN]
    title = f"The {len(shown)} surest of {len(wrong):,} mistakes" if len(wrong) else "No mistakes"
    return _image_grid(title, images[shown], labels[shown], probs[shown], classes)


def first_kernels(network: nn.Module) -> list[Tensor]:
    """Return the weights of the first two convolutions of a network, if it has any."""
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    return [layer.weight.detach().cpu() for layer in convolutions[:2]]


def _image_grid(
    title: str, images: Tensor, labels: Tensor, probs: Tensor, classes: Sequence[str]
) -> NotebookFigure:
    columns = 5
    rows = max(1, math.ceil(len(images) / columns))
    figure = NotebookFigure(figsize=(2.0 * columns, 2.2 * rows + 0.7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    confidences, predicted = probs.max(1)
    for axis, image, label, index, confidence in zip(
        axes, images, labels.tolist(), predicted.tolist(), confidences.tolist(), strict=False
    ):
        right = index == label
        named, true = short(classes[index]), short(classes[label])
        text = f"read {named}" if right else f"read {named}, is {true}"
        if len(text) > MAX_TITLE_LENGTH:
            text = text.replace(", is ", ",\nis ")
        text += f"\n{percent(confidence)}"
        shown_as = image[0] if len(image) == 1 else image.permute(1, 2, 0)
        axis.imshow(shown_as.numpy(), cmap="gray_r")
        axis.set_title(text, color=RIGHT if right else WRONG, fontsize=12)
        axis.axis("on")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(
            visible=True, color=RIGHT if right else WRONG, linewidth=1 if right else 3
        )
    return figure


def short(name: str) -> str:
    """Shorten a name to fit into a figure, and escape characters that cannot be drawn."""
    name = printable(name)
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"


def percent(share: float) -> str:
    """Format a probability; only 1 is 100 %."""
    return f"{share if share == 1 else min(share, 0.999):.1%}"


@styled
def confusion(labels: Tensor, predicted: Tensor, classes: Sequence[str]) -> NotebookFigure:
    """Draw the confusion matrix: a table of counts, in which mistakes are coloured.

    Args:
        labels: ``(N,)`` the true classes.
        predicted: ``(N,)`` the predicted classes.
        classes: K names.
    """
    num_classes = len(classes)
    table = multiclass_confusion_matrix(predicted, labels, num_classes)
    off_diagonal = table.clone().fill_diagonal_(0)
    side = max(9.0, 0.42 * num_classes)
    fontsize = 12 if num_classes <= 15 else 8
    figure = NotebookFigure(figsize=(side, side - 0.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(
        off_diagonal.numpy(), cmap=COUNTS, vmin=0, vmax=max(1, 1.5 * int(off_diagonal.max()))
    )
    for row, column in table.nonzero().tolist():
        axis.text(
            column,
            row,
            f"{int(table[row, column]):,}",
            ha="center",
            va="center",
            fontsize=fontsize,
            color=RIGHT if row == column else "black",
            fontweight="bold" if row == column else "normal",
        )
    num_right = int(table.diagonal().sum())
    figure.suptitle(f"{num_right:,} right (blue), {len(labels) - num_right:,} wrong (orange)")
    axis.spines[:].set_visible(True)
    axis.set_xlabel("predicted", fontsize=13)
    axis.set_ylabel("true", fontsize=13)
    names = [short(name) for name in classes]
    rotation = 0 if max(map(len, names)) <= 2 else 45 if num_classes <= 15 else 90
    axis.set_xticks(range(num_classes), names, rotation=rotation, fontsize=min(12, fontsize + 2))
    axis.set_yticks(range(num_classes), names, fontsize=min(12, fontsize + 2))
    return figure


@styled
def filters(weights: Sequence[Tensor]) -> NotebookFigure:
    """Draw the kernels of convolutions, a panel each: rows are input maps, columns are filters.

    Args:
        weights: of each convolution, ``(C_out, C_in, H, W)``.
    """
    heights = [max(1.0, 6.0 * len(weight[0]) / len(weight)) for weight in weights]
    figure = NotebookFigure(figsize=(11, 1.3 * len(weights) + sum(heights)), layout="constrained")
    panels = figure.subplots(len(weights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for number, (axis, weight) in enumerate(zip(panels, weights, strict=True), start=1):
        limit = float(weight.abs().max())
        picture = axis.imshow(tiles(weight), cmap=SIGNED, vmin=-limit, vmax=limit)
        num_out, num_in, height, width = weight.shape
        axis.set_title(
            f"convolution {number}: {num_out} filters {height}x{width}"
            f" over {num_in} map{'s' if num_in > 1 else ''}"
        )
        axis.set(xticks=[], yticks=[], xlabel="one column a filter")
        axis.set_ylabel("one row an input map" if num_in > 1 else "")
        axis.spines[:].set_visible(False)
        figure.colorbar(picture, ax=axis, shrink=0.8, label="weight")
    return figure


def tiles(weight: Tensor) -> NDArray[np.float32]:
    """Arrange ``(C_out, C_in, H, W)`` as one picture, a column per filter; gaps are NaN."""
    padded = F.pad(weight, (0, 1, 0, 1), value=math.nan)
    picture: NDArray[np.float32] = padded.permute(1, 2, 0, 3).flatten(2).flatten(0, 1).numpy()
    return picture[:-1, :-1]


@styled
def curves(history: Mapping[str, Points]) -> NotebookFigure:
    """Draw loss, accuracy and speed over the training, and the learning rate if it changes.

    Args:
        history: metric -> (step, value) pairs in the order of the steps.
    """
    titles = {"lr": "learning rate", "images_per_s": "training images per second"}
    if len({value for _, value in history.get("lr", [])}) < 2:
        del titles["lr"]
    if "images_per_s" not in history:
        del titles["images_per_s"]
    rows: list[Any] = [["loss", "acc"]]
    if titles:
        rows.append(list(titles) * (2 // len(titles)))
    figure = NotebookFigure(figsize=(11, 3.75 * len(rows)), layout="constrained")
    figure.suptitle(
        "Training values are measured during the steps, with dropout and augmentation", fontsize=12
    )
    panels = figure.subplot_mosaic(rows)
    plot_metric(panels["loss"], "loss", train_and_val(history, "loss"))
    plot_metric(panels["acc"], "acc", train_and_val(history, "acc"))
    for name, title in titles.items():
        _plot(panels[name], title, [(title, history[name], TRAINING)])
        panels[name].set_ylim(bottom=0)
    return figure


Line = tuple[str, Points, Mapping[str, Any]]
"""Label, points and style of a line."""


def train_and_val(history: Mapping[str, Points], metric: str) -> list[Line]:
    """Return the two lines of a run's metric, ``loss`` or ``acc``."""
    return [
        ("training", history.get(f"train/{metric}", []), TRAINING),
        ("validation", history.get(f"val/{metric}", []), VALIDATION),
    ]


def plot_metric(axis: Axes, metric: str, lines: Iterable[Line]) -> None:
    """Plot ``loss`` or ``acc`` over the steps, on a scale that shows small differences."""
    _plot(axis, {"loss": "loss", "acc": "accuracy"}[metric], lines)
    if metric == "loss":
        log_scale(axis)
    else:
        _stretch_accuracy(axis)


def _plot(axis: Axes, title: str, lines: Iterable[Line]) -> None:
    for label, points, style in lines:
        if points:
            axis.plot(*zip(*points, strict=True), ms=4, label=printable(label), **style)
    axis.set(title=title, xlabel="step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.grid()
    if len(axis.lines) > 1:
        axis.legend(fontsize=None if len(axis.lines) <= 6 else 7)


def log_scale(axis: Axes) -> None:
    """Make the y axis logarithmic, unless there are negative values, which a loss may have."""
    low, high = axis.dataLim.intervaly
    if low < 0 or high <= 0:
        return
    axis.set_yscale("log")
    ratio = high / axis.dataLim.minposy
    axis.yaxis.set_major_locator(
        MaxNLocator(6) if ratio < 10 else LogLocator(subs=(1, 2, 5) if ratio < 200 else (1,))
    )
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _stretch_accuracy(axis: Axes) -> None:
    """Scale accuracies by the logarithm of the error rate, so that 98 % and 99 % are apart."""
    drawn = np.concatenate([[0.9], *(np.asarray(line.get_ydata()) - 0.02 for line in axis.lines)])
    axis.set_yscale("function", functions=(_accuracy_to_height, _height_to_accuracy))
    axis.set_yticks(ACCURACY_TICKS)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_ylim(max(0.0, float(np.nanmin(drawn))), 1)
    for line in axis.lines:
        line.set_clip_on(False)  # draw markers at 100 % whole


def _accuracy_to_height(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log(1 + MIN_ERROR_RATE - np.minimum(accuracy, 1))


def _height_to_accuracy(height: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 + MIN_ERROR_RATE - np.exp(-height)

"""Arrays in, matplotlib figures out; no files and no loggers.

The colours and the style are those of the report, too.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_lit.data.images import Pixels
from mnist_lit.errors import printable

# Blue and orange can be told apart with any colour vision. Source: Okabe and Ito, "Color Universal
# Design" (2008); their orange is darker here, to be legible as text on white.
BLUE, ORANGE = "#0072b2", "#c25100"
RIGHT, WRONG = BLUE, ORANGE
TRAINING, VALIDATION = BLUE, ORANGE
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
"""Decorator of functions that draw: the style of all figures."""

LONGEST_NAME = 14  # of a class, in characters
LONGEST_LINE = 18  # of a title above an image, in characters
PERFECT = 0.003  # error rate at which the scale of accuracies ends: 0 would be infinitely far away
ACCURACY_TICKS = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1)


class Drawing(Figure):
    """A figure that shows itself in a notebook."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


@styled
def predictions(
    images: Pixels, labels: Tensor, probs: Tensor, classes: Sequence[str], num_shown: int = 25
) -> Drawing:
    """Draw images of all classes with the answer and its probability: blue if right, else orange.

    Args:
        images: N of them, by their numbers: ``(B, C, H, W)`` uint8; of grey ones, ink is 255.
        labels: ``(N,)`` the true classes.
        probs: ``(N, K)`` in [0, 1].
        classes: K names.
        num_shown: how many images to show, at most.
    """
    shown = over_classes(labels, num_shown)
    num_right = int((probs.argmax(1) == labels).sum())
    title = f"Test images: {num_right:,} of {len(labels):,} right"
    return _image_grid(title, images[shown], labels[shown], probs[shown], classes)


@styled
def mistakes(
    images: Pixels, labels: Tensor, probs: Tensor, classes: Sequence[str], num_shown: int = 25
) -> Drawing:
    """Draw the wrong answers with the highest confidence; arguments as for `predictions`."""
    wrong = surest_mistakes(labels, probs)
    shown = wrong[:num_shown]
    title = f"The {len(shown)} surest of {len(wrong):,} mistakes" if len(wrong) else "No mistakes"
    return _image_grid(title, images[shown], labels[shown], probs[shown], classes)


def over_classes(labels: Tensor, most: int) -> Tensor:
    """Choose images of all classes: the first of each class, then the second of each, and so on.

    Args:
        labels: ``(N,)`` the true classes, in any order.
        most: how many images to choose.

    Returns:
        Indices of at most `most` images, ascending, ``(M,)``.
    """
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    by_class = labels.argsort(stable=True)
    rank = torch.empty_like(labels)  # of an image among those of its class
    rank[by_class] = torch.arange(len(labels)) - first.repeat_interleave(counts)
    return rank.argsort(stable=True)[:most].sort().values


def surest_mistakes(labels: Tensor, probs: Tensor) -> Tensor:
    """The numbers of the images that are told wrong, ``(M,)``, those it is surest of first.

    Args:
        labels: ``(N,)`` the true classes.
        probs: ``(N, K)``.
    """
    confidence, answers = probs.max(1)
    wrong = (answers != labels).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True, stable=True)]


def first_kernels(network: nn.Module) -> list[Tensor]:
    """What `filters` shows of a network: the weights of its first two convolutions, if any."""
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    return [layer.weight.detach().cpu() for layer in convolutions[:2]]


def _image_grid(
    title: str, images: Tensor, labels: Tensor, probs: Tensor, classes: Sequence[str]
) -> Drawing:
    columns = 5
    rows = max(1, math.ceil(len(images) / columns))
    figure = Drawing(figsize=(2.0 * columns, 2.2 * rows + 0.7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    confidences, answers = probs.max(1)
    for axis, image, label, answer, confidence in zip(
        axes, images, labels.tolist(), answers.tolist(), confidences.tolist(), strict=False
    ):
        right = answer == label
        answered, true = short(classes[answer]), short(classes[label])
        text = f"read {answered}" if right else f"read {answered}, is {true}"
        if len(text) > LONGEST_LINE:
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
    """Return a class name that fits into a figure, without characters that cannot be drawn."""
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def percent(share: float) -> str:
    """Never 100 % for what is not quite sure."""
    return f"{share if share == 1 else min(share, 0.999):.1%}"


def counts(labels: Tensor, answers: Tensor, num_classes: int) -> Tensor:
    """How often each class, a row, was answered by each, a column: ``(K, K)`` int64."""
    table = torch.bincount(labels * num_classes + answers, minlength=num_classes**2)
    return table.reshape(num_classes, num_classes)


@styled
def confusion(labels: Tensor, answers: Tensor, classes: Sequence[str]) -> Drawing:
    """Draw the confusion matrix: a table of counts, in which mistakes are coloured.

    Args:
        labels: ``(N,)`` the true classes.
        answers: ``(N,)`` the network's.
        classes: K names.
    """
    num_classes = len(classes)
    table = counts(labels, answers, num_classes)
    off_diagonal = table.clone().fill_diagonal_(0)
    side = max(9.0, 0.42 * num_classes)
    fontsize = 12 if num_classes <= 15 else 8
    figure = Drawing(figsize=(side, side - 0.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(
        off_diagonal.numpy(), cmap=COUNTS, vmin=0, vmax=max(1, 1.5 * int(off_diagonal.max()))
    )
    for row in range(num_classes):
        for column in range(num_classes):
            count = int(table[row, column])
            if count:
                axis.text(
                    column,
                    row,
                    f"{count:,}",
                    ha="center",
                    va="center",
                    fontsize=fontsize,
                    color=RIGHT if row == column else "black",
                    fontweight="bold" if row == column else "normal",
                )
    num_right = int(table.diagonal().sum())
    figure.suptitle(f"{num_right:,} right (blue), {len(labels) - num_right:,} wrong (orange)")
    axis.spines[:].set_visible(True)
    axis.set_xlabel("answered", fontsize=13)
    axis.set_ylabel("true", fontsize=13)
    names = [short(name) for name in classes]
    rotation = 0 if max(map(len, names)) <= 2 else 45 if num_classes <= 15 else 90
    axis.set_xticks(range(num_classes), names, rotation=rotation, fontsize=min(12, fontsize + 2))
    axis.set_yticks(range(num_classes), names, fontsize=min(12, fontsize + 2))
    return figure


@styled
def filters(weights: Sequence[Tensor]) -> Drawing:
    """Draw the kernels of convolutions, a panel each: rows are input maps, columns are filters.

    Args:
        weights: of each convolution, ``(C_out, C_in, H, W)``.
    """
    heights = [max(1.0, 6.0 * len(weight[0]) / len(weight)) for weight in weights]
    figure = Drawing(figsize=(11, 1.3 * len(weights) + sum(heights)), layout="constrained")
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


def tiles(weight: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Lay ``(C_out, C_in, H, W)`` out as one picture, with gaps between the kernels."""
    num_out, num_in, height, width = weight.shape
    laid_out = np.full((num_in * (height + 1) - 1, num_out * (width + 1) - 1), np.nan, np.float32)
    for column in range(num_out):
        for row in range(num_in):
            top, left = row * (height + 1), column * (width + 1)
            laid_out[top : top + height, left : left + width] = weight[column, row].numpy()
    return laid_out


@styled
def curves(history: Mapping[str, Sequence[tuple[int, float]]]) -> Drawing:
    """Draw loss, accuracy and speed over the training, and the learning rate if it changes.

    Args:
        history: metric name -> (step, value) pairs in the order of the steps.
    """
    has_schedule = len({value for _, value in history.get("lr", [])}) > 1
    below = ["lr"] * has_schedule + ["images_per_s"] * ("images_per_s" in history)
    rows: list[Any] = [["loss", "acc"]]
    if below:
        rows.append(below * 2 if len(below) == 1 else below)
    figure = Drawing(figsize=(11, 7.5 if below else 4), layout="constrained")
    figure.suptitle(
        "Training values are measured during the steps, with dropout and augmentation", fontsize=12
    )
    panels = figure.subplot_mosaic(rows)
    _plot(panels["loss"], history, {"train/loss": "training", "val/loss": "validation"}, "loss")
    _plot(panels["acc"], history, {"train/acc": "training", "val/acc": "validation"}, "accuracy")
    log_scale(panels["loss"])
    stretch_accuracy(panels["acc"])
    titles = {"lr": "learning rate", "images_per_s": "training images per second"}
    for name in below:
        _plot(panels[name], history, {name: titles[name]}, titles[name])
        panels[name].set_ylim(bottom=0)
    return figure


def _plot(
    axis: Axes,
    history: Mapping[str, Sequence[tuple[int, float]]],
    labels: Mapping[str, str],
    title: str,
) -> None:
    for name, label in labels.items():
        points = history.get(name, [])
        is_validation = name.startswith("val/")
        if points:
            steps, values = zip(*points, strict=True)
            colour, marker = (VALIDATION, "o") if is_validation else (TRAINING, None)
            axis.plot(steps, values, color=colour, marker=marker, ms=4, label=label)
    axis.set_title(title)
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.grid()
    if len(axis.lines) > 1:
        axis.legend()


def log_scale(axis: Axes) -> None:
    """Give a panel a logarithmic scale, unless values are negative, as those of a loss can be."""
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


def stretch_accuracy(axis: Axes) -> None:
    """Scale a panel of accuracies by the logarithm of the error, so that 98 % and 99 % are apart.

    All that is drawn stays visible, and 100 % is on the scale, too.
    """
    drawn = np.concatenate([[0.9], *(np.asarray(line.get_ydata()) - 0.02 for line in axis.lines)])
    axis.set_yscale("function", functions=(_accuracy_to_height, _height_to_accuracy))
    axis.set_yticks(ACCURACY_TICKS)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_ylim(max(0.0, float(np.nanmin(drawn))), 1)
    for line in axis.lines:
        line.set_clip_on(False)  # markers at 100 % are whole


def _accuracy_to_height(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log(1 + PERFECT - np.minimum(accuracy, 1))


def _height_to_accuracy(height: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 + PERFECT - np.exp(-height)

"""Arrays in, matplotlib figures out; no files and no loggers."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from mnist_lit.data.images import Pixels

RIGHT, WRONG = "#1a7f37", "#cf222e"
LONGEST_NAME = 14  # of a class, in characters


class Drawing(Figure):
    """A figure that shows itself in a notebook."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def predictions(
    images: Pixels, labels: Tensor, probs: Tensor, classes: Sequence[str], num_shown: int = 25
) -> Drawing:
    """The first images with the answer and its probability: green if right, red if wrong.

    Args:
        images: N of them, by their numbers: ``(B, C, H, W)`` uint8; of grey ones, ink is 255.
        labels: ``(N,)`` the true classes.
        probs: ``(N, K)`` in [0, 1].
        classes: K names.
        num_shown: how many images to show, at most.
    """
    shown = torch.arange(min(num_shown, len(images)))
    num_right = int((probs.argmax(1) == labels).sum())
    title = f"Test images: {num_right:,} of {len(labels):,} right"
    return _image_grid(title, images[shown], labels[shown], probs[shown], classes)


def mistakes(
    images: Pixels, labels: Tensor, probs: Tensor, classes: Sequence[str], num_shown: int = 25
) -> Drawing:
    """The wrong answers that the network was surest of; arguments as for `predictions`."""
    wrong = surest_mistakes(labels, probs)
    shown = wrong[:num_shown]
    title = f"The surest of {len(wrong):,} mistakes" if len(wrong) else "No mistakes"
    return _image_grid(title, images[shown], labels[shown], probs[shown], classes)


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
    figure = Drawing(figsize=(2.0 * columns, 2.1 * rows + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=15)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    confidences, answers = probs.max(1)
    for axis, image, label, answer, confidence in zip(
        axes, images, labels.tolist(), answers.tolist(), confidences.tolist(), strict=False
    ):
        right = answer == label
        text = f"{_short(classes[answer])}   {percent(confidence)}"
        if not right:
            text += f"\nis {_short(classes[label])}"
        shown_as = image[0] if len(image) == 1 else image.permute(1, 2, 0)
        axis.imshow(shown_as.numpy(), cmap="gray_r")
        axis.set_title(text, color=RIGHT if right else WRONG, fontsize=12)
        axis.axis("on")
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set(color=RIGHT if right else WRONG, linewidth=1 if right else 3)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def percent(share: float) -> str:
    """Never 100 % for what is not quite sure."""
    return f"{share if share == 1 else min(share, 0.999):.1%}"


def counts(labels: Tensor, answers: Tensor, num_classes: int) -> Tensor:
    """How often each class, a row, was answered by each, a column: ``(K, K)`` int64."""
    table = torch.bincount(labels * num_classes + answers, minlength=num_classes**2)
    return table.reshape(num_classes, num_classes)


def confusion(labels: Tensor, answers: Tensor, classes: Sequence[str]) -> Drawing:
    """How often each class was answered for each: a table of counts, mistakes coloured.

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
        off_diagonal.numpy(), cmap="Reds", vmin=0, vmax=max(1, 1.5 * int(off_diagonal.max()))
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
    axis.set_title(f"{num_right:,} right (green), {len(labels) - num_right:,} wrong", fontsize=15)
    axis.set_xlabel("answered", fontsize=13)
    axis.set_ylabel("true", fontsize=13)
    names = [_short(name) for name in classes]
    rotation = 0 if max(map(len, names)) <= 2 else 45 if num_classes <= 15 else 90
    axis.set_xticks(range(num_classes), names, rotation=rotation, fontsize=min(12, fontsize + 2))
    axis.set_yticks(range(num_classes), names, fontsize=min(12, fontsize + 2))
    return figure


def filters(weights: Sequence[Tensor]) -> Drawing:
    """The kernels of convolutions, a panel each: a row for an input map, a column for an output.

    Args:
        weights: of each convolution, ``(C_out, C_in, H, W)``.
    """
    heights = [max(1.0, 6.0 * len(weight[0]) / len(weight)) for weight in weights]
    figure = Drawing(figsize=(11, 1.3 * len(weights) + sum(heights)), layout="constrained")
    panels = figure.subplots(len(weights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for number, (axis, weight) in enumerate(zip(panels, weights, strict=True), start=1):
        limit = float(weight.abs().max())
        picture = axis.imshow(tiles(weight), cmap="RdBu_r", vmin=-limit, vmax=limit)
        num_out, num_in, height, width = weight.shape
        axis.set_title(
            f"convolution {number}: {num_out} filters {height}x{width}"
            f" over {num_in} map{'s' if num_in > 1 else ''}",
            fontsize=14,
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


def curves(history: Mapping[str, Sequence[tuple[int, float]]]) -> Drawing:
    """Loss and accuracy over the training, and how fast it went.

    Args:
        history: metric name -> (step, value) pairs in the order of the steps.
    """
    figure = Drawing(figsize=(11, 7.5), layout="constrained")
    panels = figure.subplots(2, 2)
    loss, acc, lr, speed = panels.flatten()
    _plot(loss, history, {"train/loss": "training", "val/loss": "validation"}, "loss")
    _plot(acc, history, {"train/acc": "training", "val/acc": "validation"}, "accuracy")
    validated = [value for _, value in history.get("val/acc", [])]
    acc.set_ylim(bottom=min([0.9, *(value - 0.02 for value in validated)]), top=1.001)
    _plot(lr, history, {"lr": "learning rate"}, "learning rate")
    _plot(speed, history, {"images_per_s": "training images a second"}, "images a second")
    for axis in (lr, speed):
        axis.set_ylim(bottom=0)
    figure.suptitle("Training values are those during training, with dropout", fontsize=12)
    return figure


def _plot(
    axis: Axes,
    history: Mapping[str, Sequence[tuple[int, float]]],
    labels: Mapping[str, str],
    title: str,
) -> None:
    for name, label in labels.items():
        points = history.get(name, [])
        if points:
            steps, values = zip(*points, strict=True)
            axis.plot(steps, values, marker="o" if name.startswith("val/") else None, label=label)
    axis.set_title(title, fontsize=13)
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.grid(alpha=0.3)
    if len(axis.lines) > 1:
        axis.legend()

"""Charts as SVG that takes the colours of the page it stands in, light or dark."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from mnist_lit.pages.evidence import History, Reliability

# Colours that matplotlib draws with, and what the page's style has for them instead.
INK, PAPER, FIRST, SECOND = "#010203", "#fdfeff", "#0072b2", "#d55e00"
IN_PAGE = {
    INK: "currentColor",
    PAPER: "var(--paper)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    "savefig.facecolor": "none",
}
# Told apart by the colour-blind too. Source: Okabe and Ito, "Color Universal Design" (2008); the
# last two, a grey and a dark violet, are not theirs.
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00",
    "#56b4e9", "#b8a800", "#7f7f7f", "#8c564b", "#6a3d9a",
)  # fmt: skip
LINES = ("-", "--", ":", "-.")


def svg(name: str, draw: Callable[[], Figure]) -> str:
    """A chart, to stand in a page.

    Args:
        name: of letters; the chart's own in its page.
        draw: draws it.
    """
    text = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        draw().savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\1{name}-", drawn)
    drawn = re.sub(r'(<svg [^>]*?) width="[^"]*"|(<svg [^>]*?) height="[^"]*"', r"\1\2", drawn)
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    for colour, instead in IN_PAGE.items():
        drawn = drawn.replace(colour, instead)
    return drawn


def curves(histories: Mapping[str, History]) -> str:
    """Loss and accuracy over the steps, beside one another where there is room.

    Args:
        histories: of one run, training and validation are told apart; of several, by their names,
            the runs, and only the validation is drawn.
    """
    loss = svg("loss", lambda: _loss_curves(histories))
    accuracy = svg("accuracy", lambda: _accuracy_curves(histories))
    return f'<div class="pair">{loss}{accuracy}</div>\n'


def _loss_curves(histories: Mapping[str, History]) -> Figure:
    figure = _figure(5.2, 3.8)
    axis = figure.subplots()
    _plot(axis, histories, "loss")
    axis.set(title="loss", ylabel="cross-entropy", yscale="log")
    return figure


def _accuracy_curves(histories: Mapping[str, History]) -> Figure:
    figure = _figure(5.2, 3.8)
    axis = figure.subplots()
    _plot(axis, histories, "acc")
    axis.set(title="accuracy", ylabel="share told right")
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    validated = [history["val/acc"] for history in histories.values() if "val/acc" in history]
    if validated:  # what is learned in the first steps is not worth the room
        usual = min(median(value for _, value in points) for points in validated)
        axis.set_ylim(max(0, usual - 2 * (1 - usual) - 0.005), 1)
    return figure


def _plot(axis: Axes, histories: Mapping[str, History], metric: str) -> None:
    if len(histories) == 1:
        (history,) = histories.values()
        lines = [
            ("training", history.get(f"train/{metric}", []), FIRST, "-", None),
            ("validation", history.get(f"val/{metric}", []), SECOND, "-", "o"),
        ]
    else:
        styles = cycle((colour, line) for line in LINES for colour in COLOURS)
        lines = [
            (name, history.get(f"val/{metric}", []), colour, line, "o")
            for (name, history), (colour, line) in zip(histories.items(), styles, strict=False)
        ]
    for label, points, colour, line, marker in lines:
        steps, values = zip(*points, strict=True) if points else ((), ())
        axis.plot(steps, values, line, color=colour, marker=marker, ms=4, label=label)
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.legend(fontsize=11 if len(lines) <= 6 else 7)
    _grid(axis)


def reliability(found: Reliability) -> Figure:
    """Accuracy over confidence, and how many answers there are of each."""
    figure = _figure(5.2, 4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], "--", color=INK, lw=1, label="as sure as right")
    confidence = found.confidence.numpy()
    above.plot(confidence, found.accuracy.numpy(), "o-", color=FIRST, label="this network")
    above.set(title="how far confidence is meant", ylabel="share told right", ylim=(-0.02, 1.02))
    above.legend()
    below.bar(confidence, found.counts.numpy(), width=0.03, color=FIRST)
    below.set(xlabel="confidence", ylabel="answers", yscale="log", xlim=(0, 1.02))
    for axis in (above, below):
        axis.xaxis.set_major_formatter(PercentFormatter(1))
        _grid(axis)
    above.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def scatter(points: Tensor, shares: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Images by two numbers, coloured by class, each class named where most of it is.

    Args:
        points: ``(N, 2)``.
        shares: of the variance that each of the two has, ``(2,)``.
        labels: ``(N,)``.
        classes: K names.
    """
    figure = _figure(7, 5.6)
    axis = figure.subplots()
    for label, (name, colour) in enumerate(zip(classes, cycle(COLOURS), strict=False)):
        chosen = points[labels == label].numpy()
        axis.scatter(
            chosen[:, 0],
            chosen[:, 1],
            s=6,
            color=colour,
            lw=0,
            rasterized=True,
        )
        if len(chosen):
            axis.text(
                float(np.median(chosen[:, 0])),
                float(np.median(chosen[:, 1])),
                name,
                fontsize=13 if len(classes) <= 12 else 9,
                fontweight="bold",
                ha="center",
                va="center",
                path_effects=[withStroke(linewidth=3, foreground=PAPER)],
            )
    for set_label, number, share in (
        (axis.set_xlabel, 1, shares[0]),
        (axis.set_ylabel, 2, shares[1]),
    ):
        set_label(f"component {number}: {share:.0%} of the variance")
    axis.set_title(f"last hidden layer, {len(points):,} test images")
    return figure


def _figure(width: float, height: float) -> Figure:
    """Of so many inches, with room for labels: to measure them would take most of the time."""
    figure = Figure(figsize=(width, height), dpi=150)  # of points; lines have no pixels
    left, right, below, above = 0.9 / width, 0.2 / width, 0.6 / height, 0.4 / height
    figure.subplots_adjust(left, below, 1 - right, 1 - above, wspace=0.25, hspace=0.12)
    return figure


def _grid(axis: Axes) -> None:
    axis.grid(alpha=0.25, color=INK)
    axis.spines[["top", "right"]].set_visible(False)

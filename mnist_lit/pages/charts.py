"""Charts as SVG that takes the colours of the page it stands in, light or dark."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from mnist_lit.errors import printable
from mnist_lit.figures import BLUE, ORANGE, log_scale, short, stretch_accuracy
from mnist_lit.figures import STYLE as FIGURE_STYLE
from mnist_lit.pages.evidence import History, Reliability

# Colours that matplotlib draws with, and what the page's style has for them instead.
INK, PAPER, FIRST, SECOND = "#010203", "#fdfeff", BLUE, ORANGE
IN_PAGE = {
    INK: "currentColor",
    PAPER: "var(--paper)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
}
STYLE: dict[Any, Any] = {
    **FIGURE_STYLE,
    "svg.fonttype": "none",  # text stays text
    "font.size": 11,
    "axes.titlesize": 13,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    "savefig.facecolor": "none",
}
# Distinct for the colour-blind, too. Source: Okabe and Ito, "Color Universal Design" (2008); the
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
    """Draw loss and accuracy over the steps, side by side where there is room.

    Args:
        histories: run name -> metrics. Of one run, training and validation are drawn; of several,
            only the validation of each.
    """
    loss = svg("loss", lambda: _loss_curves(histories))
    accuracy = svg("accuracy", lambda: _accuracy_curves(histories))
    return f'<div class="pair">{loss}{accuracy}</div>\n'


def _loss_curves(histories: Mapping[str, History]) -> Figure:
    figure = _figure(5.2, 3.8)
    axis = figure.subplots()
    _plot(axis, histories, "loss")
    log_scale(axis)
    axis.set(title="loss", ylabel="cross-entropy")
    return figure


def _accuracy_curves(histories: Mapping[str, History]) -> Figure:
    figure = _figure(5.2, 3.8)
    axis = figure.subplots()
    _plot(axis, histories, "acc")
    stretch_accuracy(axis)
    axis.set(title="accuracy", ylabel="accuracy (scale: error rate)")
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
        axis.plot(steps, values, line, color=colour, marker=marker, ms=4, label=printable(label))
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.legend(fontsize=11 if len(lines) <= 6 else 7)
    axis.grid()


def results(found: Mapping[str, tuple[float, float, int]]) -> str:
    """Draw the accuracy of each run with its 95 % confidence interval, and beside it the loss.

    Args:
        found: run name -> accuracy, loss and number of images that they were measured on.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    accuracies = {name: accuracy for name, (accuracy, _, _) in found.items()}
    losses = {name: loss for name, (_, loss, _) in found.items()}
    intervals = [wilson(accuracy, count) for accuracy, _, count in found.values()]
    charts = (
        svg("accuracies", lambda: _points("accuracy", accuracies, "{x:.2%}", intervals)),
        svg("losses", lambda: _points("loss", losses, "{x:g}")),
    )
    return f'<div class="pair">{"".join(charts)}</div>\n'


def _points(
    title: str,
    values: Mapping[str, float],
    form: str,
    intervals: Sequence[tuple[float, float]] = (),
) -> Figure:
    figure = _figure(5.2, 1.1 + 0.32 * len(values), left=1.35)
    axis = figure.subplots()
    rows = range(len(values))
    for row, interval in zip(rows, intervals, strict=False):
        axis.plot(interval, [row, row], color=FIRST, lw=2)
    axis.plot(list(values.values()), rows, "o", color=FIRST)
    axis.set_yticks(rows, [short(name) for name in values])
    axis.set_ylim(len(values) - 0.5, -0.5)  # the first on top
    axis.xaxis.set_major_formatter(form)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axis.set_title(title)
    axis.grid()
    return figure


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the confidence interval of a share, measured on `count` images."""
    centre = share + z**2 / (2 * count)
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return (centre - half) / (1 + z**2 / count), (centre + half) / (1 + z**2 / count)


def reliability(found: Reliability) -> Figure:
    """Draw accuracy over confidence, and how many answers there are of each."""
    figure = _figure(5.2, 4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], "--", color=INK, lw=1, label="perfectly calibrated")
    confidence = found.confidence.numpy()
    above.plot(confidence, found.accuracy.numpy(), "o-", color=FIRST, label="this network")
    above.set(ylabel="accuracy", ylim=(-0.02, 1.02))
    above.legend()
    below.bar(confidence, found.counts.numpy(), width=0.03, color=FIRST)
    below.set(xlabel="confidence", ylabel="answers", xlim=(0, 1.02))
    log_scale(below)
    for axis in (above, below):
        axis.xaxis.set_major_formatter(PercentFormatter(1))
        axis.grid()
    above.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def scatter(points: Tensor, shares: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Draw images by two numbers, coloured by class; each class is named at its median.

    Args:
        points: ``(N, 2)``.
        shares: of the variance that each of the two has, ``(2,)``.
        labels: ``(N,)``.
        classes: K names.
    """
    figure = _figure(5.2, 4.6)
    axis = figure.subplots()
    axis.margins(0.08)  # for the names
    for label, (name, colour) in enumerate(zip(classes, cycle(COLOURS), strict=False)):
        chosen = points[labels == label].numpy()
        axis.scatter(
            chosen[:, 0],
            chosen[:, 1],
            s=4,
            color=colour,
            lw=0,
            rasterized=True,
        )
        if len(chosen):
            axis.text(
                float(np.median(chosen[:, 0])),
                float(np.median(chosen[:, 1])),
                short(name),
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
    return figure


def _figure(width: float, height: float, left: float = 0.9) -> Figure:
    """Make a figure with fixed margins: to measure the labels would take most of the time.

    Args:
        width: in inches.
        height: in inches.
        left: margin for the labels of the y axis, in inches.
    """
    figure = Figure(figsize=(width, height), dpi=150)  # of points; lines have no pixels
    margins = left / width, 0.6 / height, 1 - 0.2 / width, 1 - 0.4 / height
    figure.subplots_adjust(*margins, wspace=0.25, hspace=0.12)
    return figure

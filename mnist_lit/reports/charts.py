"""Charts of a report: matplotlib figures as SVG, in the light or dark colours of the page."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from mnist_lit.reports import figures
from mnist_lit.reports.figures import BLUE, ORANGE
from mnist_lit.reports.run_data import Points

P = ParamSpec("P")

INK, PAPER = "#010203", "#fdfeff"  # stand for the page's, which depend on the reader's theme
PAGE_COLOURS = {
    INK: "currentColor",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
}
# Distinct for the colour-blind, too. Source: Okabe and Ito, "Color Universal Design" (2008); the
# last three, a grey, a brown and a violet, are not theirs.
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00",
    "#56b4e9", "#b8a800", "#7f7f7f", "#8c564b", "#6a3d9a",
)  # fmt: skip
STYLE: dict[Any, Any] = {
    **figures.STYLE,
    **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "grid.color"], INK),
    **dict.fromkeys(["xtick.color", "ytick.color", "lines.color"], INK),
    **dict.fromkeys(["figure.facecolor", "axes.facecolor", "legend.facecolor"], "none"),
    "legend.edgecolor": "none",
    "axes.prop_cycle": cycler(ls=["-", "--", ":", "-."]) * cycler(color=COLOURS),
    "font.size": 11,
    "savefig.dpi": 150,  # of scattered points; lines have no pixels
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mnist_lit",  # the same data give the same file
}
NO_METADATA = dict.fromkeys(["Date", "Creator", "Format", "Type"])


def chart(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Decorate a function that draws a figure, to return inline SVG in the page's colours."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        file = io.StringIO()
        with mpl.rc_context(STYLE):
            draw(*args, **kwargs).savefig(file, format="svg", metadata=NO_METADATA)
        svg = file.getvalue()
        svg = svg[svg.index("<svg") :]
        svg = re.sub('<g id="[^"]*"', "<g", svg)  # an id is unique in a page
        for colour, in_page in PAGE_COLOURS.items():
            svg = svg.replace(colour, in_page)
        return svg

    return drawn


filters = chart(figures.filters)


@chart
def curves(histories: Mapping[str, Mapping[str, Points]], metric: str) -> Figure:
    """Draw a metric over the steps: of one run, training and validation; of several, validation.

    Args:
        histories: run name -> history.
        metric: ``loss`` or ``acc``.
    """
    figure = _figure(3.8)
    if len(histories) == 1:
        (history,) = histories.values()
        lines = figures.train_and_val(history, metric)
    else:
        lines = [
            (name, history.get(f"val/{metric}", []), {"marker": "o"})
            for name, history in histories.items()
        ]
    axis = figure.subplots()
    figures.plot_metric(axis, metric, lines)
    axis.set_ylabel({"loss": "cross-entropy", "acc": "accuracy (scale: error rate)"}[metric])
    return figure


@chart
def results(
    title: str, values: Mapping[str, float], intervals: Sequence[tuple[float, float]] = ()
) -> Figure:
    """Draw a value of each run; an accuracy with its confidence interval.

    Args:
        title: of the chart.
        values: run name -> value.
        intervals: of each accuracy.
    """
    figure = _figure(1.1 + 0.32 * len(values))
    axis = figure.subplots()
    for row, interval in enumerate(intervals):
        axis.plot(interval, [row, row], color=BLUE, lw=2)
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=2))
    axis.plot(list(values.values()), range(len(values)), "o", color=BLUE)
    axis.set_yticks(range(len(values)), [figures.short(name) for name in values])
    axis.set_ylim(len(values) - 0.5, -0.5)  # the first on top
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axis.set_title(title)
    axis.grid()
    return figure


@chart
def reliability(confidence: Tensor, accuracy: Tensor, counts: Tensor) -> Figure:
    """Draw accuracy over confidence, and a histogram of confidence; see `measures.reliability`."""
    figure = _figure(4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], "--", color=INK, lw=1, label="perfectly calibrated")
    above.plot(confidence.numpy(), accuracy.numpy(), "o-", color=BLUE, label="this network")
    above.set(ylabel="accuracy", ylim=(-0.02, 1.02))
    above.yaxis.set_major_formatter(PercentFormatter(1))
    above.legend()
    below.bar(confidence.numpy(), counts.numpy(), width=0.03, color=BLUE)
    below.set(xlabel="confidence", ylabel="predictions", xlim=(0, 1.02))
    below.xaxis.set_major_formatter(PercentFormatter(1))
    figures.log_scale(below)
    for axis in (above, below):
        axis.grid()
    return figure


@chart
def scatter(points: Tensor, shares: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Draw images along two principal components, coloured by class, with a name at each median.

    Args:
        points: ``(N, 2)``.
        shares: of the variance, for each component, ``(2,)``.
        labels: ``(N,)``.
        classes: K names.
    """
    figure = _figure(4.6)
    axis = figure.subplots()
    axis.margins(0.08)  # for the names
    for label in sorted(set(labels.tolist())):
        chosen = points[labels == label].numpy()
        x, y = np.median(chosen, axis=0)
        axis.scatter(chosen[:, 0], chosen[:, 1], s=4, color=f"C{label}", lw=0, rasterized=True)
        axis.text(
            x,
            y,
            figures.short(classes[label]),
            fontsize=13 if len(classes) <= 12 else 9,
            fontweight="bold",
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=3, foreground=PAPER)],
        )
    one, other = (
        f"component {number}: {share:.0%} of the variance"
        for number, share in enumerate(shares.tolist(), start=1)
    )
    axis.set(xlabel=one, ylabel=other)
    return figure


def _figure(height: float) -> Figure:
    return Figure(figsize=(5.2, height), layout="constrained")

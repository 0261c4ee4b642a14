"""Trials in, matplotlib figures out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from mnist_lit.reports.figures import RIGHT, WRONG, Drawing, styled
from mnist_lit.sweep.space import Option, Value


@dataclass(frozen=True)
class Point:
    """A trial that has ended.

    Attributes:
        number: which.
        value: what decides, in its best epoch.
        pruned: whether it was ended early.
        params: what it tried, by the names of the options.
    """

    number: int
    value: float
    pruned: bool
    params: Mapping[str, Any]


@styled
def history(points: Sequence[Point], label: str, is_minimized: bool) -> Drawing:
    """Draw the value of each trial and the best so far; much worse ones are drawn at the edge.

    Args:
        points: by their numbers; one at least was completed.
        label: what the value is.
        is_minimized: whether less is better.
    """
    complete = [point for point in points if not point.pruned]
    pruned = [point for point in points if point.pruned]
    values = [point.value for point in complete]
    best = list(accumulate(values, min if is_minimized else max))
    figure = Drawing(figsize=(9, 5), layout="constrained")
    axis = figure.subplots()
    usual = 5 * abs(median(point.value for point in points) - best[-1]) or 1.0
    rim = best[-1] + (usual if is_minimized else -usual)
    within = min if is_minimized else max
    for shown, marker, colour, name in (
        (complete, "o", RIGHT, "completed"),
        (pruned, "x", WRONG, "pruned: its best epoch"),
    ):
        heights = [within(point.value, rim) for point in shown]
        axis.plot([point.number for point in shown], heights, marker, color=colour, label=name)
    axis.step([p.number for p in complete], best, where="post", color="black", label="best so far")
    axis.set(xlabel="trial", ylabel=label)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid()
    axis.legend()
    return figure


@styled
def importances(shares: Mapping[str, float]) -> Drawing:
    """Draw the importance of each option as bars.

    Args:
        shares: name -> share, in [0, 1].
    """
    names = sorted(shares, key=lambda name: shares[name])
    figure = Drawing(figsize=(9, 1 + 0.45 * len(names)), layout="constrained")
    axis = figure.subplots()
    bars = axis.barh(names, [shares[name] for name in names], color=RIGHT)
    axis.bar_label(bars, [f"{shares[name]:.0%}" for name in names], padding=4)
    axis.set(title="What matters for being among the best", xlim=(0, 1.08), xticks=[])
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


@styled
def parallel(
    points: Sequence[Point], space: Sequence[Option], label: str, is_minimized: bool
) -> Drawing:
    """Draw a line for each trial through the values that it tried, coloured by its rank.

    Args:
        points: the trials.
        space: what was tried, an axis each.
        label: what decides about the rank.
        is_minimized: whether less of it is better.
    """
    figure = Drawing(figsize=(max(9.0, 1.8 * len(space)), 5.5), layout="constrained")
    axis = figure.subplots()
    ranked = sorted(points, key=lambda point: point.value, reverse=not is_minimized)
    last = max(2, len(ranked))
    colours = ScalarMappable(Normalize(1, last), colormaps["viridis"])
    for rank, point in reversed(list(enumerate(ranked, start=1))):  # the best on top
        heights = [_height(option, point.params[option.name]) for option in space]
        colour = colours.cmap((rank - 1) / (last - 1))
        axis.plot(heights, color=colour, lw=3 if rank == 1 else 1.2, clip_on=False)
    for number, option in enumerate(space):
        axis.axvline(number, color="black", lw=0.8)
        for value in option.edges:
            axis.text(number + 0.03, _height(option, value), f" {_text(value)}", va="center")
    names = [option.name.replace(".", ".\n") for option in space]
    axis.set_xticks(range(len(space)), names)
    axis.set(yticks=[], xlim=(-0.05, len(space) - 0.6), ylim=(-0.04, 1.04))
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    figure.colorbar(colours, ax=axis, label=f"rank by {label}", ticks=[1, last])
    return figure


def _height(option: Option, value: Value) -> float:
    """Where on its axis a value is, in [0, 1]."""
    edges = option.edges
    if option.is_range:
        low, high, at = (float(number) for number in (edges[0], edges[-1], value))  # type: ignore[arg-type]
        if option.is_log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)
    return edges.index(value) / (len(edges) - 1)


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

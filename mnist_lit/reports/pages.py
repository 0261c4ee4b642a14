"""The pages, rendered from templates: each is one HTML file that loads nothing."""

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from mnist_lit.reports import charts, measures
from mnist_lit.reports.figures import SIGNED, first_kernels, percent, tiles
from mnist_lit.reports.intervals import wilson_interval
from mnist_lit.reports.run_data import RunData, differing
from mnist_lit.training.calibration import NUM_BINS

NUM_MISTAKES = 36
NUM_SAMPLES = 12  # over all classes, and as many with the lowest confidence
NUM_EXAMPLES = 10  # images whose feature maps and attributions are shown
MAX_MAPS = 12  # of the first convolution
MAX_POINTS = 2000  # test images in the chart of the last hidden layer
MAX_PAIRS = 15  # of runs that are compared
NUM_DISAGREEMENTS = 12  # images that one run of a pair gets right and the other wrong
SEED = "seed_everything"


def png_url(pixels: NDArray[np.uint8]) -> str:
    """Return an image, ``(H, W)`` or ``(H, W, 3)``, as a ``data:`` URL."""
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {
    "number": format,  # {{ 0.5|number(".2%") }}
    "confidence": percent,
    "png_url": png_url,
    "mean": mean,
    "stdev": stdev,
}


def _render(template: str, **context: Any) -> str:
    contents: list[str] = []  # each section adds its title
    page = TEMPLATES.get_template(template).render(context, contents=contents)
    # A file name that is not UTF-8 has surrogates, which cannot be encoded.
    return page.encode(errors="backslashreplace").decode()


def run_page(run: RunData, defaults: Mapping[str, Any]) -> str:
    """Render the page of one run.

    Args:
        run: a run that was evaluated on test images.
        defaults: options by their full names, to show which ones the run changed.
    """
    mistakes = measures.surest_mistakes(run.labels, run.probs)
    least_sure = run.probs.max(1).values.argsort(stable=True)[:NUM_SAMPLES]
    sampled = torch.cat([measures.balanced_sample(run.labels, NUM_SAMPLES), least_sure])
    confusion = multiclass_confusion_matrix(run.predicted, run.labels, len(run.classes))
    kernels = first_kernels(run.classifier.network)
    return _render(
        "run.html.j2",
        run=run,
        results=run.results,
        changed=differing([run.options, defaults]),
        loss_chart=charts.curves({run.name: run.history}, "loss"),
        accuracy_chart=charts.curves({run.name: run.history}, "acc"),
        scores=_scores(run),
        confusion=confusion.tolist(),
        most_confused=int(confusion.clone().fill_diagonal_(0).max()),
        num_mistakes=len(mistakes),
        mistakes=run.predictions_at(mistakes[:NUM_MISTAKES]),
        filters_chart=charts.filters(kernels) if kernels else None,
        **_explanations(run),
        num_bins=NUM_BINS,
        reliability_chart=charts.reliability(*measures.reliability(run.probs, run.labels)),
        **_hidden_layer(run),
        samples=run.predictions_at(sampled),
    )


def _scores(run: RunData) -> list[list[float]]:
    """Return precision, recall and F1 of each class, then their means over the classes present."""
    functions = (multiclass_precision, multiclass_recall, multiclass_f1_score)
    scores = torch.stack(
        [score(run.predicted, run.labels, len(run.classes), average=None) for score in functions], 1
    )
    is_present = torch.bincount(run.labels, minlength=len(run.classes)) > 0
    means = scores[is_present].mean(0, keepdim=True)
    rows: list[list[float]] = torch.cat([scores, means]).tolist()
    return rows


def _explanations(run: RunData) -> dict[str, Any]:
    """Return images of all classes, with their feature maps and attributions."""
    chosen = measures.balanced_sample(run.labels, NUM_EXAMPLES)
    chosen = chosen[run.labels[chosen].argsort(stable=True)]
    images = run.images(chosen) / 255
    maps = run.classifier.feature_maps(images)[:, :MAX_MAPS]
    shares = measures.attributions(run.classifier.network, images, run.labels[chosen])
    return {
        "examples": run.predictions_at(chosen),
        "feature_maps": _greys(maps) if maps.numel() else None,
        "attributions": None if shares is None else _colours(shares),
    }


def _greys(maps: Tensor) -> list[NDArray[np.uint8]]:
    """Draw feature maps, ``(B, C, H, W)`` from 0 on, as a picture per image; dark is high."""
    num_rows = 2 if maps.shape[1] % 2 == 0 else 1
    scaled = maps / maps.max().clamp(min=1e-9)
    scaled = scaled.reshape(len(maps), -1, num_rows, *maps.shape[2:])
    return [(255 * (1 - np.nan_to_num(tiles(image)))).astype(np.uint8) for image in scaled]


def _colours(shares: Tensor) -> list[NDArray[np.uint8]]:
    """Draw attributions, ``(B, H, W)``, as pictures; blue is positive, orange negative."""
    scaled = shares / shares.abs().max().clamp(min=1e-9)
    return list(SIGNED((scaled / 2 + 0.5).numpy(), bytes=True)[..., :3])


def _hidden_layer(run: RunData) -> dict[str, Any]:
    chosen = measures.balanced_sample(run.labels, MAX_POINTS)
    hidden = measures.last_hidden(run.classifier.network, run.images(chosen) / 255)
    if hidden is None:
        return {"hidden_chart": None}
    points, shares = measures.principal_components(hidden)
    chart = charts.scatter(points, shares, run.labels[chosen], run.classes)
    return {"hidden_chart": chart, "num_hidden": len(chosen)}


def comparison_page(runs: Sequence[RunData]) -> str:
    """Render the page that compares runs: options, results, curves and predictions.

    Args:
        runs: one or more, all of them evaluated on test images, or all on validation images.
    """
    tested = "test/acc" in runs[0].results
    loss = "test/loss" if tested else "val/loss"
    histories = {run.name: run.history for run in runs}
    accuracies = {run.name: run.accuracy for run in runs}
    intervals = [
        wilson_interval(round(run.accuracy * len(run.labels)), len(run.labels)) for run in runs
    ]
    pairs = [pair for pair in combinations(runs, 2) if _have_same_images(*pair)][:MAX_PAIRS]
    return _render(
        "comparison.html.j2",
        runs=runs,
        images="test" if tested else "validation",
        differing=differing([run.options for run in runs]),
        metrics=runs[0].results.keys(),
        groups=group_by_seed(runs),
        accuracies_chart=charts.results("accuracy", accuracies, intervals),
        losses_chart=charts.results("loss", {run.name: run.results[loss] for run in runs}),
        loss_chart=charts.curves(histories, "loss"),
        accuracy_chart=charts.curves(histories, "acc"),
        pairs=[_compare(*pair) for pair in pairs],
    )


def group_by_seed(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Group the runs that differ in nothing but their seeds."""
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        others = {name: value for name, value in run.options.items() if name != SEED}
        groups.setdefault(repr(sorted(others.items())), []).append(run)
    return list(groups.values())


def _compare(one: RunData, other: RunData) -> dict[str, Any]:
    only_one, only_other = _only_right(one, other), _only_right(other, one)
    return {
        "names": (one.name, other.name),
        "counts": (len(only_one), len(only_other)),
        "p_value": measures.mcnemar(len(only_one), len(only_other)),
        "better": max(one, other, key=lambda run: run.accuracy).name,
        "mistakes": [
            (one.name, other.name, other.predictions_at(only_one[:NUM_DISAGREEMENTS])),
            (other.name, one.name, one.predictions_at(only_other[:NUM_DISAGREEMENTS])),
        ],
    }


def _only_right(right: RunData, wrong: RunData) -> Tensor:
    """Return the images that the one run gets right and the other wrong, surest mistakes first."""
    mistakes = measures.surest_mistakes(wrong.labels, wrong.probs)
    return mistakes[right.predicted[mistakes] == right.labels[mistakes]]


def _have_same_images(one: RunData, other: RunData) -> bool:
    some = torch.arange(min(100, len(one.labels)))
    return torch.equal(one.labels, other.labels) and torch.equal(
        one.images(some), other.images(some)
    )

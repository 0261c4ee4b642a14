"""The page about one run."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mnist_lit import figures
from mnist_lit.pages import charts, markup
from mnist_lit.pages.evidence import (
    Evidence,
    attributions,
    differing,
    examples,
    last_hidden,
    principal_components,
    reliability,
    scores_per_class,
)

NUM_MISTAKES = 36
NUM_SAMPLES = 12  # over all classes, and as many with the lowest confidence
NUM_MAPS = 12  # of the first convolution, at most
NUM_POINTS = 2000  # test images in the chart of the last hidden layer
LONGEST_UPRIGHT = 3  # characters of a class name that fit above a column
MOST_SIDE_BY_SIDE = 12  # classes whose confusion table fits beside another one
SETS = {"train": "training", "val": "validation", "test": "test"}


def run_page(evidence: Evidence, defaults: Mapping[str, Any]) -> str:
    """What was trained and how, what it can and what it cannot, as HTML.

    Args:
        evidence: of the run.
        defaults: options by their whole names, to say what differs from them.
    """
    table, confusion = _per_class(evidence), _confusion(evidence)
    is_small = len(evidence.classes) <= MOST_SIDE_BY_SIDE
    sections = [
        _recipe(evidence, defaults),
        _training(evidence),
        markup.columns(table, confusion) if is_small else table + confusion,
        _mistakes(evidence),
        *_inside(evidence),
        markup.columns(_confidence(evidence), *_hidden(evidence)),
        _samples(evidence),
    ]
    title = f"{evidence.name}: {evidence.accuracy:.2%}"
    return markup.document(title, _heading(evidence), sections)


def _heading(evidence: Evidence) -> str:
    results = evidence.results
    facts = {
        "test accuracy": f"{evidence.accuracy:.2%}",
        "test images": f"{len(evidence.labels):,}",
        "parameters": f"{results['params']:,}",
        "epochs": f"{results['epochs']}",
        "of training": _duration(results["fit_seconds"]),
        "images a second": f"{results['images_per_s']:,.0f}",
    }
    listed = "".join(f"<li><strong>{value}</strong>{name}</li>" for name, value in facts.items())
    options = evidence.options
    network = str(options["model.network.class_path"]).rpartition(".")[2]
    what = f"{network} on {options.get('data.dataset')}, seed {options.get('seed_everything')}"
    return (
        f'<h1>{escape(evidence.name)}</h1>\n<p class="lead">{escape(what)}</p>\n'
        f'<ul class="facts">{listed}</ul>\n'
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _recipe(evidence: Evidence, defaults: Mapping[str, Any]) -> str:
    changed = differing([evidence.options, defaults])
    rows = [(name, *values) for name, values in changed.items()]
    shown = (
        markup.table(["option", "here", "default"], rows, "options wrap")
        if rows
        else "<p>All options are the defaults.</p>\n"
    )
    made_by = "".join(f"{escape(line)}\n" for line in evidence.provenance)
    repeat = f"mnist-lit fit --config {evidence.place}/config.yaml"
    return markup.section(
        "What was trained",
        "Options that are not the defaults; versions and machine; and how to repeat it.",
        markup.columns(
            f"<div>{shown}</div>\n",
            f"<div><pre>{made_by}</pre>\n<pre>{escape(repeat)}</pre></div>\n",
        ),
    )


def _training(evidence: Evidence) -> str:
    results = evidence.results
    rows = [
        (label, f"{results[f'{name}/acc']:.2%}", f"{results[f'{name}/loss']:.4f}")
        for name, label in SETS.items()
    ]
    return markup.section(
        "Training",
        "The curves of the training are measured during its steps, with dropout and augmentation,"
        " so they may be worse than those of the validation. The table is of the best checkpoint,"
        " without these. Accuracy is on a logarithmic scale of the error rate.",
        charts.curves({evidence.name: evidence.history}),
        markup.table(["images", "accuracy", "loss"], rows),
    )


def _per_class(evidence: Evidence) -> str:
    classes, labels = evidence.classes, evidence.labels
    scores = scores_per_class(evidence.answers, labels, len(classes))
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    rows = [
        (
            name,
            *(f"{score[label]:.2%}" if counts[label] else "-" for score in scores.values()),
            f"{counts[label]:,}",
        )
        for label, name in enumerate(classes)
    ]
    present = torch.tensor(counts) > 0
    means = (f"{score[present].mean():.2%}" for score in scores.values())
    return markup.section(
        "Each class",
        "Recall: the share of a class's images that is classified correctly. Precision: the share"
        " of its answers that is correct. F1: their harmonic mean.",
        markup.table(["class", *scores, "images"], [*rows, ("mean", *means, f"{len(labels):,}")]),
    )


def _confusion(evidence: Evidence) -> str:
    classes = evidence.classes
    counts = figures.counts(evidence.labels, evidence.answers, len(classes))
    most = max(1, int(counts.clone().fill_diagonal_(0).max()))
    answered = f'<th colspan="{len(classes)}" scope="colgroup">answered</th>'
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in classes)
    rows = [
        f'<th scope="row">{escape(name)}</th>{_cells(row, number, most)}</tr>\n'
        for number, (name, row) in enumerate(zip(classes, counts.tolist(), strict=True))
    ]
    true = f'<th rowspan="{len(classes)}" scope="rowgroup"><span>true</span></th>'
    names = "long" if max(map(len, classes)) > LONGEST_UPRIGHT else ""
    return markup.section(
        "Confusion",
        "Rows: the true class. Columns: the answer. Mistakes are coloured, the more of them, the"
        " stronger; the diagonal counts the correct answers.",
        f'<div class="wide"><table class="confusion {names}">\n'
        f'<thead><tr><td colspan="2" rowspan="2"></td>{answered}</tr>\n<tr>{head}</tr></thead>\n'
        f"<tbody><tr>{true}{'<tr>'.join(rows)}</tbody></table></div>\n",
    )


def _cells(row: list[int], diagonal: int, most: int) -> str:
    return "".join(
        f'<td class="diagonal">{count}</td>'
        if column == diagonal
        else f'<td style="--share: {count / most:.2f}">{count}</td>'
        if count
        else "<td></td>"
        for column, count in enumerate(row)
    )


def _mistakes(evidence: Evidence) -> str:
    wrong = figures.surest_mistakes(evidence.labels, evidence.probs)
    explained = (
        f"{len(wrong):,} of {len(evidence.labels):,} test images are classified wrongly. Those with"
        " the highest confidence come first: the answer, the true class and the confidence."
    )
    return markup.section(
        "The surest mistakes",
        explained if len(wrong) else "There are none: all test images are classified correctly.",
        markup.grid(mistake(evidence, number) for number in wrong[:NUM_MISTAKES].tolist()),
    )


def mistake(evidence: Evidence, number: int) -> str:
    """Show a test image with the answer, the true class where it is another one, and how sure."""
    probs, classes = evidence.probs[number], evidence.classes
    label, answer = int(evidence.labels[number]), int(probs.argmax())
    confidence = figures.percent(float(probs[answer]))
    image = markup.picture(evidence.images(torch.tensor([number]))[0], classes[label])
    if label == answer:
        return markup.figure(image, f"read {classes[answer]}\n{confidence}")
    caption = f"read {classes[answer]}, is {classes[label]}\n{confidence}"
    return markup.figure(image, caption, "wrong")


def _confidence(evidence: Evidence) -> str:
    error = evidence.results["test/calibration_error"]
    temperature = evidence.results["temperature"]
    found = reliability(evidence.probs, evidence.labels)
    return markup.section(
        "Calibration",
        "Of the answers with a confidence of 80 %, 80 % should be correct: on the dashed line."
        " Below it, the network is overconfident. The expected calibration error is"
        f" {error:.2%} (15 bins), with the temperature {temperature:.2f}, fitted on the validation"
        " images. The bars count the answers.",
        charts.svg("reliability", lambda: charts.reliability(found)),
    )


def _inside(evidence: Evidence) -> Iterator[str]:
    network = evidence.classifier.network
    kernels = figures.first_kernels(network)
    chosen = torch.tensor(examples(evidence), dtype=torch.int64)
    if kernels:
        yield markup.section(
            "Learned filters",
            "The weights of the first convolutions; all filters of a convolution are on one scale."
            " Blue weights are positive, orange ones negative.",
            charts.svg("filters", lambda: figures.filters(kernels)),
        )
    if len(chosen):
        pixels = evidence.images(chosen)
        images = pixels / 255
        names = [evidence.classes[label] for label in evidence.labels[chosen].tolist()]
        maps = evidence.classifier.feature_maps(images)[:, :NUM_MAPS]
        if maps.shape[1]:  # else there is no convolution, or none that is used
            yield _feature_maps(pixels, maps, names)
        speaking = attributions(network, images, evidence.answers[chosen])
        if speaking is not None:
            yield _attention(speaking, names)


def _hidden(evidence: Evidence) -> Iterator[str]:
    some = figures.over_classes(evidence.labels, NUM_POINTS)
    hidden = last_hidden(evidence.classifier.network, evidence.images(some) / 255)
    if hidden is not None:
        points, shares = principal_components(hidden)
        labels = evidence.labels[some]
        yield markup.section(
            "The last hidden layer",
            f"The activations of {len(some):,} test images before the last linear layer, along the"
            " two directions in which they differ most (principal components). Classes that meet"
            " here may still be apart in another direction.",
            charts.svg("hidden", lambda: charts.scatter(points, shares, labels, evidence.classes)),
        )


def _feature_maps(pixels: Tensor, maps: Tensor, names: list[str]) -> str:
    strongest = max(float(maps.max()), 1e-9)
    shown = []
    for image, of_image, name in zip(pixels, maps, names, strict=True):
        rows = 2 if len(of_image) % 2 == 0 else 1
        tiles = figures.tiles(of_image.unflatten(0, (-1, rows)) / strongest)
        grey = (255 * (1 - np.nan_to_num(tiles, nan=0.0))).astype(np.uint8)
        seen = markup.embedded(grey, f"feature maps of {name}")
        shown.append(
            f'<div class="sample">{markup.figure(markup.picture(image, name), name)}'
            f"{markup.figure(seen, '')}</div>\n"
        )
    return markup.section(
        "Feature maps",
        "The output of each filter of the first convolution for an image of each class; dark is"
        " high, all on one scale.",
        markup.grid(shown, "broad"),
    )


def _attention(speaking: Tensor, names: list[str]) -> str:
    limit = max(float(speaking.abs().max()), 1e-9)
    shades = figures.SIGNED((speaking / limit / 2 + 0.5).numpy())[..., :3]
    return markup.section(
        "What the network looks at",
        "For an image of each class: blue pixels raise the logit of the answer, orange ones lower"
        " it (integrated gradients).",
        markup.grid(
            markup.figure(
                markup.embedded((255 * shade).astype(np.uint8), f"what speaks for {name}"), name
            )
            for shade, name in zip(shades, names, strict=True)
        ),
    )


def _samples(evidence: Evidence) -> str:
    first = figures.over_classes(evidence.labels, NUM_SAMPLES).tolist()
    least_sure = evidence.probs.max(1).values.argsort(stable=True)[:NUM_SAMPLES].tolist()
    return markup.section(
        "Sample answers",
        "Test images of all classes, then those with the lowest confidence, each with the three"
        " most probable answers, and the true one in bold.",
        markup.grid((_sample(evidence, number) for number in first + least_sure), "broad"),
    )


def _sample(evidence: Evidence, number: int) -> str:
    label, probs = int(evidence.labels[number]), evidence.probs[number].tolist()
    shown = evidence.probs[number].topk(min(3, len(evidence.classes))).indices.tolist()
    if label not in shown:
        shown.append(label)
    rows = "".join(
        f'<span class="{"is" if answer == label else ""}">{escape(evidence.classes[answer])}</span>'
        f'<span><i style="width: {probs[answer]:.1%}"></i></span>'
        f"<span>{figures.percent(probs[answer])}</span>"
        for answer in shown
    )
    image = markup.picture(evidence.images(torch.tensor([number]))[0], evidence.classes[label])
    return f'<div class="sample">{markup.figure(image, "")}<div class="bars">{rows}</div></div>\n'

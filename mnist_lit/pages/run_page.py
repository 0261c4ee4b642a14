"""The page about one run."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

from mnist_lit import figures
from mnist_lit.pages import charts, markup
from mnist_lit.pages.evidence import (
    Evidence,
    attributions,
    examples,
    last_hidden,
    principal_components,
    reliability,
    scores_per_class,
)

NUM_MISTAKES = 36
NUM_SAMPLES = 12
NUM_MAPS = 12  # of the first convolution, at most
NUM_POINTS = 2000  # test images in the picture of the last hidden layer
IS = ("", "is")  # whether an answer is true, for the page's style
SETS = {"train": "training", "val": "validation", "test": "test"}


def run_page(evidence: Evidence, defaults: Mapping[str, Any]) -> str:
    """What was trained and how, what it can and what it cannot, as HTML.

    Args:
        evidence: of the run.
        defaults: options by their whole names, to say what differs from them.
    """
    sections = [
        _heading(evidence),
        _recipe(evidence, defaults),
        _training(evidence),
        _per_class(evidence),
        _confusion(evidence),
        _mistakes(evidence),
        _confidence(evidence),
        *_inside(evidence),
        _samples(evidence),
    ]
    return markup.document(f"{evidence.name}: {evidence.accuracy:.2%}", sections)


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
    what = f"{network} on {options['data.dataset']}, seed {options['seed_everything']}"
    return (
        f'<h1>{escape(evidence.name)}</h1>\n<p class="lead">{escape(what)}</p>\n'
        f'<ul class="facts">{listed}</ul>\n'
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _recipe(evidence: Evidence, defaults: Mapping[str, Any]) -> str:
    differing = evidence.differing(defaults)
    shown = (
        markup.table(
            ["option", "here", "default"], ((name, *values) for name, values in differing.items())
        )
        if differing
        else "<p>All options are the defaults.</p>\n"
    )
    made_by = "".join(f"{escape(line)}\n" for line in evidence.provenance)
    repeat = f"mnist-lit fit --config {evidence.place}/config.yaml"
    return markup.section(
        "What was trained",
        "Options that are not the defaults; what it was made with; and how to repeat it.",
        shown,
        f"<pre>{made_by}</pre>\n<pre>{escape(repeat)}</pre>\n",
    )


def _training(evidence: Evidence) -> str:
    results = evidence.results
    rows = [
        (label, f"{results[f'{name}/acc']:.2%}", f"{results[f'{name}/loss']:.4f}")
        for name, label in SETS.items()
    ]
    return markup.section(
        "Training",
        "Training values are those of the steps, with dropout and whatever else makes learning"
        " harder, so they may be worse than those of the validation. The table is of the best"
        " checkpoint, asked without these.",
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
        "Recall, the accuracy of a class: the share of its images that is told right. Precision:"
        " the share of its answers that is right. F1: their harmonic mean.",
        markup.table(["class", *scores, "images"], [*rows, ("mean", *means, f"{len(labels):,}")]),
    )


def _confusion(evidence: Evidence) -> str:
    classes = evidence.classes
    counts = figures.counts(evidence.labels, evidence.answers, len(classes))
    most = max(1, int(counts.clone().fill_diagonal_(0).max()))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{_cells(row, number, most)}</tr>\n'
        for number, (name, row) in enumerate(zip(classes, counts.tolist(), strict=True))
    )
    return markup.section(
        "Confusion",
        "A row for each true class, a column for each answer. Only mistakes are coloured, the more"
        " of them, the stronger; the diagonal is what was told right.",
        f'<div class="wide"><table class="confusion"><thead><tr><td></td>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>\n",
    )


def _cells(row: list[int], diagonal: int, most: int) -> str:
    return "".join(
        f'<td class="diagonal">{count:,}</td>'
        if column == diagonal
        else f'<td style="--share: {count / most:.2f}">{count:,}</td>'
        if count
        else "<td></td>"
        for column, count in enumerate(row)
    )


def _mistakes(evidence: Evidence) -> str:
    wrong = figures.surest_mistakes(evidence.labels, evidence.probs)
    explained = (
        f"{len(wrong):,} of {len(evidence.labels):,} test images are told wrong. Of these, the"
        " network was surest of the first: what it answered, how sure it was, and what is true."
    )
    return markup.section(
        "The surest mistakes",
        explained if len(wrong) else "There are none: all test images are told right.",
        markup.grid(mistake(evidence, number) for number in wrong[:NUM_MISTAKES].tolist()),
    )


def mistake(evidence: Evidence, number: int) -> str:
    """A test image with what was answered, and what is true where that is something else."""
    probs, classes = evidence.probs[number], evidence.classes
    label, answer = int(evidence.labels[number]), int(probs.argmax())
    caption = f"{classes[answer]}, {figures.percent(float(probs[answer]))}"
    image = markup.picture(evidence.images(torch.tensor([number]))[0], classes[label])
    if label == answer:
        return markup.figure(image, caption)
    return markup.figure(image, f"{caption}\nis {classes[label]}", "wrong")


def _confidence(evidence: Evidence) -> str:
    error = evidence.results["test/calibration_error"]
    temperature = evidence.results["temperature"]
    found = reliability(evidence.probs, evidence.labels)
    return markup.section(
        "How far confidence is meant",
        "Of answers of 80 %, 80 % should be right: on the dashed line. Below it, the network is"
        f" too sure. On average it is off by {error:.2%} (expected calibration error, 15 bins),"
        f" with logits divided by {temperature:.2f}, as fitted on the validation images. Below:"
        " how many answers there are of each.",
        f'<div class="narrow">{charts.svg("reliability", lambda: charts.reliability(found))}</div>',
    )


def _inside(evidence: Evidence) -> Iterator[str]:
    network = evidence.classifier.network
    kernels = figures.first_kernels(network)
    chosen = torch.tensor(examples(evidence), dtype=torch.int64)
    if kernels:
        yield markup.section(
            "Learned filters",
            "The weights of the first convolutions. All filters of a convolution are on one scale:"
            " red strengthens the answer where there is ink, blue weakens it.",
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
    some = torch.arange(min(NUM_POINTS, len(evidence.labels)))
    hidden = last_hidden(network, evidence.images(some) / 255)
    if hidden is not None:
        points, shares = principal_components(hidden)
        labels = evidence.labels[: len(points)]
        yield markup.section(
            "The last hidden layer",
            "What the network makes of an image before it decides, seen along the two directions in"
            " which images differ most (principal components). Classes that lie apart are told"
            " apart easily; where they meet they may still be apart in another direction.",
            '<div class="narrow">'
            + charts.svg("hidden", lambda: charts.scatter(points, shares, labels, evidence.classes))
            + "</div>",
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
        "How strongly each filter of the first convolution answers (dark), everywhere in an image"
        " of each class; all on one scale.",
        markup.grid(shown, "broad"),
    )


def _attention(speaking: Tensor, names: list[str]) -> str:
    limit = max(float(speaking.abs().max()), 1e-9)
    shades = colormaps["RdBu"]((speaking / limit / 2 + 0.5).numpy())[..., :3]
    return markup.section(
        "What the network looks at",
        "For an image of each class: blue ink speaks for the answer that was given, red ink against"
        " it (integrated gradients).",
        markup.grid(
            markup.figure(
                markup.embedded((255 * shade).astype(np.uint8), f"what speaks for {name}"), name
            )
            for shade, name in zip(shades, names, strict=True)
        ),
    )


def _samples(evidence: Evidence) -> str:
    first = list(range(min(NUM_SAMPLES // 2, len(evidence.labels))))
    least_sure = evidence.probs.max(1).values.argsort(stable=True)[: NUM_SAMPLES // 2].tolist()
    return markup.section(
        "Sample answers",
        "The first test images, then those of which the network is least sure, each with the three"
        " answers that are most probable; the true one is coloured.",
        markup.grid((_sample(evidence, number) for number in first + least_sure), "broad"),
    )


def _sample(evidence: Evidence, number: int) -> str:
    label = int(evidence.labels[number])
    probs, answers = evidence.probs[number].topk(min(3, len(evidence.classes)))
    rows = "".join(
        f'<span class="{IS[answer == label]}">{escape(evidence.classes[answer])}</span>'
        f'<span><i style="width: {prob:.1%}"></i></span><span>{figures.percent(prob)}</span>'
        for prob, answer in zip(probs.tolist(), answers.tolist(), strict=True)
    )
    image = markup.picture(evidence.images(torch.tensor([number]))[0], evidence.classes[label])
    return f'<div class="sample">{markup.figure(image, "")}<div class="bars">{rows}</div></div>\n'

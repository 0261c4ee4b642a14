"""The page about several runs, side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from html import escape
from itertools import combinations
from math import comb
from statistics import mean, stdev

import torch
from torch import Tensor

from mnist_lit.pages import charts, markup
from mnist_lit.pages.evidence import Evidence, differing
from mnist_lit.pages.run_page import mistake

NUM_SHOWN = 12  # images that one of two tells right and the other wrong, either way
MOST_PAIRS = 15
METRICS = {
    "train/acc": ("training", ".2%"),
    "val/acc": ("validation", ".2%"),
    "test/acc": ("test", ".2%"),
    "test/loss": ("test loss", ".4f"),
    "val/loss": ("validation loss", ".4f"),
    "test/calibration_error": ("calibration error", ".2%"),
    "fit_seconds": ("seconds", ".0f"),
}
SEED = "seed_everything"


def comparison(runs: Sequence[Evidence]) -> str:
    """Compare runs: options, results, curves and answers, as HTML.

    Args:
        runs: two or more, all of them tested, or none.
    """
    title = f"{len(runs)} runs side by side"
    sections = [
        _recipes(runs),
        _results(runs),
        markup.section(
            "Validation",
            "Loss and accuracy on the validation images over the training. Accuracy is on a"
            " logarithmic scale of the error rate.",
            charts.curves({run.name: run.history for run in runs}),
        ),
        _answers(runs),
    ]
    return markup.document(title, f"<h1>{title}</h1>\n", sections)


def _recipes(runs: Sequence[Evidence]) -> str:
    rows = [(name, *values) for name, values in differing([run.options for run in runs]).items()]
    if not rows:
        return markup.section("What differs", "All runs have the same options.")
    return markup.section(
        "What differs",
        "Options that are not the same in all runs; of a class that only some use, those arguments"
        " that are not its defaults.",
        markup.table(["option", *(run.name for run in runs)], rows, "options"),
    )


def groups(runs: Sequence[Evidence]) -> list[list[Evidence]]:
    """Group the runs that differ in nothing but their seeds."""
    found: dict[str, list[Evidence]] = {}
    for run in runs:
        others = {name: value for name, value in run.options.items() if name != SEED}
        found.setdefault(repr(sorted(others.items())), []).append(run)
    return list(found.values())


def _results(runs: Sequence[Evidence]) -> str:
    rows = []
    loss = "test/loss" if "test/loss" in runs[0].results else "val/loss"
    found = {run.name: (run.accuracy, run.results[loss], len(run.labels)) for run in runs}
    metrics = {name: shown for name, shown in METRICS.items() if name in runs[0].results}
    for group in groups(runs):
        rows += [
            (run.name, *(f"{run.results[name]:{form}}" for name, (_, form) in metrics.items()))
            for run in group
        ]
        if len(group) > 1:
            for name, statistic in (("mean", mean), ("standard deviation", stdev)):
                rows.append(_summary(group, metrics, name, statistic))
    return markup.section(
        "Results",
        f"Of the best checkpoints. The charts show accuracy, with its 95 % confidence interval, and"
        f" loss on the {_images(runs)} images. Where runs differ in their seeds only, their mean"
        " and standard deviation follow.",
        charts.results(found),
        markup.table(["run", *(label for label, _ in metrics.values())], rows),
    )


def _images(runs: Sequence[Evidence]) -> str:
    return "test" if "test/acc" in runs[0].results else "validation"


def _summary(
    group: Sequence[Evidence],
    metrics: Mapping[str, tuple[str, str]],
    name: str,
    statistic: Callable[[list[float]], float],
) -> tuple[str, ...]:
    values = ([run.results[metric] for run in group] for metric in metrics)
    forms = (form for _, form in metrics.values())
    cells = (f"{statistic(row):{form}}" for row, form in zip(values, forms, strict=True))
    return (f"{name}, n = {len(group)}", *cells)


def _answers(runs: Sequence[Evidence]) -> str:
    pairs = [pair for pair in combinations(runs, 2) if _have_the_same_images(*pair)]
    if not pairs:
        return markup.section(
            "Answers",
            "No two runs were evaluated on the same images, so their answers are not compared.",
        )
    rows = []
    for one, other in pairs[:MOST_PAIRS]:
        only_one, only_other = disagreements(one, other)
        chance = mcnemar(len(only_one), len(only_other))
        rows.append(
            (
                f"{one.name}, {other.name}",
                f"{len(only_one):,}",
                f"{len(only_other):,}",
                f"{chance:.3f}" if chance >= 0.001 else "< 0.001",
                "no difference shown" if chance >= 0.05 else _better(one, other),
            )
        )
    return markup.section(
        "Answers",
        f"The number of {_images(runs)} images that only the first, or only the second of two runs"
        " classifies correctly. If both were equally good, they would differ by so much or more"
        " with the probability p (McNemar's exact test): from 0.05 on, no difference is shown. Of"
        " many pairs, some are below it by chance.",
        markup.table(["runs", "only the first", "only the second", "p", "better"], rows),
        *_images_of(*pairs[0]),
    )


def _better(one: Evidence, other: Evidence) -> str:
    return one.name if one.accuracy > other.accuracy else other.name


def _have_the_same_images(one: Evidence, other: Evidence) -> bool:
    if not torch.equal(one.labels, other.labels):
        return False
    some = torch.arange(min(100, len(one.labels)))
    return torch.equal(one.images(some), other.images(some))


def disagreements(one: Evidence, other: Evidence) -> tuple[Tensor, Tensor]:
    """The numbers of the test images that only the one run, and only the other tells right."""
    right, others = one.answers == one.labels, other.answers == other.labels
    return (right & ~others).nonzero().flatten(), (others & ~right).nonzero().flatten()


def mcnemar(only_one: int, only_other: int) -> float:
    """How probable it is that two equally good classifiers differ by so much or more.

    Args:
        only_one: how many images the one alone tells right.
        only_other: how many the other alone.

    Source: McNemar's test in its exact form, two-sided: of the images on which the two disagree, as
    many go to either as a fair coin would give.
    """
    total = only_one + only_other
    tail: int = sum(comb(total, heads) for heads in range(min(only_one, only_other) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**total)))


def _images_of(one: Evidence, other: Evidence) -> Iterator[str]:
    for right, wrong, numbers in zip(
        (one, other), (other, one), disagreements(one, other), strict=True
    ):
        if len(numbers):
            surest = wrong.probs[numbers].max(1).values.argsort(descending=True, stable=True)
            shown = numbers[surest[:NUM_SHOWN]].tolist()
            names = [escape(run.name) for run in (right, wrong)]
            yield "<h3>Only {} is correct; the answers of {}</h3>\n".format(*names)
            yield markup.grid(mistake(wrong, number) for number in shown)

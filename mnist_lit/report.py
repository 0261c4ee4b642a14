"""`report`: one page about a run, or about several side by side."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_lit.arguments import ArgumentParser
from mnist_lit.classifier import Classifier
from mnist_lit.data.images import ImageSet
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.files import user_path, write_asked
from mnist_lit.models import find_class, named_class
from mnist_lit.options import recipe_of
from mnist_lit.pages.comparison import comparison
from mnist_lit.pages.evidence import Evidence
from mnist_lit.pages.run_page import run_page
from mnist_lit.training import recipes, runs
from mnist_lit.training.results import evidence_of, measure
from mnist_lit.training.runs import Run

AT_ONCE = 1000  # images


def main(args: Sequence[str]) -> int:
    """Write a page about runs; `args` begins with the command's name."""
    parser = ArgumentParser(
        "report", "Writes one HTML page about a run, or about several side by side."
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="the folder of a run, or a folder of runs; default: the newest run",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=user_path,
        help="default: report.html in the run's folder; of several, comparison.html beside it",
    )
    parser.add_argument(
        "--network",
        metavar="CLASS",
        help="the class of a network of your own, for runs that are not below lightning_logs here",
    )
    given = parser.parse_args(args[1:])
    named_class(given.network)  # it is looked for where one is
    chosen = list(_chosen(given.runs))
    data = Loaded()
    # Whether trials of a sweep are good is for validation to say: they are not tested.
    name = "test" if all(run.has_results for run in chosen) else "val"
    found = [_evidence(run, given.network, data, name) for run in chosen]
    if len(found) == 1:
        page, output = run_page(found[0], recipes.defaults()), chosen[0].report
    else:
        page, output = comparison(found), chosen[0].folder.parent / "comparison.html"
    output = given.output or output
    write_asked(output, page.encode(), "--output")
    print(f"report  {output}")
    return 0


def _chosen(folders: Sequence[str]) -> Iterator[Run]:
    """The runs that were meant, each once.

    Raises:
        UserError: there is none in a folder, or it has no results.
    """
    if not folders:
        yield _finished(runs.newest(Path()))
        return
    seen = set()
    for text in folders:
        folder = user_path(text)
        run = Run(folder.resolve())
        inside = runs.trials_in(folder.resolve()) or [
            found for found in runs.runs_in(folder.resolve()) if found.has_results
        ]
        for found in [_finished(run)] if run.exists else inside:
            if found.folder not in seen:
                seen.add(found.folder)
                yield found
        if not run.exists and not inside:
            raise UserError(f"{text} is no run, and there is no finished one in it")


def _finished(run: Run) -> Run:
    if not run.has_results or not run.best.is_file():
        raise UserError(f"{run.folder} is not finished: go on with it, fit --ckpt_path {run.last}")
    return run


class Loaded:
    """Each data set loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[str, MNISTDataModule] = {}

    def of(self, options: dict[str, Any]) -> MNISTDataModule:
        """The data of a recipe's section."""
        names = ("dataset", "data_dir", "image_size", "val_size", "split_seed")
        chosen = {name: options[name] for name in names if name in options}
        key = repr(chosen)
        if key not in self._loaded:
            self._loaded[key] = MNISTDataModule(**chosen)
            self._loaded[key].setup()
        return self._loaded[key]


def _evidence(run: Run, network: str | None, loaded: Loaded, name: str) -> Evidence:
    """Ask a run's best checkpoint about its test images, or its validation images.

    Raises:
        UserError: something of it is missing, or names code that nobody has named here.
    """
    text = recipe_of(run.best, Path(), {network} if network else set())
    recipe = recipes.load_yaml(
        Path(text).read_text(encoding="utf-8") if text == str(run.config) else text
    )
    if "network" not in recipe["model"]:
        raise UserError(f"{run.folder} is no run of fit: there is no page about a finder")
    class_path = recipe["model"]["network"]["class_path"]
    is_packaged = class_path.startswith("mnist_lit.")
    classifier = Classifier.load(run.best, None if is_packaged else find_class(class_path))
    asked = loaded.of(recipe["data"]).images(name)
    probs = _ask(classifier, asked)
    if run.has_results:
        results = json.loads(run.results.read_text(encoding="utf-8"))
    else:
        results = {f"val/{metric}": value for metric, value in measure(probs.log(), asked).items()}
    if name == "val":  # of some, nothing else is known
        results = {metric: results[metric] for metric in ("val/acc", "val/loss")}
    return evidence_of(run, recipe, results, classifier, asked, probs)


def _ask(classifier: Classifier, images: ImageSet) -> Tensor:
    parts = torch.split(torch.arange(len(images)), AT_ONCE)
    return torch.cat([classifier.probabilities(images[part][0]) for part in parts])

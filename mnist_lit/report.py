"""`report`: one page about a run, or about several side by side."""

import json
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mnist_lit.arguments import ArgumentParser
from mnist_lit.data.images import ImageSet
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError, one_line
from mnist_lit.files import user_path, write_asked
from mnist_lit.models import Shape, find_class, named_class
from mnist_lit.options import recipe_of
from mnist_lit.pages.comparison import comparison
from mnist_lit.pages.evidence import Evidence
from mnist_lit.pages.run_page import run_page
from mnist_lit.reading.classifier import Classifier
from mnist_lit.training import recipes, runs
from mnist_lit.training.results import evidence_of, measure
from mnist_lit.training.runs import Run

AT_ONCE = 1000  # images
VALIDATED = ("val/acc", "val/loss")
NUMBERS = (
    *VALIDATED, "train/acc", "train/loss", "test/acc", "test/loss", "test/calibration_error",
    "temperature", "params", "epochs", "fit_seconds", "images_per_s",
)  # fmt: skip
"""Keys of ``results.json`` that a report needs."""


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
    if len({run.folder.name for run in chosen}) < len(chosen):
        root = Path(os.path.commonpath([run.folder for run in chosen]))
        names = [str(run.folder.relative_to(root)) for run in chosen]
        found = [replace(one, name=name) for one, name in zip(found, names, strict=True)]
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
    if run.has_results and not run.best.is_file():
        raise UserError(f"{run.best} is gone, and there is no report without it")
    if not run.has_results:
        raise UserError(f"{run.folder} is not finished: go on with it, fit --ckpt_path {run.last}")
    return run


class Loaded:
    """Each data set loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[str, MNISTDataModule] = {}

    def of(self, config: Path, options: dict[str, Any]) -> MNISTDataModule:
        """Load the data of a run.

        Args:
            config: the file that they are from.
            options: its section ``data``.

        Raises:
            UserError: the data are gone, or the options are none.
        """
        names = ("dataset", "data_dir", "image_size", "val_size", "split_seed")
        chosen = {name: options[name] for name in names if name in options}
        key = repr(chosen)
        if key not in self._loaded:
            try:
                data = MNISTDataModule(**chosen)
                data.setup()
            except UserError:
                raise
            except (TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise UserError(f"{config} is damaged, section data: {one_line(error)}") from error
            self._loaded[key] = data
        return self._loaded[key]


def _evidence(run: Run, network: str | None, loaded: Loaded, name: str) -> Evidence:
    """Ask a run's best checkpoint about its test images, or its validation images.

    Raises:
        UserError: a file is missing or damaged, or names code that nobody has named here.
    """
    config = _config(run, {network} if network else set())
    class_path = config["model"]["network"]["class_path"]
    is_packaged = class_path.startswith("mnist_lit.")
    results = _results(run, VALIDATED if name == "val" else NUMBERS) if run.has_results else {}
    classifier = Classifier.load(run.best, None if is_packaged else find_class(class_path))
    data = loaded.of(run.config, config["data"])
    if Shape(data.num_classes, data.in_channels, data.image_size) != classifier.shape:
        raise UserError(f"{run.folder} was trained on other data than {data.dataset} is now")
    asked = data.images(name)
    probs = _ask(classifier, asked)
    if not results:
        results = {f"val/{metric}": value for metric, value in measure(probs.log(), asked).items()}
    if name == "val":  # of some, nothing else is known
        results = {metric: results[metric] for metric in VALIDATED}
    return evidence_of(run, config, results, classifier, asked, probs)


def _config(run: Run, named: Collection[str]) -> dict[str, Any]:
    """Read the config of a run, nested as in the file.

    Raises:
        UserError: it is damaged, or names code that is not in `named`.
    """
    text = recipe_of(run.best, Path(), named)
    if text == str(run.config):
        recipes.check_file(run.config)
        text = run.config.read_text(encoding="utf-8")
    try:
        config = recipes.load_yaml(text)
    except yaml.YAMLError:
        config = None
    match config:
        case {"model": {"network": {"class_path": str()}}, "data": {}}:
            return dict(config)
        case {"model": {}, "data": {}} if "network" not in config["model"]:
            raise UserError(f"{run.folder} is no run of fit: there is no report about a finder")
    raise UserError(
        f"{run.config} is damaged: restore it, or delete it to use the config in the checkpoint"
    )


def _results(run: Run, needed: Sequence[str]) -> dict[str, Any]:
    """Read ``results.json``.

    Raises:
        UserError: one of the numbers that are needed is missing.
    """
    results: dict[str, Any] = json.loads(run.results.read_bytes())
    for name in needed:
        value = results.get(name)
        if not (isinstance(value, int | float) and math.isfinite(value)):
            raise UserError(
                f"{run.results} is damaged: {name} is {json.dumps(value)}; delete the file and"
                f" evaluate the run again, fit --ckpt_path {run.last}"
            )
    return results


def _ask(classifier: Classifier, images: ImageSet) -> Tensor:
    parts = torch.split(torch.arange(len(images)), AT_ONCE)
    return torch.cat([classifier.probabilities(images[part][0]) for part in parts])

"""The command `report`: one page about a run, or about several side by side."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import yaml

from mnist_lit.commands.arguments import ArgumentParser
from mnist_lit.commands.command_line import config_of
from mnist_lit.data.module import SELECTION, MNISTDataModule
from mnist_lit.errors import UserError, join_names, one_line
from mnist_lit.files import user_path, write_output
from mnist_lit.models import Shape, find_class, named_class
from mnist_lit.reading.classifier import Classifier
from mnist_lit.reports.pages import comparison_page, run_page
from mnist_lit.reports.run_data import RunData
from mnist_lit.training import config_files, run_folders
from mnist_lit.training.results import gather_run_data, measure
from mnist_lit.training.run_folders import Run

BATCH_SIZE = 1000
VAL_METRICS = ("val/acc", "val/loss")
METRICS = (
    *VAL_METRICS, "train/acc", "train/loss", "test/acc", "test/loss", "test/calibration_error",
    "temperature", "params", "epochs", "fit_seconds", "images_per_s",
)  # fmt: skip
"""Keys of ``results.json`` that a report needs."""


def main(args: Sequence[str]) -> int:
    """Write a page about runs.

    Args:
        args: the command's name and its arguments.
    """
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
    named_class(given.network)
    chosen = _find_runs(given.runs)
    # Trials of a sweep are not tested: they are compared on the validation images.
    subset = "test" if all(run.has_results for run in chosen) else "val"
    datasets: dict[str, MNISTDataModule] = {}
    found = [_evaluate(run, given.network, datasets, subset) for run in chosen]
    root = os.path.commonpath([run.folder.parent for run in chosen])
    names = [str(run.folder.relative_to(root)) for run in chosen]
    found = [replace(run, name=name) for run, name in zip(found, names, strict=True)]
    if len(found) == 1 and subset == "test":
        page, output = run_page(found[0], config_files.defaults()), chosen[0].report
    else:
        page, output = comparison_page(found), chosen[0].folder.parent / "comparison.html"
    output = given.output or output
    write_output(output, page.encode(), "--output")
    print(f"report  {output}")
    return 0


def _find_runs(folders: Sequence[str]) -> list[Run]:
    """Return the given runs and those in the given folders, each once; of none, the newest run.

    Raises:
        UserError: a run is not finished, or a folder holds no finished run.
    """
    if not folders:
        return [_finished(run_folders.newest(Path()))]
    found = []
    for text in folders:
        folder = user_path(text).resolve()
        if Run(folder).exists:
            found.append(_finished(Run(folder)))
            continue
        inside = run_folders.trials_in(folder) or [
            run for run in run_folders.runs_in(folder) if run.has_results
        ]
        if not inside:
            raise UserError(f"{text} is not a run, and holds no finished one")
        found += inside
    return list(dict.fromkeys(found))


def _finished(run: Run) -> Run:
    if run.has_results:
        return run
    if (run.folder / run_folders.TRIAL).exists():
        raise UserError(f"{run.folder} is an untested trial: report {run.folder.parent}")
    raise UserError(f"{run.folder} is not finished: resume it, fit --ckpt_path {run.last}")


def _evaluate(
    run: Run, network: str | None, datasets: dict[str, MNISTDataModule], subset: str
) -> RunData:
    """Classify the test images, or the validation images, with a run's best checkpoint.

    Args:
        run: a run of `fit`.
        network: the class of a network that the user has named.
        datasets: those that are loaded already, which is updated.
        subset: ``test`` or ``val``.

    Raises:
        UserError: a file is missing or damaged, or names code that nobody has named here.
    """
    if not run.best.is_file():
        raise UserError(f"{run.best} is gone, and there is no report without it")
    config, data = _load_data(run, network, datasets)
    class_path = config["model"]["network"]["class_path"]
    is_packaged = class_path.startswith("mnist_lit.")
    classifier = Classifier.load(run.best, named_class(None if is_packaged else class_path))
    if Shape(data.num_classes, data.in_channels, data.image_size) != classifier.shape:
        raise UserError(f"{run.folder} was trained on other data than {data.dataset} is now")
    dataset = data.images(subset)
    batches = torch.split(torch.arange(len(dataset)), BATCH_SIZE)
    probs = torch.cat([classifier.probabilities(dataset[indices][0]) for indices in batches])
    if run.has_results:
        results = _load_results(run, METRICS if subset == "test" else VAL_METRICS)
    else:
        results = {f"val/{name}": value for name, value in measure(probs.log(), dataset).items()}
    return gather_run_data(run, config, results, classifier, dataset, probs)


def _load_data(
    run: Run, network: str | None, datasets: dict[str, MNISTDataModule]
) -> tuple[dict[str, Any], MNISTDataModule]:
    """Read the config of a run, and load its data unless another run has the same.

    Raises:
        UserError: the config is damaged, not of a classifier, or names code that is not `network`;
            or the data are gone.
    """
    text = config_of(run.best, Path(), {network} if network else set())
    if text == str(run.config):
        config_files.check_file(run.config)
        text = run.config.read_text(encoding="utf-8")
    try:
        config = config_files.load_yaml(text)
        if "network" not in config["model"]:
            raise UserError(f"{run.folder} is not a run of fit: reports are about classifiers")
        path = config_files.class_of(yaml.safe_load(text), "data")
        only_for_training = signature(MNISTDataModule).parameters.keys() - set(SELECTION)
        options = {
            name: value for name, value in config["data"].items() if name not in only_for_training
        }
        key = repr((path, options))
        if key not in datasets:
            data_class = find_class(path, MNISTDataModule) if path else MNISTDataModule
            datasets[key] = data_class(**options)
            datasets[key].setup()
        return config, datasets[key]
    except UserError:
        raise
    except (yaml.YAMLError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{run.config} is damaged ({one_line(error)}): restore it, or delete it to use the"
            " config in the checkpoint"
        ) from error


def _load_results(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Read the named metrics of ``results.json``.

    Raises:
        UserError: one of them is missing.
    """
    results = json.loads(run.results.read_bytes())
    missing = [name for name in names if name not in results]
    if missing:
        raise UserError(
            f"{run.results} lacks {join_names(missing)}: delete the file and evaluate the run"
            f" again, fit --ckpt_path {run.last}"
        )
    return {name: results[name] for name in names}

"""Evaluate a finished run: results.json, figures, report, and a table."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.model_helpers import is_overridden
from rich.table import Table
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from mnist_lit.console import ignore_closed_output, plain_console, warning_if_failed
from mnist_lit.data.images import ImageSet
from mnist_lit.data.module import SETS, MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.files import atomic_write
from mnist_lit.reading.classifier import Classifier
from mnist_lit.reports import figures
from mnist_lit.reports.pages import run_page
from mnist_lit.reports.run_data import RunData
from mnist_lit.synthetic.data import SheetDataModule
from mnist_lit.training.calibration import calibration_error, fit_temperature
from mnist_lit.training.classification import LitClassifier
from mnist_lit.training.config_files import defaults, options_of, provenance
from mnist_lit.training.csv_logger import history
from mnist_lit.training.detection import LitDetector
from mnist_lit.training.detection_figure import plot_sheets
from mnist_lit.training.loggers import log_end
from mnist_lit.training.processes import single_process_trainer
from mnist_lit.training.run_folders import Run, store_temperature

LOGGED = ("test/acc", "test/loss")  # of a classifier's results, to loggers
LABELS = dict(zip(SETS, ("training", "validation", "test"), strict=True))


def finish(
    run: Run,
    trainer: Trainer,
    model: LightningModule,
    data: MNISTDataModule,
    facts: dict[str, Any],
    config: Mapping[str, Any],
) -> None:
    """Evaluate a trained network and save the results; then draw, report and log.

    A `LitClassifier` is calibrated and gets a report; of other models, their own test is the
    result. Only evaluation can fail: a figure, report or logger that fails costs a warning.

    Args:
        run: where they go; its best checkpoint gets the temperature.
        trainer: the one that has trained.
        model: with the weights to evaluate.
        data: the data module of the training.
        facts: goes into ``results.json`` as it is, in front of the measured values.
        config: all options, nested as in a config file, for loggers to compare runs by.
    """
    # `predict` and `test` would close these, and a logger that fails would cost the results.
    loggers, trainer.loggers = trainer.loggers, []
    probs = None
    if isinstance(model, LitClassifier):
        measured, probs = _evaluate(run, trainer, model, data)
    else:
        measured = _test(trainer, model, data)
    results = {**facts, **measured}
    with saved(run, results):
        pictures = save_figures(run.figures, figure_makers(run, model, data, probs))
        if isinstance(model, LitClassifier) and probs is not None:
            with warning_if_failed("the report"):
                classifier = Classifier.load(run.best, type(model.network))
                test_images = data.images("test")
                run_data = gather_run_data(run, config, results, classifier, test_images, probs)
                page = run_page(run_data, defaults())
                with atomic_write(run.report) as path:
                    path.write_text(page, encoding="utf-8")
        logged = measured if probs is None else {name: measured[name] for name in LOGGED}
        metrics = {**logged, "epoch": trainer.current_epoch}
        for logger in loggers:
            with warning_if_failed(f"logging the results to {type(logger).__name__}"):
                log_end(logger, config, trainer.global_step, metrics, pictures)


def _test(trainer: Trainer, model: LightningModule, data: MNISTDataModule) -> dict[str, float]:
    """Return the metrics that the model's own test logs; empty if it has no test."""
    if not is_overridden("test_step", model):
        return {}
    (tested,) = single_process_trainer(trainer).test(model, datamodule=data, verbose=False)
    _check_finite(tested)
    return dict(tested)


def _check_finite(measured: Mapping[str, float]) -> None:
    for name, value in measured.items():
        if not math.isfinite(value):
            raise UserError(f"{name} is {value}: train again with a smaller --model.lr")


def _evaluate(
    run: Run, trainer: Trainer, model: LitClassifier, data: MNISTDataModule
) -> tuple[dict[str, Any], Tensor]:
    """Measure and calibrate the best checkpoint.

    Returns:
        The measured values, and the probabilities of the test images, ``(N, K)``.
    """
    outputs = single_process_trainer(trainer).predict(model, datamodule=data)
    log_probs = dict(zip(SETS, map(torch.cat, outputs or []), strict=True))
    measured = {
        f"{name}/{metric}": value
        for name in SETS
        for metric, value in measure(log_probs[name], data.images(name)).items()
    }
    _check_finite(measured)
    temperature = fit_temperature(log_probs["val"], data.images("val").chosen_labels)
    store_temperature(run.best, temperature)
    probs = (log_probs["test"] / temperature).softmax(1)
    labels = data.images("test").chosen_labels
    counts = multiclass_confusion_matrix(probs.argmax(1), labels, len(data.classes))
    results = {
        **measured,
        "num_test_images": len(probs),
        "test/acc_per_class": _acc_per_class(counts, data.classes),
        "test/confusion": counts.tolist(),
        "temperature": temperature,
        "test/calibration_error": calibration_error(probs, labels),
    }
    return results, probs


@contextmanager
def saved(run: Run, results: Mapping[str, Any]) -> Iterator[None]:
    """Save ``results.json``; if the process dies inside the block, resuming the run repeats it."""
    run.pending.touch()
    with atomic_write(run.results) as path:
        path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    yield
    run.pending.unlink(missing_ok=True)


def save_figures(folder: Path, makers: Mapping[str, Callable[[], Figure]]) -> list[Path]:
    """Save figures as PNG.

    Args:
        folder: where.
        makers: for each name, a function that makes the figure.

    Returns:
        The files; one that fails costs a warning, and none of the others.
    """
    paths = []
    for name, make in makers.items():
        path = folder / f"{name}.png"
        with warning_if_failed(f"the figure {name}"):
            with atomic_write(path) as temporary:
                make().savefig(temporary, format="png", dpi=100)
            paths.append(path)
    return paths


def leave_untested(trainer: Trainer, config: Mapping[str, Any]) -> None:
    """Close the loggers of a run whose test images are held back.

    Args:
        trainer: the one that has trained.
        config: all options, nested as in a config file.
    """
    for logger in trainer.loggers:
        with warning_if_failed(f"logging the results to {type(logger).__name__}"):
            log_end(logger, config, trainer.global_step)


def gather_run_data(
    run: Run,
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    classifier: Classifier,
    dataset: ImageSet,
    probs: Tensor,
) -> RunData:
    """Gather everything that a report says about a run.

    Args:
        run: its folder.
        config: all options, nested as in a config file.
        results: as in ``results.json``.
        classifier: the run's best checkpoint.
        dataset: N images.
        probs: ``(N, K)`` the classifier's predictions.
    """
    return RunData(
        name=run.folder.name,
        place=f"{run.folder.parent.name}/{run.folder.name}",
        options=options_of(config),
        provenance=provenance(run),
        results=results,
        history=history(run),
        classifier=classifier,
        dataset=dataset,
        probs=probs,
    )


def measure(log_probs: Tensor, images: ImageSet) -> dict[str, float]:
    """Compute accuracy and loss of predictions.

    Args:
        log_probs: ``(N, K)``.
        images: N of them.
    """
    labels = images.chosen_labels
    return {
        "acc": (log_probs.argmax(1) == labels).double().mean().item(),
        "loss": F.nll_loss(log_probs.double(), labels).item(),
    }


def _acc_per_class(counts: Tensor, classes: Sequence[str]) -> dict[str, float | None]:
    """Compute the accuracy of each class; None for a class without images."""
    return {
        name: row[label].item() / row.sum().item() if row.any() else None
        for label, (name, row) in enumerate(zip(classes, counts, strict=True))
    }


def figure_makers(
    run: Run, model: LightningModule, data: MNISTDataModule, probs: Tensor | None
) -> dict[str, Callable[[], Figure]]:
    """Return a function for each figure of a run, by the figure's name.

    Args:
        run: its folder.
        model: with the weights of the best checkpoint.
        data: the data module of the training.
        probs: of the test images, ``(N, K)``; None: the model is not a `LitClassifier`.
    """
    found: dict[str, Callable[[], Figure]] = {"curves": lambda: figures.curves(history(run))}
    if isinstance(model, LitDetector) and isinstance(data, SheetDataModule):
        found["sheets"] = lambda: plot_sheets(model, data)
    if isinstance(model, LitClassifier) and probs is not None:
        images, labels = data.images("test").images, data.images("test").chosen_labels
        found |= {
            "predictions": lambda: figures.predictions(images, labels, probs, data.classes),
            "confusion": lambda: figures.confusion(labels, probs.argmax(1), data.classes),
            "mistakes": lambda: figures.mistakes(images, labels, probs, data.classes),
        }
        kernels = figures.first_kernels(model.network)
        if kernels:
            found["filters"] = lambda: figures.filters(kernels)
    return found


def pluralized(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def scores(metrics: Mapping[str, float], names: Iterable[str], title: str | None = None) -> Table:
    """Make a table of accuracy and loss, with a row for each set of images.

    Args:
        metrics: ``test/acc``, ``test/loss`` and so on; those that are missing stay empty.
        names: of the sets, as in `SETS`.
        title: above the table.
    """
    table = Table("", "accuracy", "loss", title=title)
    for name in names:
        cells = [
            format(metrics[f"{name}/{metric}"], form) if f"{name}/{metric}" in metrics else ""
            for metric, form in (("acc", ".2%"), ("loss", ".4f"))
        ]
        if any(cells):
            table.add_row(LABELS[name], *cells)
    return table


@ignore_closed_output()
def print_results(run: Run) -> None:
    """Print the results of a finished run, and its files."""
    results = json.loads(run.results.read_text(encoding="utf-8"))
    console = plain_console()
    console.print(scores(results, SETS, "best checkpoint"))
    console.print(
        f"{results['params']:,} parameters, {pluralized(results['epochs'], 'epoch')}"
        f" in {results['fit_seconds']:.0f} s, {results['images_per_s']:,.0f} images a second"
    )
    if "temperature" in results:
        console.print(
            f"confidence is off by {results['test/calibration_error']:.2%} on average"
            f" (test images, temperature {results['temperature']:.2f})"
        )
    places = {
        "checkpoint": run.best,
        "figures": run.figures,
        "results": run.results,
        "report": run.report,
    }
    for name, path in places.items():
        if path.exists():
            console.print(f"{name:10}  {path}")
    console.print(f"curves      tensorboard --logdir {run.folder.parent}")

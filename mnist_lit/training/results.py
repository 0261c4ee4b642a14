"""What a finished run leaves beside its checkpoints: numbers, figures and a table."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from pytorch_lightning import Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mnist_lit import figures
from mnist_lit.classifier import Classifier
from mnist_lit.data.images import ImageSet
from mnist_lit.data.module import SETS, MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.files import whole_file
from mnist_lit.pages.evidence import Evidence
from mnist_lit.pages.run_page import run_page
from mnist_lit.training.calibration import calibration_error, fit_temperature
from mnist_lit.training.company import alone
from mnist_lit.training.loggers import history
from mnist_lit.training.module import LitClassifier
from mnist_lit.training.recipes import defaults, options_of, provenance
from mnist_lit.training.runs import Run, store_temperature
from mnist_lit.training.tracking import finalize, log_compared, log_evidence, log_figure


def finish(
    run: Run,
    trainer: Trainer,
    model: LitClassifier,
    data: MNISTDataModule,
    facts: dict[str, Any],
    recipe: Mapping[str, Any],
) -> None:
    """Evaluate and calibrate a trained network; write the figures, the report and ``results.json``.

    Args:
        run: where they go; its best checkpoint gets the temperature.
        trainer: the one that has trained.
        model: with the weights to evaluate.
        data: what it was trained on.
        facts: goes into ``results.json`` as it is, in front of the measured values.
        recipe: all options, nested as in a config file, for loggers to compare runs by.
    """
    outputs = alone(trainer).predict(model, datamodule=data)
    log_probs = dict(zip(SETS, map(torch.cat, outputs or []), strict=True))
    measured = {
        f"{name}/{metric}": value
        for name in SETS
        for metric, value in measure(log_probs[name], data.images(name)).items()
    }
    if not all(map(math.isfinite, measured.values())):
        raise UserError("the loss has become infinite: train again with a smaller --model.lr")
    temperature = fit_temperature(log_probs["val"], data.images("val").chosen_labels)
    store_temperature(run.best, temperature)
    probs = (log_probs["test"] / temperature).softmax(1)
    counts = figures.counts(data.images("test").chosen_labels, probs.argmax(1), len(data.classes))
    results = {
        **facts,
        **measured,
        "num_test_images": len(probs),
        "test/acc_per_class": _acc_per_class(counts, data.classes),
        "test/confusion": counts.tolist(),
        "temperature": temperature,
        "test/calibration_error": calibration_error(probs, data.images("test").chosen_labels),
    }
    test_metrics = {name: value for name, value in measured.items() if name.startswith("test/")}
    for logger in trainer.loggers:
        logger.log_metrics({**test_metrics, "epoch": trainer.current_epoch}, trainer.global_step)
        logger.save()
        log_compared(logger, recipe)
    for name, figure in _draw(run, model, data, probs):
        path = run.figures / f"{name}.png"
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=100)
        for logger in trainer.loggers:
            log_figure(logger, path, trainer.global_step)
    classifier = Classifier.load(run.best, type(model.network))
    evidence = evidence_of(run, recipe, results, classifier, data.images("test"), probs)
    for logger in trainer.loggers:
        log_evidence(logger, evidence, trainer.global_step)
        finalize(logger)
    page = run_page(evidence, defaults())
    with whole_file(run.report) as path:
        path.write_text(page)
    with whole_file(run.results) as path:  # the last file: where it is, the run is complete
        path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")


def leave_untested(trainer: Trainer, recipe: Mapping[str, Any]) -> None:
    """Let loggers compare a run whose test images are held back, and end them.

    Args:
        trainer: the one that has trained.
        recipe: all options, nested as in a config file.
    """
    for logger in trainer.loggers:
        log_compared(logger, recipe)
        finalize(logger)


def evidence_of(
    run: Run,
    recipe: Mapping[str, Any],
    results: Mapping[str, Any],
    classifier: Classifier,
    asked: ImageSet,
    probs: Tensor,
) -> Evidence:
    """What a page about a run is made from.

    Args:
        run: which.
        recipe: all options, nested as in a config file.
        results: as in ``results.json``.
        classifier: the run's best checkpoint.
        asked: what it was asked about, N images.
        probs: ``(N, K)``, what it says of them.
    """
    return Evidence(
        name=run.folder.name,
        place=f"{run.folder.parent.name}/{run.folder.name}",
        options=options_of(recipe),
        provenance=provenance(run),
        results=results,
        history=history(run),
        classifier=classifier,
        asked=asked,
        probs=probs,
    )


def measure(log_probs: Tensor, images: ImageSet) -> dict[str, float]:
    """Accuracy and loss of what a network says of images.

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
    """The share of each class's images that are told right; of a class without any, none."""
    return {
        name: row[label].item() / row.sum().item() if row.any() else None
        for label, (name, row) in enumerate(zip(classes, counts, strict=True))
    }


def _draw(
    run: Run, model: LitClassifier, data: MNISTDataModule, probs: Tensor
) -> Iterator[tuple[str, Figure]]:
    images, labels = data.images("test").images, data.images("test").chosen_labels
    kernels = figures.first_kernels(model.network)
    yield "predictions", figures.predictions(images, labels, probs, data.classes)
    yield "confusion", figures.confusion(labels, probs.argmax(1), data.classes)
    if kernels:
        yield "filters", figures.filters(kernels)
    yield "mistakes", figures.mistakes(images, labels, probs, data.classes)
    yield "curves", figures.curves(history(run))


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def show(run: Run) -> None:
    """Print how good a finished run is, and where everything lies."""
    results = json.loads(run.results.read_text())
    table = Table("", "accuracy", "loss", title="best checkpoint")
    for name, label in zip(SETS, ("training", "validation", "test"), strict=True):
        table.add_row(label, f"{results[f'{name}/acc']:.2%}", f"{results[f'{name}/loss']:.4f}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(
        f"{results['params']:,} parameters, {counted(results['epochs'], 'epoch')}"
        f" in {results['fit_seconds']:.0f} s, {results['images_per_s']:,.0f} images a second\n"
        f"confidence is off by {results['test/calibration_error']:.2%} on average"
        f" (test images, temperature {results['temperature']:.2f})\n"
        f"checkpoint  {run.best}\n"
        f"figures     {run.figures}\n"
        f"results     {run.results}\n"
        f"report      {run.report}\n"
        f"curves      tensorboard --logdir {run.folder.parent}"
    )

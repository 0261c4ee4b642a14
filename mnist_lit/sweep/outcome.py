"""What a sweep says and leaves: lines, tables, pictures, and the best options as a recipe."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
import yaml
from matplotlib.figure import Figure
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.table import Table

from mnist_lit.console import plain_console
from mnist_lit.files import whole_file, write_csv
from mnist_lit.sweep import drawings
from mnist_lit.sweep.space import Option
from mnist_lit.sweep.study import COMPLETE, ENDED, Sweep
from mnist_lit.training.results import counted, draw

NUM_SHOWN = 5
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def line(sweep: Sweep, trial: FrozenTrial, reason: str) -> str:
    """What came of a trial, and the best one so far.

    Args:
        sweep: whose trial it is.
        trial: which; it has ended.
        reason: why it failed, if it did.
    """
    parts = [f"trial {trial.number} {STATES[trial.state]}"]
    epoch = sweep.best_epoch(trial)
    if epoch:
        parts[0] += f" after {counted(len(trial.user_attrs['epochs']), 'epoch')}"
        parts.append(_scores(epoch[1]))
    parts.append(", ".join(f"{name} {short(value)}" for name, value in trial.params.items()))
    if trial.state == TrialState.FAIL and reason:
        parts.append(reason)
    complete = sweep.trials(COMPLETE)
    if complete:
        _, metrics = sweep.best_epoch(complete[0]) or (0, {})
        parts.append(f"best so far: trial {complete[0].number}, {_scores(metrics)}")
    return "  ".join(parts)


def _scores(metrics: Mapping[str, float]) -> str:
    return f"loss {metrics['val/loss']:.4f}, {metrics['val/acc']:.2%}"


def short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write(sweep: Sweep, recipe: Mapping[str, Any], space: Sequence[Option]) -> None:
    """Write ``trials.csv``, ``best.yaml`` and the pictures into the sweep's folder.

    Args:
        sweep: one with a trial that was completed.
        recipe: all options of the best trial, nested as in a config file.
        space: what was searched.
    """
    rows = list(_rows(sweep, space))
    write_csv(sweep.folder / "trials.csv", rows, list(rows[0]))
    best = sweep.trials(COMPLETE)[0]
    _, metrics = sweep.best_epoch(best) or (0, {})
    with whole_file(sweep.folder / "best.yaml") as path:
        path.write_text(
            f"# Trial {best.number}, the best of {len(sweep.trials(ENDED))} by validation:"
            f" {_scores(metrics)}.\n"
            "#\n# Only what was searched: give it behind the recipe of the sweep.\n\n"
            + yaml.safe_dump(chosen(recipe, [option.name for option in space]), sort_keys=False),
            encoding="utf-8",
        )
    draw(sweep.folder / "figures", _drawings(sweep, space))


def _rows(sweep: Sweep, space: Sequence[Option]) -> Iterator[dict[str, Any]]:
    for trial in sweep.study.get_trials(deepcopy=False):
        epoch, metrics = sweep.best_epoch(trial) or ("", {})
        yield {
            "trial": trial.number,
            "state": STATES[trial.state],
            "epochs": len(trial.user_attrs.get("epochs", {})),
            "best_epoch": epoch,
            "val/loss": metrics.get("val/loss", ""),
            "val/acc": metrics.get("val/acc", ""),
            **{option.name: trial.params.get(option.name) for option in space},
            "folder": trial.user_attrs.get("folder", ""),
        }


def chosen(recipe: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The part of a recipe that some options are.

    Args:
        recipe: all options, nested as in a config file.
        names: as typed behind `fit`, where ``model.network.dropout`` is short for what a config
            file has in ``init_args``.
    """
    part: dict[str, Any] = {}
    for name in sorted(names):  # a class comes before its arguments
        source, target, keys = recipe, part, name.split(".")
        for number, key in enumerate(keys):
            if key not in source and "init_args" in source:
                source, target = source["init_args"], target.setdefault("init_args", {})
            if number == len(keys) - 1:
                target[key] = source[key]
            else:
                source, target = source[key], target.setdefault(key, {})
    return part


def importances(sweep: Sweep, space: Sequence[Option]) -> dict[str, float]:
    """How much each option matters for being among the best tenth, adding up to 1; all 0: unknown.

    Trials that were pruned count by their best epoch: they are not among the best.

    Source: Watanabe, Bansal and Hutter, "PED-ANOVA" (2023).
    """
    study = optuna.create_study(direction=sweep.study.direction)
    for trial in sweep.trials(ENDED):
        value = sweep.value_of(trial)
        study.add_trial(
            create_trial(value=value, params=trial.params, distributions=trial.distributions)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are few
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {option.name: float(found.get(option.name, 0.0)) for option in space}


def _drawings(sweep: Sweep, space: Sequence[Option]) -> dict[str, Callable[[], Figure]]:
    points = [
        drawings.Point(trial.number, value, trial.state == TrialState.PRUNED, trial.params)
        for trial in sorted(sweep.trials(ENDED), key=lambda trial: trial.number)
        if (value := sweep.value_of(trial)) is not None
    ]
    label = {"val/loss": "validation loss", "val/acc": "validation accuracy"}[sweep.monitor]
    return {
        "history": lambda: drawings.history(points, label, sweep.is_minimized),
        "importances": lambda: drawings.importances(importances(sweep, space)),
        "parallel": lambda: drawings.parallel(points, space, label, sweep.is_minimized),
    }


def show(sweep: Sweep, space: Sequence[Option]) -> None:
    """Print the best trials, how much each option matters, and where everything lies."""
    best = sweep.trials(COMPLETE)[:NUM_SHOWN]
    shares = importances(sweep, space)
    table = Table("", *(f"trial {trial.number}" for trial in best), "importance")
    epochs = [sweep.best_epoch(trial) or (0, {}) for trial in best]
    table.add_row("validation loss", *(f"{metrics['val/loss']:.4f}" for _, metrics in epochs), "")
    table.add_row("accuracy", *(f"{metrics['val/acc']:.2%}" for _, metrics in epochs), "")
    table.add_row("best epoch", *(str(number) for number, _ in epochs), "", end_section=True)
    for name in sorted(shares, key=lambda name: -shares[name]):
        tried = (short(trial.params[name]) for trial in best)
        table.add_row(name, *tried, f"{shares[name]:.0%}")
    console = plain_console()
    console.print(table)
    states = [trial.state for trial in sweep.study.get_trials(deepcopy=False)]
    counts = ", ".join(
        f"{states.count(state)} {name}" for state, name in STATES.items() if state in states
    )
    console.print(
        f"{counted(len(states), 'trial')}: {counts}\n"
        f"best options  {sweep.folder / 'best.yaml'}\n"
        f"all trials    {sweep.folder / 'trials.csv'}\n"
        f"figures       {sweep.folder / 'figures'}"
    )

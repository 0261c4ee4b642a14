"""The results of a sweep: a line for each trial, a table, figures and the best options."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import matplotlib as mpl
import yaml
from matplotlib import pyplot as plt
from optuna import Study
from optuna.trial import FrozenTrial
from optuna.visualization.matplotlib import (
    plot_optimization_history,
    plot_parallel_coordinate,
    plot_param_importances,
)

from mnist_lit.console import plain_console, warning_if_failed
from mnist_lit.files import atomic_write, write_csv
from mnist_lit.sweep.study import Sweep, best_epoch, first_attempt, last_attempts
from mnist_lit.training.results import pluralized

FIGURES: Mapping[str, Callable[..., Any]] = {
    "history": plot_optimization_history,
    "importances": plot_param_importances,
    "parallel": plot_parallel_coordinate,
}


def print_trial(study: Study, trial: FrozenTrial) -> None:
    """Print a trial that has ended, and the best one so far."""
    parts = [f"trial {first_attempt(trial)}: {_state(trial)}", _scores(study, trial)]
    parts.append(", ".join(f"{name} {_short(value)}" for name, value in trial.params.items()))
    parts.append(trial.user_attrs.get("error", ""))
    for best in study.best_trials[:1]:
        parts.append(f"best so far: trial {first_attempt(best)}, {_scores(study, best)}")
    plain_console().print("  ".join(filter(None, parts)))


def _state(trial: FrozenTrial) -> str:
    return trial.state.name.lower().replace("fail", "failed")


def _scores(study: Study, trial: FrozenTrial) -> str:
    _, metrics = best_epoch(study, trial)
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()) or "no finite metric"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def save(sweep: Sweep, best: FrozenTrial) -> None:
    """Write ``trials.csv``, ``best.yaml`` and figures into the sweep's folder, and say so."""
    rows = list(_rows(sweep))
    columns = dict.fromkeys(name for row in rows for name in row)
    write_csv(sweep.folder / "trials.csv", rows, list(columns))
    num_trials = pluralized(len(rows), "trial")
    title = f"Trial {first_attempt(best)}, the best of {num_trials}: {_scores(sweep.study, best)}"
    with atomic_write(sweep.folder / "best.yaml") as path:
        options = yaml.safe_dump(best.params)
        path.write_text(f"# {title}\n# Give it after the sweep's config.\n\n{options}", "utf-8")
    for name, plot in FIGURES.items():
        # Optuna draws with pyplot, whose style and figures would stay; it warns of few trials.
        with (
            warning_if_failed(f"the figure {name}"),
            mpl.rc_context({"figure.figsize": (9, 5)}),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            figure = plot(sweep.study, target_name=sweep.monitor).figure
            with atomic_write(sweep.folder / "figures" / f"{name}.png") as path:
                figure.savefig(path, format="png", bbox_inches="tight")
            plt.close(figure)
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    plain_console().print(
        f"{num_trials}: {counts}\n"
        f"best options  {sweep.folder / 'best.yaml'}\n"
        f"all trials    {sweep.folder / 'trials.csv'}\n"
        f"figures       {sweep.folder / 'figures'}"
    )


def _rows(sweep: Sweep) -> Iterator[dict[str, Any]]:
    for number, trial in sorted(last_attempts(sweep.study).items()):
        epoch, metrics = best_epoch(sweep.study, trial)
        yield {
            "trial": number,
            "state": _state(trial),
            "epochs": len(trial.intermediate_values),
            "best_epoch": epoch,
            **metrics,
            **{name: trial.params.get(name) for name in sweep.space},
            "folder": sweep.run(number).folder,
        }

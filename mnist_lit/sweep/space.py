"""The search space: a range or choices for each searched option of `fit`, read from a YAML file."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna import Trial

from mnist_lit.errors import UserError, one_line
from mnist_lit.training import config_files

Space = Mapping[str, Mapping[str, Any]]  # option -> arguments of Trial.suggest_float and the like

# These decide how trials are compared, or where files are.
NOT_SEARCHED = (
    *("best_checkpoint", "ckpt_path", "config", "print_config", "seed_everything"),
    *("data.data_dir", "data.dataset", "data.split_seed", "data.val_size"),
    *("trainer.default_root_dir", "trainer.fast_dev_run", "trainer.limit_val_batches"),
)


def read(path: Path) -> Space:
    """Read a search space, sorted by the names of the options.

    Raises:
        UserError: the file is not a search space.
    """
    config_files.check_file(path, "--space")
    try:
        content = config_files.load_yaml(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"--space {path} is not YAML: {one_line(error)}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(
            f"--space {path} names no options: model.lr: {{low: 0.001, high: 0.01}}, say"
        )
    space = dict(sorted((str(name), entry) for name, entry in content.items()))
    trial = optuna.create_study().ask()
    for name, entry in space.items():
        if any(name == same or name.startswith(f"{same}.") for same in NOT_SEARCHED):
            raise UserError(f"--space {path}: {name} has to be the same in all trials")
        try:
            if not isinstance(entry, dict):
                raise TypeError(f"{entry} is neither a range nor choices")
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a step that does not divide the range
                suggest(trial, {name: entry})
            if len(set(entry.get("choices", ()))) < len(entry.get("choices", ())):
                raise ValueError("a choice comes twice")
        except (TypeError, ValueError, OverflowError, UserWarning) as error:
            reason = one_line(error).removesuffix(".").partition(". It will")[0]
            raise UserError(
                f"--space {path}: {name}: {reason}; give numbers low and high, and maybe step or"
                " log: true; or a list of choices alone"
            ) from error
    return space


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """Return the values of a trial: new ones, or the old ones if it was started before."""
    return {name: _suggest(trial, name, entry) for name, entry in space.items()}


def _suggest(trial: Trial, name: str, entry: Mapping[str, Any]) -> Any:
    if "choices" in entry:
        return trial.suggest_categorical(name, **entry)
    return (trial.suggest_int if _is_whole(entry) else trial.suggest_float)(name, **entry)


def _is_whole(entry: Mapping[str, Any]) -> bool:
    return all(isinstance(entry.get(key, 0), int) for key in ("low", "high", "step"))


def num_combinations(space: Space) -> float:
    """Count the combinations of values; infinite if a range has no list of values."""
    return math.prod(len(of_one) if of_one else math.inf for of_one in map(values, space.values()))


def values(entry: Mapping[str, Any]) -> Sequence[Any]:
    """Return all values of an option; none if its range is continuous or logarithmic."""
    if "choices" in entry:
        return list(entry["choices"])
    if entry.get("log"):
        return ()
    if _is_whole(entry):
        return range(entry["low"], entry["high"] + 1, entry.get("step", 1))
    if "step" not in entry:
        return ()
    num_steps = round((entry["high"] - entry["low"]) / entry["step"])
    return [round(entry["low"] + step * entry["step"], 12) for step in range(num_steps + 1)]


def edges(entry: Mapping[str, Any]) -> Sequence[Any]:
    """Return all choices, or the ends of a range."""
    return entry["choices"] if "choices" in entry else (entry["low"], entry["high"])


def arguments(values: Mapping[str, Any]) -> list[str]:
    """Return options as they are typed after `fit`."""
    return [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    ]

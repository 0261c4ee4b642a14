"""What a sweep tries: ranges and choices of the options of `fit`, read from a file."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna import Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mnist_lit.errors import UserError, one_line
from mnist_lit.training import recipes

Value = str | int | float | bool | None

# What decides has to be the same for all; and places are places.
NOT_SEARCHED = (
    "best_checkpoint",
    "ckpt_path",
    "config",
    "data.data_dir",
    "data.dataset",
    "data.split_seed",
    "data.val_size",
    "seed_everything",
    "trainer.default_root_dir",
    "trainer.fast_dev_run",
    "trainer.limit_val_batches",
)


@dataclass(frozen=True)
class Option:
    """An option of `fit`, and what is tried for it."""

    name: str
    distribution: BaseDistribution

    @property
    def edges(self) -> tuple[Value, ...]:
        """The ends of its range, or all its choices: what is right for them is so in between."""
        tried = self.distribution
        if isinstance(tried, FloatDistribution | IntDistribution):
            return tried.low, tried.high
        assert isinstance(tried, CategoricalDistribution)
        return tried.choices

    @property
    def is_range(self) -> bool:
        return not isinstance(self.distribution, CategoricalDistribution)

    @property
    def is_log(self) -> bool:
        return bool(getattr(self.distribution, "log", False))

    def suggest(self, trial: Trial) -> Value:
        """What a trial tries; if it was begun before, the same as then."""
        tried = self.distribution
        if isinstance(tried, FloatDistribution):
            return trial.suggest_float(
                self.name, tried.low, tried.high, step=tried.step, log=tried.log
            )
        if isinstance(tried, IntDistribution):
            return trial.suggest_int(
                self.name, tried.low, tried.high, step=tried.step, log=tried.log
            )
        assert isinstance(tried, CategoricalDistribution)
        return trial.suggest_categorical(self.name, tried.choices)


def arguments(values: Mapping[str, Value]) -> list[str]:
    """Options as they are typed behind `fit`."""
    return [
        f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    ]


def read(path: Path) -> list[Option]:
    """The options of a file, sorted by name.

    Raises:
        UserError: it is no such file, or says something that cannot be tried.
    """
    recipes.check_file(path, "--space")
    try:
        content = recipes.load_yaml(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"--space {path} is no YAML: {one_line(error)}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(
            f"--space {path} names no options: model.lr: {{low: 0.001, high: 0.01}}, say"
        )
    options = []
    for name, tried in sorted(content.items()):
        try:
            options.append(Option(str(name), _distribution(str(name), tried)))
        except ValueError as error:
            raise UserError(f"--space {path}: {name}: {error}") from None
    return options


def _distribution(name: str, tried: Any) -> BaseDistribution:
    """What a line of the file means.

    Raises:
        ValueError: nothing that can be tried.
    """
    if any(name == same or name.startswith(f"{same}.") for same in NOT_SEARCHED):
        raise ValueError("it has to be the same in all trials, or they could not be compared")
    keys = set(tried) if isinstance(tried, dict) else set()
    if keys == {"choices"}:
        return _choices(tried["choices"])
    if not {"low", "high"} <= keys <= {"low", "high", "step", "log"}:
        raise ValueError("give low and high, and maybe step or log; or choices alone")
    low, high, step = tried["low"], tried["high"], tried.get("step")
    log = tried.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"log {log} is neither true nor false")
    for key in keys - {"log"}:
        if not _is_number(tried[key]):
            raise ValueError(f"{key} {tried[key]} is no number")
    if not low < high:
        raise ValueError(f"from {low} to {high}, there is nothing to choose from")
    if log and (step is not None or low <= 0):
        raise ValueError("log is for ranges above 0 that have no step")
    if step is not None and not _fits(step, high - low):
        raise ValueError(f"from {low} to {high}, there is no whole number of steps of {step}")
    if all(isinstance(value, int) for value in (low, high, 1 if step is None else step)):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def _choices(choices: Any) -> CategoricalDistribution:
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or len(set(map(repr, choices))) < len(choices)
    ):
        raise ValueError("choices are a list of two different ones, or more")
    for choice in choices:
        if not isinstance(choice, Value):
            raise ValueError(f"{choice} is no choice: take text, numbers, true, false or null")
    return CategoricalDistribution(choices)


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and math.isfinite(value)


def _fits(step: float, width: float) -> bool:
    return 0 < step <= width and math.isclose(width / step, round(width / step), abs_tol=1e-9)

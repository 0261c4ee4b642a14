"""Compare the results of two runs bit by bit."""

import csv
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lit.training.run_folders import Run

# What may differ: how long it took, where it lies, and what was asked of the process.
CIRCUMSTANCES = {"TrainingLog", "dirpath", "mnist_lit"}


def differences(first: Run, second: Run) -> list[str]:
    """Names of everything that differs between two runs."""
    found = []
    for name in ("last", "best"):
        checkpoints = [torch.load(getattr(run, name), weights_only=True) for run in (first, second)]
        found += [f"{name}.ckpt {path}" for path in _differing(*checkpoints)]
    if _rows(first) != _rows(second):
        found.append("metrics.csv")
    if _scalars(first) != _scalars(second):
        found.append("TensorBoard")
    return found


def _differing(first: Any, second: Any, path: str = "") -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        names = {name for name in {*first, *second} if not _is_circumstance(str(name))}
        return [
            where
            for name in sorted(names, key=str)
            for where in _differing(first.get(name), second.get(name), f"{path}/{name}")
        ]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return [path]
        pairs = zip(first, second, strict=True)
        return [w for n, (a, b) in enumerate(pairs) for w in _differing(a, b, f"{path}/{n}")]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if torch.equal(first, second) else [path]
    return [] if first == second else [path]


def _is_circumstance(name: str) -> bool:
    return name in CIRCUMSTANCES or "path" in name or name == "best_k_models"


def _rows(run: Run) -> list[dict[str, str]]:
    with run.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "images_per_s" and v} for row in rows]


def _scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if not tag.endswith("images_per_s")
    }

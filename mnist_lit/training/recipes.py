"""The recipe of a run: what it was made with, and what may change when it goes on."""

import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mnist_lit import __version__
from mnist_lit.errors import UserError
from mnist_lit.files import whole_file
from mnist_lit.training.runs import Run

# Options that say where things are, not what is trained.
PLACES = {"ckpt_path", "data.data_dir", "trainer.default_root_dir"}

# Options that decide what the steps so far have been: under other ones, the position in an epoch
# would mean something else, or validation images would turn up in the training.
FIXED = {
    "data.batch_size",
    "data.dataset",
    "data.split_seed",
    "data.val_size",
    "model.network",
    "seed_everything",
}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between the recipe of a run and the one that it is to go on with.

    Args:
        old: all options, nested as in a config file.
        new: the same.

    Returns:
        A sentence for each option that differs, sorted.

    Raises:
        UserError: one of them must not.
    """
    before, after = dict(_flat(old)), dict(_flat(new))
    differing = [
        name for name in sorted({*before, *after} - PLACES) if before.get(name) != after.get(name)
    ]
    sentences = {
        name: f"{name} {after.get(name)} instead of {before.get(name)}" for name in differing
    }
    for name in differing:
        if name in FIXED:
            raise UserError(
                f"this run cannot go on with {sentences[name]}: give it the old value,"
                " or start a new run without --ckpt_path"
            )
    return list(sentences.values())


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def write(run: Run, config: str, notes: list[str]) -> None:
    """Write ``config.yaml``: a recipe, and as comments what made the run.

    Args:
        run: whose it is.
        config: the recipe, as YAML.
        notes: what else to say; notes of earlier writes are kept.
    """
    kept = []
    if run.config.is_file():
        kept = [line for line in run.config.read_text().splitlines() if line.startswith("# from ")]
    comments = [f"# {line}" for line in versions()] + kept + [f"# {note}" for note in notes]
    with whole_file(run.config) as path:
        path.write_text("\n".join([*comments, config]))


def versions() -> list[str]:
    """What makes a run, line by line: packages, Python, threads, commit."""
    packages = ("torch", "torchvision", "pytorch-lightning")
    lines = [f"mnist-lit {__version__}", *(f"{name} {version(name)}" for name in packages)]
    lines.append(f"python {platform.python_version()}, {torch.get_num_threads()} threads")
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines.append(f"git {commit.strip()}")
    except (OSError, subprocess.CalledProcessError):
        pass  # no git, or not in a repository
    return lines

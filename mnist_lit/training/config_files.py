"""Config files: packaged ones, reading and comparing them, and the `config.yaml` of a run."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from inspect import signature
from itertools import takewhile
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from pytorch_lightning import Trainer

from mnist_lit import __version__
from mnist_lit.data.module import SELECTION
from mnist_lit.errors import UserError
from mnist_lit.files import atomic_write
from mnist_lit.training.run_folders import Run

# Options that name places and have no effect on the training.
PATH_OPTIONS = {"ckpt_path", "data.data_dir", "trainer.default_root_dir"}

# Options that cannot change on resuming: they decide which images each step has used, and which
# are held out.
FIXED = {
    *(f"data.{name}" for name in SELECTION),
    "data.batch_size",
    "data.class_path",
    "data.num_sheets",
    "lr_scheduler",
    "lr_scheduler_interval",
    "model.class_path",
    "model.network.class_path",
    "optimizer",
    "seed_everything",
}

CHANGED = "from step "  # begins a comment on options that were changed on resuming

IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
DATA_SUFFIXES = (".csv", ".npz")  # of values that are files, not import paths
KNOWN_CODE = ("mnist_lit.", "pytorch_lightning.", "torch.nn.", "torch.optim.")

# In the configs folder, but a search space: it has ranges instead of values.
SPACE = "sweep"


def packaged(config: str) -> str:
    """Return the path of a packaged config by its name, ``best``; any other path as it is."""
    if os.path.exists(config) or config not in packaged_names():
        return config
    return str(_packaged_folder() / f"{config}.yaml")


def packaged_names() -> set[str]:
    """Return the names of the packaged configs for `fit`."""
    return {path.stem for path in _packaged_folder().glob("*.yaml")} - {SPACE}


def packaged_space() -> Path:
    """Return the path of the packaged search space."""
    return _packaged_folder() / f"{SPACE}.yaml"


def _packaged_folder() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"  # of a checkout


def check_file(path: Path, option: str = "--config") -> None:
    """Refuse a file that is not a config, before it is parsed.

    Args:
        path: of the file.
        option: the option that named it.

    Raises:
        UserError: it is a device, or no text.
    """
    try:
        if not path.is_file():
            raise UserError(f"{option} {path} is not a file")
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{option} {path} is not text, so it is not a config") from None
    except OSError as error:
        raise UserError(f"{option} {path} cannot be read: {error.strerror}") from error


def load_yaml(text: str) -> Any:
    """Parse YAML as jsonargparse does, but refuse duplicate keys.

    Raises:
        YAMLError: a section or an option is there twice, or the text is not YAML.
    """
    try:
        _refuse_duplicate_keys(yaml.compose(text, Loader=yaml.SafeLoader))
        return normalised(_LOAD_YAML(text))
    except RecursionError:
        raise yaml.YAMLError("nested too deeply, or refers to itself") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise yaml.YAMLError(str(error)) from error


def _refuse_duplicate_keys(node: yaml.Node | None) -> None:
    """Refuse a duplicate key, of which YAML would silently take the last value."""
    if isinstance(node, yaml.MappingNode):
        before = set()
        for name, value in node.value:
            if str(name.value) in before:
                line = name.start_mark.line + 1
                raise yaml.YAMLError(f"{name.value} is there once more in line {line}")
            before.add(str(name.value))
            _refuse_duplicate_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicate_keys(value)


_LOAD_YAML = jsonargparse.get_loader("yaml")


def callback_names(callbacks: Any) -> list[str]:
    """Return the names of classes without their modules.

    Args:
        callbacks: trainer.callbacks of a config, or as parsed: one or a list, each a class path or
            a mapping with one; or None.
    """
    given = callbacks if isinstance(callbacks, list) else [callbacks]
    paths = [each if isinstance(each, str) else (each or {}).get("class_path") for each in given]
    return [str(path).rpartition(".")[2] for path in paths if path]


def class_of(config: Any, section: str) -> str | None:
    """Return the class path that a section of a config names; None: the usual class."""
    part = config.get(section) if isinstance(config, dict) else None
    path = part.get("class_path") if isinstance(part, dict) else None
    return path if isinstance(path, str) else None


def with_class(text: str, section: str, path: str) -> str:
    """Add ``class_path`` to a section of a config, as YAML."""
    config = yaml.safe_load(text)
    config[section] = {"class_path": path, "init_args": config[section]}
    return yaml.safe_dump(config, sort_keys=False)


def normalised(config: Any) -> Any:
    """Normalise ``early_stopping: null`` and sections that name a class.

    The options of such a model or data set are moved up to the section.

    Args:
        config: options, nested as in a config file, or anything else, which is left as it is.
    """
    if isinstance(config, dict) and config.get("early_stopping", {}) is None:
        config = {**config, "early_stopping": {"patience": None}}
    for section in ("model", "data"):
        if class_of(config, section):
            config = {**config, section: config[section].get("init_args") or {}}
    return config


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the differences between the config of a run and the one to resume it with.

    Args:
        old: all options, nested as in a config file.
        new: the same.

    Returns:
        A sentence for each option that differs, sorted.

    Raises:
        UserError: an option of `FIXED` differs.
    """
    before, after = (
        {
            **dict(flat(normalised(config))),
            **{f"{name}.class_path": class_of(config, name) for name in ("model", "data")},
        }
        for config in (old, new)
    )
    # A schedule's state holds the learning rate, so another one would have no effect.
    scheduled = "lr_scheduler.class_path" in before
    added = FIXED - before.keys()  # options that an older version did not have
    differing = [
        name
        for name in sorted({*before, *after} - PATH_OPTIONS - added)
        if before.get(name) != after.get(name)
    ]
    sentences = {
        name: f"{name} {after.get(name)} instead of {before.get(name)}" for name in differing
    }
    for name in differing:
        if _is_fixed(name) and (name != "optimizer.init_args.lr" or scheduled):
            raise UserError(
                f"this run cannot resume with {sentences[name]}: restore the old value,"
                " or start a new run without --ckpt_path"
            )
    return list(sentences.values())


def names_of_code(config: Any) -> Iterator[str]:
    """Yield values that look like import paths and do not start with one of `KNOWN_CODE`.

    Args:
        config: options, nested as in a config file, or a part of them.
    """
    if isinstance(config, Mapping):
        for name, value in config.items():
            if name not in ("data_dir", "default_root_dir"):
                yield from names_of_code(value)
    elif isinstance(config, list):
        for value in config:
            yield from names_of_code(value)
    elif isinstance(config, str) and IMPORT_PATH.fullmatch(config):
        is_code = not config.startswith(KNOWN_CODE) and not config.lower().endswith(DATA_SUFFIXES)
        yield from (config,) if is_code else ()


def _is_fixed(name: str) -> bool:
    return any(name == fixed or name.startswith(f"{fixed}.") for fixed in FIXED)


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield options by their full names, as on the command line."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by their full names, without those that name paths."""
    options = {name: value for name, value in flat(normalised(config)) if name not in PATH_OPTIONS}
    if options.get("trainer.logger") is None:
        options["trainer.logger"] = True  # which is what it means
    return options


def defaults() -> dict[str, Any]:
    """Return the options of the packaged config, and the Trainer's defaults."""
    trainer = {
        f"trainer.{name}": parameter.default
        for name, parameter in signature(Trainer).parameters.items()
    }
    config = yaml.safe_load(Path(packaged("default")).read_text(encoding="utf-8"))
    usual = {**trainer, **options_of(config)}
    return {name: value for name, value in usual.items() if name not in PATH_OPTIONS}


def provenance(run: Run) -> list[str]:
    """Return the comments of ``config.yaml`` on how the run was made, line by line."""
    text = run.config.read_text(encoding="utf-8", errors="replace") if run.has_config else ""
    lines = text.splitlines()
    comments = takewhile(lambda line: line.startswith("#"), lines)
    return [line.removeprefix("# ") for line in comments if "==" not in line]  # jsonargparse's own


def as_file(config: str, notes: Sequence[str]) -> str:
    """Format ``config.yaml``: the options, and as comments how the run was made.

    Args:
        config: as YAML.
        notes: what else to say.
    """
    return "\n".join([*(f"# {line}" for line in [*versions(), *notes]), config])


def write(run: Run, config: str, notes: Sequence[str]) -> None:
    """Write ``config.yaml``; keep the notes on changed options of the existing one."""
    kept = [line for line in provenance(run) if line.startswith(CHANGED)]
    with atomic_write(run.config) as path:
        path.write_text(as_file(config, [*kept, *notes]), encoding="utf-8")


def versions() -> list[str]:
    """List versions of packages and Python, number of threads and git commit."""
    packages = ("torch", "torchvision", "pytorch-lightning")
    lines = [f"mnist-lit {__version__}", *(f"{name} {version(name)}" for name in packages)]
    lines.append(f"python {platform.python_version()}, {torch.get_num_threads()} threads")
    lines.append(f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors")
    lines.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, check=True).stdout
        commit = described.decode(errors="replace")
        lines.append(f"git {commit.strip()}")
    except (OSError, subprocess.CalledProcessError):
        pass  # no git, or not in a repository
    return lines

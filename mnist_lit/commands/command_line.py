"""`CommandLine`: the command line of `fit`, `validate` and `test`, resolved for the parser."""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from mnist_lit.checkpoints import load_checkpoint
from mnist_lit.errors import UserError, one_line
from mnist_lit.files import user_path
from mnist_lit.training import config_files, run_folders

CONFIG, CHECKPOINT, ROOT = "--config", "--ckpt_path", "--trainer.default_root_dir"
# Options that are looked at here, and how the parser takes them.
FULL_NAMES = {
    **dict.fromkeys(("-c", CONFIG), CONFIG),
    **{name: name for name in (CHECKPOINT, ROOT, "--data", "--early_stopping", "--model")},
}
SECTIONS = "model", "data"


@dataclass(frozen=True)
class CommandLine:
    """A command line, resolved.

    Attributes:
        args: for the parser, the command first: class paths and config files in full, the
            checkpoint's config where none was given, no classes of model and data.
        given: as it was typed, with that config, without the checkpoint.
        configs: contents of its config files, in their order.
        classes: class paths of the sections ``model`` and ``data`` that are not the usual ones.
    """

    args: list[str]
    given: list[str]
    configs: list[Any]
    classes: dict[str, str]

    @classmethod
    def resolve(cls, args: Sequence[str]) -> Self:
        """Resolve a command line.

        Raises:
            UserError: a config or a checkpoint cannot be found or read.
        """
        command, *options = args
        options = joined(options)
        for config in values(options, CONFIG):
            _check_config(config)
        if not any(option.startswith(CONFIG) for option in options):
            options = _with_config_of_checkpoint(command, options)
        given = [option for option in options if not option.startswith(f"{CHECKPOINT}=")]
        options = [_spelled_out(option) for option in options]
        configs = [_read_config(config) for config in values(options, CONFIG)]
        paths = {
            section: [config_files.class_of(config, section) for config in configs]
            for section in SECTIONS
        }
        others = []
        for option in options:
            name, _, value = option.partition("=")
            section = name.removeprefix("--")
            is_class = config_files.IMPORT_PATH.fullmatch(value) and not os.path.exists(value)
            if section in SECTIONS and is_class:
                paths[section].append(value)
            else:
                others.append(option)
        named = {section: list(filter(None, some)) for section, some in paths.items()}
        classes = {section: some[-1] for section, some in named.items() if some}
        return cls([command, *others], [command, *given], configs, classes)

    def replaced_callbacks(self, callbacks: Any) -> list[str]:
        """Names of callbacks that a config lists and a later config or option has replaced.

        Args:
            callbacks: trainer.callbacks as parsed.
        """
        kept = config_files.callback_names(callbacks)
        replaced: list[str] = []
        for config in self.configs:
            trainer = (config or {}).get("trainer") or {}
            names = config_files.callback_names(trainer.get("callbacks"))
            replaced += [name for name in names if name not in [*kept, *replaced]]
        return replaced if kept else []  # with null, they are left out on purpose


def joined(options: Sequence[str]) -> list[str]:
    """Join the options of `FULL_NAMES` to their values by an equals sign; take their full names."""
    result: list[str] = []
    for option in options:
        name, equals, value = option.partition("=")
        if result and result[-1] in FULL_NAMES and not option.startswith("-"):
            result[-1] += f"={option}"
        elif equals and name in FULL_NAMES:
            result.append(f"{FULL_NAMES[name]}={value}")
        else:
            result.append(FULL_NAMES.get(option, option))
    return result


def values(options: Sequence[str], name: str) -> list[str]:
    """Return the values of an option, among options that are `joined`."""
    return [option.partition("=")[2] for option in options if option.startswith(f"{name}=")]


def _check_config(config: str) -> None:
    packaged = config_files.packaged_names()
    if os.path.exists(config):
        config_files.check_file(Path(config))
    elif config not in packaged and not re.search(r"[:\n]", config):  # which YAML has
        names = ", ".join(sorted(packaged))
        raise UserError(f"{CONFIG} {config}: no such file, and none of the packaged: {names}")


def _with_config_of_checkpoint(command: str, options: list[str]) -> list[str]:
    """Add the config that the checkpoint was made with, and the checkpoint's path."""
    which = [None if command == "fit" else "best", *values(options, CHECKPOINT)][-1]
    root = user_path([".", *values(options, ROOT)][-1])
    if command == "fit":
        which = run_folders.unfinished(which, root)
    if which is None or {CHECKPOINT, ROOT} & set(options):  # a new run; or a value is missing
        return options
    if command == "fit" and which == "last":
        run = run_folders.newest(root)
        if run.has_config:  # there may be no checkpoint yet
            return [f"{CONFIG}={run.config}", *options]
    path = run_folders.find_checkpoint(which, root)
    named = {option.rpartition("=")[2] for option in options}
    # A newer run may begin before the checkpoint is loaded: its path is fixed here.
    return [f"{CONFIG}={config_of(path, root, named)}", *options, f"{CHECKPOINT}={path}"]


def config_of(checkpoint_path: Path, root: Path, named: Collection[str]) -> str:
    """Return the config of a checkpoint: the path of its run folder's, or its own as YAML.

    Args:
        checkpoint_path: whose config.
        root: configs of runs below it are trusted, with the classes they name.
        named: values on the command line; code that an untrusted config names must be among them.

    Raises:
        UserError: it names code that is neither trusted nor in `named`.
    """
    run = run_folders.run_of(checkpoint_path)
    if run and run.has_config:
        # A sweep's trials are a folder deeper.
        if run_folders.runs_folder(root).resolve() in run.folder.resolve().parents[:2]:
            return str(run.config)
        config_files.check_file(run.config)
        try:
            config, text = (
                config_files.load_yaml(run.config.read_text(encoding="utf-8")),
                str(run.config),
            )
        except yaml.YAMLError as error:
            raise UserError(f"{run.config} is damaged: {one_line(error)}") from error
    else:
        config = load_checkpoint(checkpoint_path)["mnist_lit"]["config"]
        if not run:  # outside a run folder: resumes below the current folder
            config = {**config, "trainer": {**config.get("trainer", {}), "default_root_dir": None}}
        try:
            text = yaml.safe_dump(config)
        except yaml.YAMLError as error:
            raise UserError(f"{checkpoint_path} holds no config; give one with --config") from error
    for name in config_files.names_of_code(config):
        if name not in named:
            raise UserError(
                f"the config of {checkpoint_path} names {name}: code is imported only if the"
                f" command line names it too, --model.network {name}, say; or give --config"
            )
    return text


def _spelled_out(option: str) -> str:
    """Replace the name of a packaged config by its path, ``--early_stopping=null`` by an option."""
    name, equals, value = option.partition("=")
    if option == "--early_stopping=null":  # the parser takes no null for a section
        return "--early_stopping.patience=null"
    if name == CONFIG and equals:
        return f"{CONFIG}={config_files.packaged(value)}"
    return option


def _read_config(config: str) -> Any:
    """Parse a config given as a path or as YAML text."""
    text = Path(config).read_text(encoding="utf-8") if os.path.exists(config) else config
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None  # the parser says so

"""Command line of `fit`, `validate` and `test`: the parser and the config."""

import argparse
import difflib
import os
import re
import textwrap
from collections.abc import Collection, Iterator, Sequence
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import Path_fr
from pytorch_lightning.cli import LightningArgumentParser
from torch import nn

from mnist_lit.checkpoints import load_checkpoint
from mnist_lit.errors import UserError, one_line
from mnist_lit.files import user_path
from mnist_lit.models import ModuleSpec, Shape, find_class, full_class_path
from mnist_lit.training import config_files, run_folders

HELP_HINT = "`mnist-lit COMMAND --help` lists the options"
MAX_SHOWN = 80  # characters of a value that is refused
NO_IMPORT_PATH = "Expected a dot import path string: "
TYPES = "Import path|Expected a (?!<class 'NoneType'>)"
TELLING_REASONS = (
    rf"(?!{NO_IMPORT_PATH}|Import path|Expected a |Not a valid|a class path|a dict |Does not|$)",
    NO_IMPORT_PATH,
    "Import path",
    TYPES,
    "",
)
"""Patterns of reasons that jsonargparse gives for one type of a union, the most telling first."""


FIT_HELP = """\
usage: mnist-lit fit [--config CONFIG] [--ckpt_path CHECKPOINT] [--SECTION.OPTION VALUE ...]

Trains a network, tests its best checkpoint and draws what it learned.

  --config CONFIG         a YAML file; {configs}: packaged ones.
                          With several, later ones override earlier ones.
  --ckpt_path CHECKPOINT  resumes a run: last, the newest; auto, the newest if it is unfinished,
                          else starts a new one; or a checkpoint's path
  --print_config          prints the whole config that the other options make, and ends

Every line of a config is also an option, --model.lr 0.002. The given config, or the default:

{config}
Beyond it:

  --optimizer CLASS       one of torch.optim's, or of yours, instead of Adam: --optimizer AdamW
                          --optimizer.weight_decay 0.01; with it, maybe --lr_scheduler CLASS
  --model.network.help CLASS, --optimizer.help CLASS, --trainer.callbacks.help CLASS, ...
                          the options of a class
  --trainer.help          all options of Lightning's Trainer\
"""

EVALUATION_HELP = """\
usage: mnist-lit {command} [--ckpt_path CHECKPOINT] [--SECTION.OPTION VALUE ...]

Loss and accuracy of a checkpoint on the {images} images.

  --ckpt_path CHECKPOINT  best (the default) or last, of the newest run, or a checkpoint's path
  --config CONFIG         instead of the one that the checkpoint was made with
  --trainer.help          all options of Lightning's Trainer; the others are those of fit\
"""


def help_on(args: Sequence[str]) -> str:
    """Return the text of ``--help``: the given config, or the default one, which have comments."""
    command = args[0]
    if command != "fit":
        images = {"validate": "validation", "test": "test"}[command]
        return EVALUATION_HELP.format(command=command, images=images)
    given = _given_configs(spelled_out(args))
    default = config_files.packaged("default")
    path = Path(next(filter(os.path.isfile, reversed(given)), default))
    names = ", ".join(sorted(config_files.packaged_names()))
    # What stands before says how to use the file.
    text = path.read_text(encoding="utf-8").partition("\n\n")[2]
    text = textwrap.indent(text, "    ")
    return FIT_HELP.format(configs=names, config=text)


def _given_configs(args: Sequence[str]) -> list[str]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    configs: list[str] = parser.parse_known_args(args)[0].config
    return configs


def with_config(args: list[str]) -> list[str]:
    """Add the config that the checkpoint was made with, if none is given."""
    command, *options = args
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", nargs="?", action="append")
    parser.add_argument("--ckpt_path", nargs="?", default=None if command == "fit" else "best")
    parser.add_argument("--trainer.default_root_dir", dest="root", nargs="?", default=".")
    given, _ = parser.parse_known_args(options)
    packaged = config_files.packaged_names()
    for config in filter(None, given.config or []):
        if os.path.exists(config):
            config_files.check_file(Path(config))
        elif config not in packaged and not re.search(r"[:\n]", config):  # which YAML has
            names = ", ".join(sorted(packaged))
            raise UserError(f"--config {config}: no such file, and none of the packaged: {names}")
    if given.config or not given.ckpt_path or not given.root:  # a new run; or a value is missing
        return args
    root = user_path(given.root)
    which = run_folders.unfinished(given.ckpt_path, root) if command == "fit" else given.ckpt_path
    if which is None:
        return args
    if command == "fit" and which == "last":
        run = run_folders.newest(root)
        if run.has_config:  # there may be no checkpoint yet
            return [command, "--config", str(run.config), *options]
    path = run_folders.find_checkpoint(which, root)
    # A newer run may begin before it is loaded: its path is fixed here.
    named = {option.rpartition("=")[2] for option in options}
    config = config_of(path, root, named)
    return [command, "--config", config, *options, "--ckpt_path", str(path)]


def chosen_classes(args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the class paths of ``model`` and ``data``, and the arguments without these options.

    Args:
        args: the whole command line, configs by their paths. A class is given by
            ``--model mine.Model`` or by ``class_path`` in a config, of which the last one counts.

    Returns:
        The paths of those that are given, by section.
    """
    configs = [_read_config(config) for config in _given_configs(args)]
    chosen, others = {}, list(args)
    for section in ("model", "data"):
        paths = [config_files.class_of(config, section) for config in configs]
        given, others = others, []
        for arg in _joined(given, f"--{section}"):
            _, is_option, path = arg.partition(f"--{section}=")
            if is_option and config_files.IMPORT_PATH.fullmatch(path) and not os.path.exists(path):
                paths.append(path)
            else:
                others.append(arg)
        if any(paths):
            chosen[section] = list(filter(None, paths))[-1]
    return chosen, others


def _joined(args: Sequence[str], option: str) -> list[str]:
    """Join an option and its value by an equals sign."""
    joined: list[str] = []
    for arg in args:
        if joined[-1:] == [option]:
            joined[-1] += f"={arg}"
        else:
            joined.append(arg)
    return joined


def _read_config(config: str) -> Any:
    """Parse a config given as a path or as YAML text; short names stay short."""
    text = Path(config).read_text(encoding="utf-8") if os.path.exists(config) else config
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None  # the parser says so


def config_of(checkpoint_path: Path, root: Path, named: Collection[str]) -> str:
    """Return the config of a checkpoint as YAML: of its run folder, or its own.

    Args:
        checkpoint_path: whose config.
        root: configs of runs below it are trusted, with the classes they name.
        named: values on the command line; code that an untrusted config names must be among them.

    Raises:
        UserError: it names code that nobody has named on the command line.
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
                f"the config of {checkpoint_path} names {name}, and whatever a checkpoint names is"
                " not run: name it yourself (--model.network and the like), or give --config"
            )
    return text


def with_given_shape(config: str, options: Namespace) -> str:
    """Add the sizes given to a network to a config, which jsonargparse leaves out."""
    network = options.model.get("network")
    if not isinstance(network, Namespace):
        return config
    spec = ModuleSpec.of(find_class(network.class_path, nn.Module), vars(network.init_args))
    given = {name: value for name, value in spec.init_args.items() if name in Shape._fields}
    if not given:
        return config
    values = yaml.safe_load(config)
    values["model"]["network"]["init_args"].update(given)
    return yaml.safe_dump(values, sort_keys=False)


def plain(options: Any) -> Any:
    """Convert objects among the options, as some defaults of callbacks are, to text."""
    if isinstance(options, Namespace):
        return Namespace(**{name: plain(value) for name, value in vars(options).items()})  # type: ignore[no-untyped-call]
    if isinstance(options, list):
        return [plain(value) for value in options]
    if isinstance(options, Enum):
        return options.value
    return str(options) if isinstance(options, torch.device) else options


def spelled_out(args: Sequence[str]) -> list[str]:
    """Replace short names in arguments by class paths and config files."""
    short = {
        "--model.network": full_class_path,
        "--model.network.help": full_class_path,
        "--config": config_files.packaged,
        "-c": config_files.packaged,
    }

    def meant(before: str, arg: str) -> str:
        name, joined, value = arg.partition("=")
        if joined and name in short:
            return f"{name}={short[name](value)}"
        return short[before](arg) if before in short else arg

    return [meant(before, arg) for before, arg in pairwise(["", *_with_early_stopping(args)])]


def _with_early_stopping(args: Sequence[str]) -> list[str]:
    """Spell out ``--early_stopping null``: the parser takes no null for a section."""
    spelled: list[str] = []
    for arg in args:
        if arg == "null" and spelled[-1:] == ["--early_stopping"]:
            spelled.pop()
            arg = "--early_stopping=null"
        off = arg == "--early_stopping=null"
        spelled.append("--early_stopping.patience=null" if off else arg)
    return spelled


def replaced_callbacks(args: Sequence[str], callbacks: Any) -> list[str]:
    """Names of callbacks that a config lists and a later config or option has replaced.

    Args:
        args: the whole command line, with the files of configs.
        callbacks: trainer.callbacks as parsed from it.
    """
    kept = config_files.callback_names(callbacks)
    replaced: list[str] = []
    for config in _given_configs(args):
        trainer = (_read_config(config) or {}).get("trainer") or {}
        names = config_files.callback_names(trainer.get("callbacks"))
        replaced += [name for name in names if name not in [*kept, *replaced]]
    return replaced if kept else []  # with null, they are left out on purpose


def innermost_reason(message: str) -> str:
    """Reduce an error of jsonargparse to one line; of the types of a union, to what says most.

    jsonargparse lists a reason for each accepted type; those for list, true or null do not help.
    """
    head, union, report = message.partition("Does not validate against any of the Union subtypes")
    if not union:
        return one_line(message)
    head = re.sub(r"- Expected a path but .* either not accessible or invalid\s*- ", "", head)
    errors, _, value = report.partition("Errors:")[2].rpartition("Given value: ")
    parts = re.split(r"\n\s*(?:- |(?:Given value|Subtypes).*)", errors)
    reasons = [one_line(part).replace(f" ({HELP_HINT})", "") for part in parts]
    for pattern in TELLING_REASONS:
        found = [reason for reason in reasons if re.match(pattern, reason)]
        if found:
            break
    reason = "; ".join(dict.fromkeys(found))
    name = reason.removeprefix(NO_IMPORT_PATH)
    if name != reason:
        reason = f"no class {name} is known; others go by their import path, module.Class"
    elif re.match(TYPES, reason):
        reason += f". Got value: {value[:MAX_SHOWN]}"
    return " ".join([*head.split(), reason])


class Parser(LightningArgumentParser):
    """An argument parser whose errors are one line, and whose options are written in full."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = innermost_reason(message).removeprefix("Parser key ")
        raise UserError(f"{line} ({self._hint(line)})")

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Namespace:
        """As jsonargparse does, but read UTF-8 in any locale."""
        text = Path(path).read_text(encoding="utf-8")
        with Path_fr(path).relative_path_context():
            options: Namespace = self.parse_string(text, os.path.basename(path), *args, **kwargs)
        return options

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Format the Trainer's options alone; the others are in `help_on`."""
        trainers = [action for action in self._actions if action.dest.startswith("trainer.")]
        if trainers:
            for action in self._actions:
                if action not in trainers:
                    action.help = argparse.SUPPRESS
            self.usage = "mnist-lit COMMAND [--trainer.OPTION VALUE ...]"
        return str(super().format_help(formatter))

    def print_help(self, file: Any = None) -> None:
        """As argparse does, but it is not silent where the disk is full."""
        print(self.format_help(), end="", file=file)

    def _hint(self, line: str) -> str:
        if line.startswith('"') and line.endswith(" is not accepted"):
            option = line.partition('":')[0].removeprefix('"')
            return f"`--{option}.help CLASS` lists the options of a class"
        _, _, unknown = line.partition("unrecognized arguments: ")
        name = unknown.split(" ")[0].split("=")[0]
        known = [option for option in self._all_options() if option.startswith("--")]
        near = [option for option in known if name and option.startswith(name)]
        near = near or difflib.get_close_matches(name, known, n=1)
        if unknown and near:
            return f"did you mean {min(near, key=len)}?"
        return HELP_HINT

    def _all_options(self) -> Iterator[str]:
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser._all_options()

"""Command line of `fit`, `validate` and `test`: the parser and the config."""

import argparse
import difflib
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import Path_fr
from pytorch_lightning.cli import LightningArgumentParser
from torch import nn

from mnist_lit.commands.command_line import CONFIG, joined, values
from mnist_lit.errors import UserError, one_line
from mnist_lit.models import ModuleSpec, Shape, find_class
from mnist_lit.training import config_files

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
    given = ["default", *values(joined(args), CONFIG)]
    path = Path(next(filter(os.path.isfile, map(config_files.packaged, reversed(given)))))
    names = ", ".join(sorted(config_files.packaged_names()))
    # The header explains how to use the file.
    text = path.read_text(encoding="utf-8").partition("\n\n")[2]
    text = textwrap.indent(text, "    ")
    return FIT_HELP.format(configs=names, config=text)


def with_given_shape(config: str, options: Namespace) -> str:
    """Add the sizes given to a network to a config, which jsonargparse leaves out."""
    network = options.model.get("network")
    if not isinstance(network, Namespace):
        return config
    spec = ModuleSpec.of(find_class(network.class_path, nn.Module), vars(network.init_args))
    given = {name: value for name, value in spec.init_args.items() if name in Shape._fields}
    if not given:
        return config
    complete = yaml.safe_load(config)
    complete["model"]["network"]["init_args"].update(given)
    return yaml.safe_dump(complete, sort_keys=False)


def plain(options: Any) -> Any:
    """Convert objects among the options, as some defaults of callbacks are, to text."""
    if isinstance(options, Namespace):
        return Namespace(**{name: plain(value) for name, value in vars(options).items()})  # type: ignore[no-untyped-call]
    if isinstance(options, list):
        return [plain(value) for value in options]
    if isinstance(options, Enum):
        return options.value
    return str(options) if isinstance(options, torch.device) else options


def innermost_reason(message: str) -> str:
    """Reduce an error of jsonargparse to one line; for a union, to the most informative reason.

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

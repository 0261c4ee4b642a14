"""Argument parser of the commands that do not use LightningCLI."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from mnist_lit.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose options are written in full.

    Args:
        command: the subcommand's name.
        description: what the command does.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"mnist-lit {command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (`{self.prog} --help` lists the options)")

    def print_help(self, file: Any = None) -> None:
        """As argparse does, but it is not silent where the disk is full."""
        print(self.format_help(), end="", file=file)


def add_network_arguments(parser: ArgumentParser) -> None:
    """Add the options that choose the network."""
    parser.add_argument(
        "--ckpt_path",
        metavar="PATH",
        help="a checkpoint; best or last, of the newest run; default: the packaged network",
    )
    parser.add_argument(
        "--network",
        metavar="CLASS",
        help="the class of a network of your own, my_nets.Tiny, that the checkpoint is of",
    )


def checkpoint_path(given: str | None) -> str | None:
    """Return the path that ``--ckpt_path`` means: ``best`` and ``last`` are the newest run's.

    Raises:
        UserError: there is no such run.
    """
    if given not in ("best", "last"):
        return given
    from mnist_lit.training.run_folders import find_checkpoint  # which takes seconds to import

    return str(find_checkpoint(given, Path()))

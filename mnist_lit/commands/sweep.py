"""`sweep`: search the options that validate best; several processes may search together."""

import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from mnist_lit.commands.arguments import ArgumentParser
from mnist_lit.errors import UserError
from mnist_lit.files import user_path


def main(args: Sequence[str]) -> int:
    """Search, then test the best trial; `args` begins with the command's name."""
    parser = ArgumentParser(
        "sweep",
        "Searches the options that validate best, then tests those; every option of fit may follow."
        " The same command resumes a sweep, or works on it beside another process.",
    )
    parser.add_argument(
        "--space",
        metavar="FILE",
        type=user_path,
        help="a YAML file: what to try for which options of fit; default: configs/sweep.yaml",
    )
    parser.add_argument(
        "--n_trials",
        type=int,
        default=20,
        metavar="N",
        help="trials of the study, over all processes; default: %(default)s",
    )
    parser.add_argument(
        "--study",
        default="sweep_0",
        metavar="NAME",
        help="name of the study, and of its folder in lightning_logs; default: %(default)s",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="a database to share with other machines, postgresql://…; default: a file in the"
        " sweep's folder",
    )
    given, options = parser.parse_known_args(args[1:])
    if any(option.split("=")[0] == "--ckpt_path" for option in options):
        raise UserError("sweep takes no --ckpt_path: each trial is a run of its own")
    if given.n_trials < 1:
        raise UserError(f"--n_trials {given.n_trials}: at least one is needed")
    if not re.fullmatch(r"(?!version_|detector_)\w[\w.-]{0,99}", given.study):
        raise UserError(
            f"--study {given.study!r}: take letters, digits, and . _ - after the first one; names"
            " with version_ or detector_ are those of runs"
        )
    if not find_spec("optuna"):
        raise UserError("sweep needs Optuna: pip install 'mnist-lit[sweep]'")
    from mnist_lit.sweep.search import search
    from mnist_lit.training.run import as_typed

    try:
        search(given, options, args)
    except KeyboardInterrupt:  # a training says it itself
        print(f"\nSIGINT: stopped; resume with: {as_typed(args)}", file=sys.stderr)
        raise
    return 0

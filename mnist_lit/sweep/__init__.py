"""`sweep`: which options validate best; several processes may search together."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mnist_lit.arguments import ArgumentParser
from mnist_lit.errors import UserError
from mnist_lit.files import user_path


def main(args: Sequence[str]) -> int:
    """Search, then test the best trial; `args` begins with the command's name."""
    parser = ArgumentParser(
        "sweep",
        "Searches the options that validate best, then tests those; every option of fit may follow."
        " The same command goes on with a sweep, or works on it beside another process.",
    )
    parser.add_argument(
        "--space",
        metavar="FILE",
        type=user_path,
        help="a YAML file: what to try for which options of fit; default: configs/sweep.yaml",
    )
    parser.add_argument(
        "--n_trials", type=int, default=20, metavar="N", help="in all; default: %(default)s"
    )
    parser.add_argument(
        "--study",
        default="sweep_0",
        metavar="NAME",
        help="of the sweep: its folder in lightning_logs; default: %(default)s",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="a database to share with other machines, postgresql://…; default: a file in the"
        " sweep's folder",
    )
    given, options = parser.parse_known_args(args[1:])
    if given.n_trials < 1:
        raise UserError(f"--n_trials {given.n_trials}: at least one is needed")
    is_of_runs = given.study.startswith(("version_", "detector_"))
    if Path(given.study).name != given.study or is_of_runs:
        raise UserError(f"--study {given.study}: a name is needed that a folder can have")
    if not find_spec("optuna"):
        raise UserError("sweep needs Optuna: pip install 'mnist-lit[sweep]'")
    from mnist_lit.sweep.search import search
    from mnist_lit.training.life import as_typed

    try:
        search(given.space, given.n_trials, given.study, given.storage, options, args)
    except KeyboardInterrupt:  # in a training, it is said there
        print(f"\nSIGINT: stopped; go on with: {as_typed(args)}", file=sys.stderr)
        raise
    return 0

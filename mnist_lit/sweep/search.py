"""The search itself: trial after trial, then what came of them."""

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import optuna
import torch
import yaml
from optuna.exceptions import OptunaError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from mnist_lit.cli import CLI
from mnist_lit.console import dispensable_output, plain_console
from mnist_lit.errors import UserError, one_line
from mnist_lit.options import with_recipe
from mnist_lit.sweep import outcome
from mnist_lit.sweep.space import Option, arguments, read
from mnist_lit.sweep.study import COMPLETE, RUNNING, Sweep
from mnist_lit.sweep.trials import NO_CHECKPOINT, CheckedFit, TrialFit
from mnist_lit.training import recipes, runs
from mnist_lit.training.results import counted, show


@dispensable_output()
def search(
    space_path: Path | None,
    n_trials: int,
    name: str,
    storage: str | None,
    options: Sequence[str],
    command: Sequence[str],
) -> None:
    """Try until there are enough trials; whoever ends the last one tests the best.

    Args:
        space_path: what to try; None: the packaged one.
        n_trials: how many in all, of all processes and sittings.
        name: of the study and its folder.
        storage: the URL of a database; None: a file in the folder.
        options: of `fit`.
        command: the whole of it, to say how to go on.

    Raises:
        UserError: something that can be mended; the same command then goes on.
        Interrupted: a signal has come in the midst of a trial.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if any(option.split("=")[0] == "--ckpt_path" for option in options):
        raise UserError(NO_CHECKPOINT)
    space = read(space_path or recipes.packaged_space())
    args = with_recipe(["fit", *options])
    base = CheckedFit(args)
    base.warn(base.model)
    root = Path(base.options.trainer.default_root_dir or "")
    folder = runs.runs_folder(root) / name
    if not runs.runs_in(folder):  # or they have been checked
        check_edges(args, space)
    seed, max_epochs = int(base.options.seed_everything), base.trainer.max_epochs or -1
    try:
        with closing(Sweep(folder, storage, base.monitor, base.mode, seed, max_epochs)) as sweep:
            sweep.agree(space, recipes.options_of(yaml.safe_load(base.recipe)))
            while try_one(sweep, n_trials, space, args, command):
                pass
            with sweep.alone():  # or two processes would test the best at the same moment
                end(sweep, space, args, root)
    except ImportError as error:
        raise UserError(f"--storage needs the driver of its database: {one_line(error)}") from error
    except (SQLAlchemyError, OptunaError) as error:
        reason = one_line(Exception(error.__cause__ or error))
        raise UserError(f"the study cannot be had: {reason}") from error


def check_edges(args: list[str], space: Sequence[Option]) -> None:
    """Have `fit` look at the ends of every range, and at every choice.

    Raises:
        UserError: one of them is nothing for it.
    """
    for option in space:
        for value in option.edges:
            (argument,) = arguments({option.name: value})
            try:
                CheckedFit([*args, argument])
            except UserError as error:
                raise UserError(f"--space, {option.name} {value}: {error}") from error


def try_one(
    sweep: Sweep, n_trials: int, space: Sequence[Option], args: list[str], command: Sequence[str]
) -> bool:
    """Begin a trial, or go on with one; False: there is none left.

    Raises:
        UserError: the disk is full, or the like: the trial can be gone on with.
    """
    with sweep.next_trial(n_trials, space) as begun:
        if begun is None:
            return False
        trial, chosen = begun
        run, reason = sweep.run_of(trial), ""
        try:
            fit = TrialFit([*args, *arguments(chosen)], sweep, trial, command)
            state = TrialState.PRUNED if fit.watching.pruned else TrialState.COMPLETE
        except (UserError, torch.OutOfMemoryError) as error:  # others may do better
            if isinstance(error.__cause__, OSError):
                raise
            state, reason = TrialState.FAIL, one_line(error)
        except (OptunaError, SQLAlchemyError):
            raise
        except Exception:  # or the same would happen again and again
            sweep.tell(trial, TrialState.FAIL)
            raise
        told = sweep.tell(trial, state)
        if not run.exists:  # it took no step
            shutil.rmtree(run.folder, ignore_errors=True)
    plain_console().print(outcome.line(sweep, told, reason))
    return True


def end(sweep: Sweep, space: Sequence[Option], args: list[str], root: Path) -> None:
    """Say and draw what came of it, then test the best trial, if no other process is at one.

    Raises:
        UserError: no trial was completed.
    """
    running = sweep.trials(RUNNING)
    if running:
        print(
            f"{counted(len(running), 'trial')} being trained by others: whoever ends last tests"
            " the best; the same command says what came of it"
        )
        return
    complete = sweep.trials(COMPLETE)
    if not complete:
        raise UserError(f"no trial of {sweep.folder} has come to its end: look at its space")
    best = complete[0]
    recipe = yaml.safe_load(CheckedFit([*args, *arguments(best.params)]).recipe)
    outcome.write(sweep, recipe, space)
    outcome.show(sweep, space)
    run = sweep.run_of(best)
    if not run.folder.is_dir():
        print(
            f"trial {best.number} lies elsewhere, {best.user_attrs['folder']}: the same command,"
            " given there, tests it"
        )
        return
    if not run.is_finished:
        place = ["--trainer.default_root_dir", str(root)] if root.parts else []
        CLI(with_recipe(["fit", "--ckpt_path", str(run.last), *place]))
    show(run)

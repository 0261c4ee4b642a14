"""The search: trial after trial, then the results and the test of the best one."""

from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import optuna
import yaml
from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from mnist_lit.commands.fit import CLI
from mnist_lit.console import ignore_closed_output
from mnist_lit.errors import UserError, one_line
from mnist_lit.files import user_path
from mnist_lit.sweep import summary
from mnist_lit.sweep.space import Space, arguments, edges, num_combinations, read
from mnist_lit.sweep.study import Sweep, first_attempt
from mnist_lit.sweep.trials import Objective, Paused, TrialFit
from mnist_lit.training import config_files, run_folders
from mnist_lit.training.results import pluralized, print_results


@ignore_closed_output()
def search(given: Namespace, options: Sequence[str], command: Sequence[str]) -> None:
    """Run trials until there are enough; the process that ends the last one tests the best.

    Args:
        given: the options of `sweep`.
        options: those of `fit`.
        command: all of it, to say how to resume.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = read(given.space or config_files.packaged_space())
    args = ["fit", *options]
    base = TrialFit(args)
    root = user_path(base.options.trainer.default_root_dir or "")
    folder = run_folders.runs_folder(root) / given.study
    if not run_folders.runs_in(folder):  # else they have been checked
        check_edges(args, space)
    try:
        config = config_files.options_of(yaml.safe_load(base.config_yaml))
        with closing(Sweep(folder, given.storage, space, config)) as sweep:
            sweep.join()
            train(sweep, given.n_trials, Objective(sweep, args, command))
            with sweep.lock:  # or two processes could test the best one at the same moment
                end(sweep, root)
    except ImportError as error:
        raise UserError(f"--storage needs the driver of its database: {one_line(error)}") from error
    except (SQLAlchemyError, OptunaError) as error:
        reason = one_line(error.__cause__ or error)
        raise UserError(f"the study cannot be used: {reason}") from error


def check_edges(args: Sequence[str], space: Space) -> None:
    """Raise a UserError if `fit` does not take an end of a range, or a choice."""
    for name, entry in space.items():
        for value in edges(entry):
            try:
                TrialFit([*args, *arguments({name: value})])
            except UserError as error:
                raise UserError(f"--space, {name} {value}: {error}") from error


def train(sweep: Sweep, n_trials: int, objective: Objective) -> None:
    """Train trials until there are enough, and those of dead processes again."""
    total = min(n_trials, num_combinations(sweep.space))
    sweep.requeue_dead()
    while sweep.is_left(total):
        # The objective releases the lock as soon as the trial has its values: or two processes
        # could begin one too many, or the same.
        with sweep.lock:
            if sweep.is_left(total):
                try:
                    sweep.study.optimize(objective, n_trials=1, callbacks=[summary.print_trial])
                except Paused as paused:
                    raise paused.args[0] from None
        if not sweep.is_left(total):
            sweep.requeue_dead()
    if total < n_trials:
        print(f"all {total} combinations of the space have been tried")


def end(sweep: Sweep, root: Path) -> None:
    """Save the results, then test the best trial, unless others are still being trained."""
    running = sweep.running()
    if running:
        print(
            f"{pluralized(len(running), 'trial')} being trained by others: the last process to"
            " finish tests the best one; the same command shows the results then"
        )
        return
    best = sweep.study.best_trials
    if not best:
        raise UserError(f"no trial of {sweep.folder} was completed: change its space")
    summary.save(sweep, best[0])
    run = sweep.run(first_attempt(best[0]))
    if not run.exists:
        print(f"trial {run.version} is on another machine: the same command, given there, tests it")
        return
    if not run.is_finished:
        place = ["--trainer.default_root_dir", str(root)] if root.parts else []
        CLI(["fit", "--ckpt_path", str(run.last), *place])
    print_results(run)

"""The study of a sweep: what is tried, by which process, and what came of it."""

import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna import Study, Trial
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mnist_lit.errors import UserError
from mnist_lit.sweep.space import Option, Value
from mnist_lit.training import runs
from mnist_lit.training.runs import Run

BUSY_S = 60  # that a process waits while another one writes its few bytes
STARTING_S = 60  # that a trial may be without a sign of life at first
DEAD_S = 3600  # and later: whoever trains it, on another machine, is given up

COMPLETE = (TrialState.COMPLETE,)
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
RUNNING = (TrialState.RUNNING,)


class Sweep:
    """A study, which all processes that work on it share, and the folder of this machine's runs.

    Args:
        folder: its name is the study's; it is made if there is none.
        storage: the URL of a database; None: a file in the folder.
        monitor: the metric that decides.
        mode: whether less of it is better (min) or more (max).
        seed: of what is tried.
        max_epochs: that a trial may have; -1: nobody knows.
    """

    def __init__(
        self,
        folder: Path,
        storage: str | None,
        monitor: str,
        mode: str,
        seed: int,
        max_epochs: int,
    ) -> None:
        self.folder, self.monitor, self.seed = folder, monitor, seed
        self.is_minimized = mode == "min"
        folder.mkdir(parents=True, exist_ok=True)
        with self.alone():  # or two processes would make the tables at the same moment
            self._storage = _open(storage, folder)
            self.study: Study = optuna.create_study(
                storage=self._storage,
                study_name=folder.name,
                direction=StudyDirection.MINIMIZE if self.is_minimized else StudyDirection.MAXIMIZE,
                pruner=_pruner(max_epochs),
                load_if_exists=True,
            )

    def close(self) -> None:
        """Close the database's connections."""
        self._storage.engine.dispose()

    def alone(self) -> FileLock:
        """While it is held, no other process of this machine looks for something to do."""
        return FileLock(self.folder / ".lock", is_singleton=True)

    def agree(self, space: Sequence[Option], recipe: Mapping[str, Any]) -> None:
        """Make sure that all processes search the same space by the same recipe.

        Args:
            space: what is tried.
            recipe: options by their whole names.

        Raises:
            UserError: another one has been begun with something else.
        """
        tried = {f"space {option.name}": repr(option.distribution) for option in space}
        given = json.loads(json.dumps({**recipe, **tried}, default=str))
        before = self.study.user_attrs.get("given")
        if before is None:
            self.study.set_user_attr("given", given)
            return
        for name in sorted({*before, *given}):
            if before.get(name) != given.get(name):
                raise UserError(
                    f"{self.folder.name} was begun with {name} {before.get(name)}, not"
                    f" {given.get(name)}: leave it as it was, or give a new sweep a name, --study"
                )

    def trials(self, states: Sequence[TrialState]) -> list[FrozenTrial]:
        """Those that are in one of these states, the best first."""
        found = self.study.get_trials(deepcopy=False, states=tuple(states))
        return sorted(found, key=lambda trial: (self._rank(self.value_of(trial)), trial.number))

    def value_of(self, trial: FrozenTrial) -> float | None:
        """What decides about a trial, in its best epoch; None: no epoch has a finite one."""
        best = self.best_epoch(trial)
        return best[1][self.monitor] if best else None

    def best_epoch(self, trial: FrozenTrial) -> tuple[int, dict[str, float]] | None:
        """Its number, from 1 on, and the metrics of its validation."""
        epochs = {
            int(epoch): metrics
            for epoch, metrics in trial.user_attrs.get("epochs", {}).items()
            if math.isfinite(metrics[self.monitor])
        }
        return min(epochs.items(), key=lambda item: self._rank(item[1][self.monitor]), default=None)

    def _rank(self, value: float | None) -> float:
        if value is None:
            return math.inf
        return value if self.is_minimized else -value

    def run_of(self, trial: Trial | FrozenTrial) -> Run:
        """Its folder is there if this machine has trained it."""
        return Run(self.folder / f"version_{trial.number}")

    @contextmanager
    def next_trial(
        self, n_trials: int, space: Sequence[Option]
    ) -> Iterator[tuple[Trial, dict[str, Value]] | None]:
        """A trial for this process alone: one whose process has died, or else a new one.

        Args:
            n_trials: how many there are to be in all.
            space: what is tried.

        Yields:
            It, and what it tries; None: there is nothing left to begin.
        """
        with ExitStack() as held:
            with self.alone():
                trial = self._orphan(held) or self._new(held, n_trials)
                # A sampler for each trial: what is tried follows from the seed, and from what is
                # known by then, not from which process asks, and how often it was begun again.
                if trial:
                    mixed = random.Random(f"{self.seed} {trial.number}").getrandbits(32)
                    self.study.sampler = TPESampler(seed=mixed)
                chosen = {option.name: option.suggest(trial) for option in space} if trial else {}
            yield (trial, chosen) if trial else None

    def _orphan(self, held: ExitStack) -> Trial | None:
        for found in self.trials(RUNNING):
            run = self.run_of(found)
            if not run.folder.is_dir():
                if _is_given_up(found):
                    self.tell(found, TrialState.FAIL)
                continue
            try:
                held.enter_context(runs.alone(run))
            except UserError:  # its process is alive
                continue
            return Trial(self.study, found._trial_id)
        return None

    def _new(self, held: ExitStack, n_trials: int) -> Trial | None:
        if len(self.study.get_trials(deepcopy=False)) >= n_trials:
            return None
        trial = self.study.ask()
        run = self.run_of(trial)
        run.folder.mkdir(exist_ok=True)
        held.enter_context(runs.alone(run))
        trial.set_user_attr("alive_at", time.time())
        trial.set_user_attr("folder", str(run.folder.resolve()))
        return trial

    def note(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Write down an epoch; a trial that is gone on with may come to it again.

        Args:
            trial: which.
            epoch: its number, from 1 on.
            metrics: of its validation.

        Returns:
            Whether the trial is to be pruned.
        """
        epochs = {**trial.user_attrs.get("epochs", {}), str(epoch): dict(metrics)}
        trial.set_user_attr("epochs", epochs)
        trial.set_user_attr("alive_at", time.time())
        known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if epoch not in known:
            trial.report(metrics[self.monitor], epoch)
        return trial.should_prune()

    def tell(self, trial: Trial | FrozenTrial, state: TrialState) -> FrozenTrial:
        """End a trial; one without a finite value fails."""
        known = self.study.get_trials(deepcopy=False)[trial.number]
        value = self.value_of(known)
        if value is None:
            state = TrialState.FAIL
        # Another machine may have given it up already.
        values = value if state == TrialState.COMPLETE else None
        return self.study.tell(trial.number, values, state, skip_if_finished=True)


def _open(storage: str | None, folder: Path) -> RDBStorage:
    """The database; by default SQLite's: whenever a process is killed, its file is whole."""
    if storage:
        return RDBStorage(storage)
    file = folder.resolve() / "study.db"
    return RDBStorage(f"sqlite:///{file}", {"connect_args": {"timeout": BUSY_S}})


def _pruner(max_epochs: int) -> SuccessiveHalvingPruner:
    """The better half goes on from 0.3 of the epochs, and again from twice as many.

    Not earlier: a one-cycle schedule that ends best has its highest rate there. Of 22 curves of
    `configs/sweep.yaml` in 200 orders, this spent 56 % of the epochs and kept the best 92 times of
    100; from epoch 1 on in thirds, it was 27 % and 6 times; medians from epoch 4 on, 64 % and 66.
    """
    first = max(1, round(0.3 * max_epochs)) if max_epochs > 0 else 3
    return SuccessiveHalvingPruner(min_resource=first, reduction_factor=2)


def _is_given_up(trial: FrozenTrial) -> bool:
    """Whether a trial that has no folder here has had no sign of life for too long."""
    if "alive_at" in trial.user_attrs:
        return bool(time.time() - trial.user_attrs["alive_at"] > DEAD_S)
    assert trial.datetime_start
    return (datetime.now() - trial.datetime_start).total_seconds() > STARTING_S

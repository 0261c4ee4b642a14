"""The study of a sweep: its database, its trials, and which of them are pruned."""

import json
import math
import random
import time
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna import Study, Trial
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, GridSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL

from mnist_lit.errors import UserError
from mnist_lit.files import atomic_write
from mnist_lit.sweep.space import Space, num_combinations, values
from mnist_lit.training import run_folders
from mnist_lit.training.callbacks.best_checkpoint import mode_of
from mnist_lit.training.run_folders import Run

HEARTBEAT_S = 5  # between two signs of life of a process that trains a trial
DEAD_AFTER_S = 20  # without one: another process continues the trial
MAX_GRID = 10_000  # combinations; in a larger space, a sampler that learns hardly repeats one


class Sweep:
    """A study, which several processes may share, and the folder of its runs here.

    Args:
        folder: its name is the study's; it is created if it does not exist.
        url: of the database; None: a file in the folder.
        space: the search space.
        config: the other options of all trials, by their full names.

    Raises:
        UserError: the folder cannot be created.
    """

    def __init__(
        self, folder: Path, url: str | None, space: Space, config: Mapping[str, Any]
    ) -> None:
        self.folder, self.space, self.config = folder, space, config
        self.monitor: str = config["best_checkpoint.monitor"]
        warnings.filterwarnings("ignore", category=ExperimentalWarning)  # heartbeats are
        # A trial that resumes from a checkpoint may reach an epoch again.
        warnings.filterwarnings("ignore", "The reported value is ignored")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: {error.strerror}; take another --study") from error
        self.lock = FileLock(folder / ".lock")
        with self.lock:  # or two processes could create the tables at the same moment
            self.storage = _storage(url, folder)
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=folder.name,
                direction="minimize" if mode_of(self.monitor) == "min" else "maximize",
                pruner=BetterHalfPruner(config["trainer.max_epochs"] or -1),
                load_if_exists=True,
            )
        self.study.sampler = self.sampler(0)

    def close(self) -> None:
        self.storage.engine.dispose()

    def join(self) -> None:
        """Raise a UserError if the study has other options, or the folder runs of another study."""
        options = {**self.config, **{f"space {name}": self.space[name] for name in self.space}}
        now = json.loads(json.dumps(options, default=str))
        with self.lock:
            if "options" not in self.study.user_attrs:
                self.study.set_user_attr("id", uuid.uuid4().hex)
                self.study.set_user_attr("options", now)
            before = self.study.user_attrs["options"]
            for name in sorted({*before, *now}):
                if before.get(name) != now.get(name):
                    raise UserError(
                        f"{self.folder.name} was begun with {name} {before.get(name)}, not"
                        f" {now.get(name)}: leave it as it was, or take another --study"
                    )
            for run in run_folders.runs_in(self.folder):
                self.claim(run.version)

    def sampler(self, index: int) -> BaseSampler:
        """Return the sampler of the trial that was begun after `index` others."""
        seed = self.config["seed_everything"]
        if num_combinations(self.space) <= MAX_GRID:  # no combination is repeated
            return GridSampler({name: values(e) for name, e in self.space.items()}, seed)
        return TPESampler(seed=random.Random(f"{seed} {index}").getrandbits(32))

    def is_left(self, num_trials: float) -> bool:
        """Return True if a trial is queued, or fewer than `num_trials` were begun."""
        trials = last_attempts(self.study).values()
        return len(trials) < num_trials or any(t.state == TrialState.WAITING for t in trials)

    def running(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def run(self, number: int) -> Run:
        """Return a trial's run; it exists if the trial was trained here."""
        return Run(self.folder / f"version_{number}")

    def claim(self, number: int) -> Run:
        """Mark a run folder as the trial's; raise a UserError if it is of another study."""
        run = self.run(number)
        mark = run.folder / run_folders.TRIAL  # written before anything else
        owner = json.dumps({"study": self.study.user_attrs["id"], "trial": number})
        if not mark.exists() and not run.exists:
            with atomic_write(mark) as path:
                path.write_text(owner, encoding="utf-8")
        elif not mark.exists() or mark.read_text(encoding="utf-8") != owner:
            raise UserError(
                f"{run.folder} is of another study, in another database: take another --study, or"
                " remove the folder"
            )
        return run

    def frozen(self, trial: Trial) -> FrozenTrial:
        """Return the present state of a trial, with the reports of its first attempt."""
        return self.study.get_trials(deepcopy=False)[trial.number]

    def pause(self, trial: Trial) -> None:
        """Queue an interrupted trial again."""
        self.storage.set_trial_state_values(self._id_of(trial.number), TrialState.WAITING)

    def requeue_dead(self) -> None:
        """Queue trials again, once, whose heartbeat stopped; wait up to `DEAD_AFTER_S` to know."""
        self._requeue_stale()
        in_doubt = {trial.number: first_attempt(trial) for trial in self.running()}
        if in_doubt:
            numbers = ", ".join(map(str, in_doubt.values()))
            print(f"trial {numbers}: waiting up to {DEAD_AFTER_S} s for a sign of life")
        for number in in_doubt:  # a process may have died before its first one
            self.storage.record_heartbeat(self._id_of(number))
        deadline = time.monotonic() + DEAD_AFTER_S + 2  # databases count whole seconds
        while time.monotonic() < deadline and in_doubt.keys() & {t.number for t in self.running()}:
            time.sleep(0.5)
            self._requeue_stale()

    def _requeue_stale(self) -> None:
        with self.lock:  # else a trial that is just being resumed could count as stale
            fail_stale_trials(self.study)

    def _id_of(self, number: int) -> int:
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study_id, number)


class BetterHalfPruner(BasePruner):
    """Prune a trial that is not in the better half after 0.3 or 0.6 of its epochs.

    Not earlier: a one-cycle schedule that ends best has its highest rate there. Of 22 curves of
    `configs/sweep.yaml` in 200 orders, this spent 56 % of the epochs and kept the best 92 times of
    100; from epoch 1 on in thirds, it was 27 % and 6 times; medians from epoch 4 on, 64 % and 66.

    SuccessiveHalvingPruner has this rule, but a killed trial would count twice, and its second
    attempt would not be judged.

    Args:
        max_epochs: of a trial; -1: unknown.
    """

    def __init__(self, max_epochs: int) -> None:
        first = max(1, round(0.3 * max_epochs)) if max_epochs > 0 else 3
        # Nothing is saved by pruning after the last epoch.
        self.epochs = [epoch for epoch in (first, 2 * first) if epoch != max_epochs]

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        epoch = trial.last_step
        if epoch not in self.epochs:
            return False
        values = [
            other.intermediate_values[epoch]
            for other in last_attempts(study).values()
            if math.isfinite(other.intermediate_values.get(epoch, math.nan))
        ]
        values.sort(reverse=study.direction == StudyDirection.MAXIMIZE)
        return trial.intermediate_values[epoch] not in values[: max(1, len(values) // 2)]


def first_attempt(trial: FrozenTrial) -> int:
    """Return the number by which a trial is known: that of the first attempt at it."""
    number = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if number is None else number


def last_attempts(study: Study) -> dict[int, FrozenTrial]:
    """Return the last attempt at each trial, by the number of the first one."""
    return {first_attempt(trial): trial for trial in study.get_trials(deepcopy=False)}


def best_epoch(study: Study, trial: FrozenTrial) -> tuple[int | None, dict[str, float]]:
    """Return the number of a trial's best epoch and its metrics, if one has finite ones."""
    finite = {e: value for e, value in trial.intermediate_values.items() if math.isfinite(value)}
    best = max if study.direction == StudyDirection.MAXIMIZE else min
    epoch = best(finite, key=lambda epoch: finite[epoch], default=None)
    return epoch, trial.user_attrs.get(f"epoch {epoch}", {})


def _storage(url: str | None, folder: Path) -> RDBStorage:
    options = {}
    if url is None:
        file = URL.create("sqlite", database=str(folder.resolve() / "study.db"))
        url = file.render_as_string()
        options["timeout"] = 60  # seconds, while another process writes
    return RDBStorage(
        url.replace("{", "{{").replace("}", "}}"),  # Optuna formats it
        {"connect_args": options},
        heartbeat_interval=HEARTBEAT_S,
        grace_period=DEAD_AFTER_S,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(
            max_retry=1, inherit_intermediate_values=True
        ),
    )

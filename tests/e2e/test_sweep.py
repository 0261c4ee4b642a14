"""`sweep`: the choice by validation, resuming, several processes, and the results."""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import results_of
from optuna import Trial, TrialPruned
from optuna.trial import FrozenTrial, TrialState
from same import differences
from torch import Tensor

import mnist_lit.commands.sweep as command
from mnist_lit.__main__ import main
from mnist_lit.commands.fit import CLI
from mnist_lit.data.images import Batch, ImageSet
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.errors import UserError
from mnist_lit.sweep import space, study, summary
from mnist_lit.sweep.study import Sweep, last_attempts
from mnist_lit.sweep.trials import Objective, TrialFit
from mnist_lit.training import config_files
from mnist_lit.training.run_folders import Run

pytestmark = pytest.mark.slow

# A few steps in each trial.
QUICKLY = (
    "--data.val_size=500",
    "--trainer.limit_train_batches=8",
    "--trainer.max_epochs=3",
    "--trainer.log_every_n_steps=4",
    "--trainer.enable_progress_bar=false",
)
SPACE = """\
model.lr: {choices: [0.00001, 0.005]}
model.network.dropout: {low: 0.0, high: 0.5}
"""


def write_space(folder: Path, text: str = SPACE) -> str:
    path = folder / "space.yaml"
    path.write_text(text)
    return f"--space={path}"


def arguments(root: Path, num_trials: int, *options: str) -> list[str]:
    place = f"--trainer.default_root_dir={root}"
    return ["sweep", write_space(root), f"--n_trials={num_trials}", place, *QUICKLY, *options]


def folder_in(root: Path) -> Path:
    return root / "lightning_logs" / "sweep_0"


def rows_in(root: Path) -> list[dict[str, str]]:
    with (folder_in(root) / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run_of(row: Mapping[str, str]) -> Run:
    return Run(Path(row["folder"]))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> tuple[Path, list[str]]:
    """Folder of a sweep of five trials; order of ended trials and uses of test images."""
    root = tmp_path_factory.mktemp("searched")
    happened: list[str] = []
    take = ImageSet.__getitem__

    def watched(images: ImageSet, positions: Tensor) -> Batch:
        if len(images.images) == 10_000:
            happened.append("test images")
        return take(images, positions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(data_dir.parent))
        patch.setattr(ImageSet, "__getitem__", watched)
        patch.setattr(summary, "print_trial", lambda *args: happened.append("trial"))
        assert main(arguments(root, 5)) == 0
    return root, happened


def test_validation_decides(searched: tuple[Path, list[str]]) -> None:
    rows = rows_in(searched[0])
    for row in rows:
        with run_of(row).metrics.open(newline="") as file:
            losses = [float(line["val/loss"]) for line in csv.DictReader(file) if line["val/loss"]]
        assert min(losses) == pytest.approx(float(row["val/loss"]))
        config = yaml.safe_load(run_of(row).config.read_text())
        assert config["model"]["lr"] == float(row["model.lr"])
    complete = [row for row in rows if row["state"] == "complete"]
    best = min(complete, key=lambda row: float(row["val/loss"]))
    (tested,) = [run_of(row) for row in rows if run_of(row).has_results]

    pruned = [row for row in rows if row["state"] == "pruned"]
    assert {row["epochs"] for row in pruned} <= {"1", "2"}
    assert "1e-05" in {row["model.lr"] for row in pruned}
    assert run_of(pruned[0]).best.is_file()
    assert tested == run_of(best)
    assert results_of(tested)["val/loss"] == pytest.approx(float(best["val/loss"]), rel=1e-4)
    assert results_of(tested)["num_test_images"] == 10_000
    assert tested.report.is_file()


def test_test_images_are_seen_when_everything_is_chosen(searched: tuple[Path, list[str]]) -> None:
    _, happened = searched

    assert happened[:5] == ["trial"] * 5
    assert set(happened[5:]) == {"test images"}
    # Of the best trial alone: once to measure, and for the figures.
    assert happened.count("test images") < 2 * 100


def test_held_back_images_are_given_to_nobody() -> None:
    data = MNISTDataModule()
    data.setup()
    data.holds_test_back = True

    assert len(data.images("val")) == 5000
    for ask in (lambda: data.images("test"), data.test_dataloader, data.predict_dataloader):
        with pytest.raises(RuntimeError, match="held back"):
            ask()


def test_trials_are_compared_by_validation(searched: tuple[Path, list[str]]) -> None:
    root, happened = searched
    seen = happened.count("test images")
    assert main(["report", str(folder_in(root))]) == 0
    page = (folder_in(root) / "comparison.html").read_text()
    complete = [row for row in rows_in(root) if row["state"] == "complete"]

    assert f"{len(complete)} runs side by side" in page
    assert f"{float(complete[0]['val/acc']):.2%}" in page
    assert "test loss" not in page
    assert happened.count("test images") == seen


def test_best_options_are_a_config(
    searched: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLI, "_run_subcommand", lambda self, subcommand: None)
    folder = folder_in(searched[0])
    (best,) = [row for row in rows_in(searched[0]) if run_of(row).has_results]
    options = CLI(["fit", "--config", "default", "--config", str(folder / "best.yaml")]).options

    assert options.model.lr == float(best["model.lr"])
    assert options.model.network.init_args.dropout == float(best["model.network.dropout"])
    pictures = {path.name for path in (folder / "figures").iterdir()}
    assert pictures == {"history.png", "importances.png", "parallel.png"}


def test_finished_sweep_says_it_again_and_tries_no_more(
    searched: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = searched
    before = {path: path.stat().st_mtime for path in root.rglob("version_*/**/*.*")}
    assert main(arguments(root, 5)) == 0

    assert "5 trials: " in capsys.readouterr().out
    assert {path: path.stat().st_mtime for path in root.rglob("version_*/**/*.*")} == before


# --- the study, without training ------------------------------------------------------------------

LEARNING_RATE = {"model.lr": {"low": 0.1, "high": 0.2}}


def opened(
    root: Path, tried: space.Space = LEARNING_RATE, url: str | None = None, **config: Any
) -> Sweep:
    monitor = config.pop("monitor", "val/loss")
    options = {
        "best_checkpoint.monitor": monitor,
        "trainer.max_epochs": 10,
        "seed_everything": 1,
        **config,
    }
    return Sweep(folder_in(root), url, tried, options)


class Died(BaseException):
    """In place of a signal that kills the process of a trial."""


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is taken for dead after a second."""
    monkeypatch.setattr(study, "DEAD_AFTER_S", 1)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_of_those_that_come_so_far_the_better_half_goes_on(mode: str, tmp_path: Path) -> None:
    """At 0.3 and 0.6 of the epochs, however it looked before."""
    qualities = [0.5, 0.4, 0.6, 0.7]

    def train(trial: Trial) -> float:
        quality = qualities[trial.number]
        for epoch in range(1, 11):
            value = quality if epoch >= 3 else -quality
            trial.report(value if mode == "max" else -value, epoch)
            if trial.should_prune():
                raise TrialPruned
        return quality if mode == "max" else -quality

    with closing(opened(tmp_path, monitor="val/acc" if mode == "max" else "val/loss")) as sweep:
        sweep.study.optimize(train, n_trials=4)
        states = [(trial.state, trial.last_step) for trial in sweep.study.trials]

    complete = (TrialState.COMPLETE, 10)
    assert states == [complete, (TrialState.PRUNED, 3), complete, complete]


def test_pruned_trial_whose_process_died_before_it_could_tell_is_pruned(
    tmp_path: Path, soon: None
) -> None:

    def train(trial: Trial) -> float:
        for epoch in range(1, 4):
            trial.report(float(trial.number), epoch)
            if trial.should_prune():
                raise Died
        return float(trial.number)

    with closing(opened(tmp_path)) as sweep:
        sweep.join()
        with pytest.raises(Died):
            sweep.study.optimize(train, n_trials=2)
        sweep.requeue_dead()
        sweep.study.optimize(Objective(sweep, [], []), n_trials=1)
        trials = last_attempts(sweep.study)

    assert [trials[number].state for number in (0, 1)] == [TrialState.COMPLETE, TrialState.PRUNED]


def test_trial_that_kills_its_process_is_tried_again_once(tmp_path: Path, soon: None) -> None:
    tried = []

    def die(trial: Trial) -> float:
        tried.append(space.suggest(trial, LEARNING_RATE))
        raise Died

    with closing(opened(tmp_path)) as sweep:
        for is_left in (True, False):
            with pytest.raises(Died):
                sweep.study.optimize(die, n_trials=1)
            sweep.requeue_dead()
            assert sweep.is_left(1) == is_left
        (trial,) = last_attempts(sweep.study).values()

    assert tried[0] == tried[1]
    assert trial.state == TrialState.FAIL


def test_trial_whose_process_died_before_its_first_sign_of_life_is_tried_again(
    tmp_path: Path, soon: None
) -> None:
    with closing(opened(tmp_path)) as sweep:
        with pytest.warns(UserWarning, match="Heartbeat"):
            sweep.study.ask()
        sweep.requeue_dead()

        assert sweep.is_left(1)
        assert len(last_attempts(sweep.study)) == 1


def test_finite_space_is_searched_without_repeating_a_combination(tmp_path: Path) -> None:
    tried: space.Space = {
        "data.batch_size": {"choices": [8, 16, 32, 64]},
        "model.warmup": {"low": 0.0, "high": 0.5, "step": 0.25},
        "model.shift": {"low": 1, "high": 2},
    }
    found = set()

    def train(trial: Trial) -> float:
        found.add(tuple(space.suggest(trial, tried).values()))
        return 0.0

    assert space.num_combinations(tried) == 24
    assert space.num_combinations({"a": {"low": 1, "high": 64, "log": True}}) == math.inf
    for _ in range(2):  # two sittings
        with closing(opened(tmp_path, tried)) as sweep:
            sweep.study.optimize(train, n_trials=12)
    assert len(found) == 24


def test_another_search_needs_another_name(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as sweep:
        sweep.join()
    wider = {"model.lr": {"low": 0.1, "high": 0.3}}
    for other, said in ((opened(tmp_path, wider), "space"), (opened(tmp_path, epochs=9), "epochs")):
        with closing(other), pytest.raises(UserError, match=f"sweep_0 was begun with {said}"):
            other.join()


@pytest.mark.parametrize("left", ["trial.json", "config.yaml"])
def test_folders_of_another_study_are_not_adopted(left: str, tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as sweep:
        sweep.join()
        run = sweep.claim(0)
    run.config.write_text("model: {}")
    (folder_in(tmp_path) / "study.db").unlink()
    for path in (run.folder / "trial.json", run.config):
        path.unlink() if path.name != left else None

    with closing(opened(tmp_path)) as sweep, pytest.raises(UserError, match="of another study"):
        sweep.join()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model.lrr: {low: 0.001, high: 0.01}", "did you mean --model.lr?"),
        ("model.lr: {low: 0.01, high: 0.001}", "`low <= high` must hold"),
        ("model.lr: {low: small, high: 0.01}", "give numbers low and high"),
        ("model.lr: {low: 0.001, high: .inf}", "give numbers low and high"),
        ("model.lr: {low: 0.001}", "missing 1 required positional argument: 'high'"),
        ("model.lr: 0.001", "0.001 is neither a range nor choices"),
        ("data.batch_size: {low: 100, high: 250, step: 100}", "not divisible by `step`"),
        ("model.network.dropout: {low: 0.5, high: 1.5}", "dropout 1.5 is out of range"),
        ("model.schedule: {choices: [constant, constant]}", "a choice comes twice"),
        ("seed_everything: {choices: [1, 2]}", "seed_everything has to be the same"),
        ("'model.lr=1 --x': {choices: [1, 2]}", "model.lr=1 --x 1"),
        ("[model.lr]", "names no options"),
        ("model.lr: {low", "is not YAML"),
    ],
)
def test_what_cannot_be_tried_is_said_before_any_trial(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = arguments(tmp_path, 2)
    write_space(tmp_path, text)

    assert main(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--n_trials=0"], "at least one"),
        *(([f"--study={name}"], "take letters") for name in ("", ".", "..", "a/b", "version_1")),
        (["--ckpt_path=last"], "sweep takes no --ckpt_path"),
        (["--trainer.fast_dev_run=1"], "complete runs"),
        (["--best_checkpoint.monitor=train/loss"], "chooses by validation"),
        (["--space=nowhere.yaml"], "--space nowhere.yaml is not a file"),
        (["--storage=nothing{}"], "the study cannot be used"),
    ],
)
def test_sweep_refuses(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, 2, *options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_without_optuna_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)

    assert main(["sweep"]) == 2
    said = "mnist-lit: error: sweep needs Optuna: pip install 'mnist-lit[sweep]'\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("end", [0, -1])
def test_packaged_space_fits_the_packaged_config(end: int) -> None:
    tried = space.read(config_files.packaged_space())
    ends = {name: space.edges(entry)[end] for name, entry in tried.items()}
    TrialFit(["fit", "--config", "default", *space.arguments(ends)])

    assert main(["fit", "--config", "sweep"]) == 2


# --- trials that fail -----------------------------------------------------------------------------


def test_trial_that_diverges_fails_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mnist_lit.sweep.search.end", lambda *args: None)
    args = arguments(tmp_path, 9, "--trainer.max_epochs=1")
    write_space(tmp_path, "model.lr: {choices: [1.0e+30, 0.005]}")

    assert main(args) == 0
    *said, last = capsys.readouterr().out.splitlines()
    assert last == "all 2 combinations of the space have been tried"
    states = {line.partition(" model.lr ")[2][:5]: line.split()[2] for line in said}
    assert states == {"1e+30": "failed", "0.005": "complete"}


def test_trial_that_needs_too_much_memory_fails_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CLI, "fit", lambda *args: torch.empty(2**50))

    assert main(arguments(tmp_path, 1)) == 2
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    assert line.startswith("trial 0: failed")
    assert "out of memory" in line
    assert "was completed: change its space" in said.err


# --- several processes ----------------------------------------------------------------------------

WITHOUT_AN_END = """
import sys
from mnist_lit.__main__ import main
from mnist_lit.sweep import search, study
search.end = lambda *args: None
study.HEARTBEAT_S, study.DEAD_AFTER_S = 1, 4
sys.exit(main(sys.argv[1:]))
"""


def started(args: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_AN_END, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trials_in(root: Path, url: str | None = None) -> list[FrozenTrial]:
    with closing(opened(root, url=url)) as sweep:
        return [trial for _, trial in sorted(last_attempts(sweep.study).items())]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_interrupted_sweep_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lit.sweep.search.end", lambda *args: None)
    monkeypatch.setattr(study, "DEAD_AFTER_S", 4)
    roots = [tmp_path / name for name in ("interrupted", "whole")]
    for root in roots:
        root.mkdir()
    # Saved after every step, so that there is always something to resume from.
    args, whole = (arguments(root, 3, "--last_checkpoint.every_s=0") for root in roots)
    ends = ((0, signal.SIGINT, TrialState.WAITING), (1, signal.SIGKILL, TrialState.RUNNING))
    for number, signum, state in ends:
        process = started(args)
        wait_for(Run(folder_in(roots[0]) / f"version_{number}").last, process)
        process.send_signal(signum)
        _, said = process.communicate()
        if signum == signal.SIGINT:
            assert process.returncode == 130
            (line,) = [line for line in said.splitlines() if line]
            assert line.startswith("SIGINT: stopped; resume with: mnist-lit sweep --space")
        assert trials_in(roots[0])[number].state == state
    assert main(args) == 0
    assert main(whole) == 0
    trials = [trials_in(root) for root in roots]

    assert [trial.params for trial in trials[0]] == [trial.params for trial in trials[1]]
    assert [trial.state for trial in trials[0]] == [trial.state for trial in trials[1]]
    for numbers in ((0, 0), (1, 1), (3, 2)):  # the interrupted one's 2 is its second attempt at 1
        pair = zip(roots, numbers, strict=True)
        one, other = (Run(folder_in(root) / f"version_{number}") for root, number in pair)
        assert differences(one, other) == []


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a database of the test's own."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found or os.geteuid() != 0:
        pytest.skip("no PostgreSQL that root could start (Debian: apt-get install postgresql)")

    def run(program: str, *options: str) -> None:
        command = ["runuser", "-u", "postgres", "--", str(found[-1] / program), *options]
        # Not captured: what it starts would keep the pipe open.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    # Not pytest's folder: only the user of the tests may enter that.
    with tempfile.TemporaryDirectory() as folder:
        shutil.chown(folder, "postgres")
        data = f"--pgdata={folder}/data"
        run("initdb", data, "--auth=trust")
        run("pg_ctl", "start", data, "-w", f"-l{folder}/log", f"-o-k {folder} -h ''")
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        run("pg_ctl", "stop", data, "--mode=immediate")


@pytest.mark.parametrize("database", ["file", "postgres"])
def test_two_processes_share_a_sweep(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres") if database == "postgres" else None
    options = [f"--storage={url}"] if url else []
    args = arguments(tmp_path, 6, "--trainer.max_epochs=2", *options)
    processes = [started(args) for _ in range(2)]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    done = [
        [line.split()[1] for line in out.splitlines() if " val/loss " in line] for out, _ in said
    ]
    trials = trials_in(tmp_path, url)

    assert sorted(done[0] + done[1]) == [f"{number}:" for number in range(6)]
    assert all(done)
    assert all(trial.state.is_finished() for trial in trials)
    assert len({trial.params["model.network.dropout"] for trial in trials}) == 6, "one came twice"
    assert (folder_in(tmp_path) / "study.db").exists() == (database == "file")

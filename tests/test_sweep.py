"""A search in trials: what it chooses by, how it goes on, and what it leaves."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import fit_in, results_of
from filelock import FileLock, Timeout
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from same import differences
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import mnist_lit.sweep as command
from mnist_lit.__main__ import main
from mnist_lit.cli import CLI
from mnist_lit.data.images import Batch, ImageSet
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.options import with_recipe
from mnist_lit.sweep import space, study
from mnist_lit.sweep.study import Sweep
from mnist_lit.training import recipes
from mnist_lit.training.runs import Run

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


def rows_in(root: Path) -> list[dict[str, str]]:
    with (root / "lightning_logs" / "sweep_0" / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def runs_in(root: Path) -> list[Run]:
    folder = root / "lightning_logs" / "sweep_0"
    return [Run(folder / f"version_{n}") for n in range(len(list(folder.glob("version_*"))))]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> tuple[Path, list[str]]:
    """Where a sweep of five trials was, and in which order it ended trials and saw test images."""
    root = tmp_path_factory.mktemp("searched")
    happened: list[str] = []
    take, tell = ImageSet.__getitem__, Sweep.tell

    def watched(images: ImageSet, positions: Tensor) -> Batch:
        if len(images.images) == 10_000:
            happened.append("test images")
        return take(images, positions)

    def telling(sweep: Sweep, *args: Any) -> Any:
        happened.append("trial")
        return tell(sweep, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(data_dir.parent))
        patch.setattr(ImageSet, "__getitem__", watched)
        patch.setattr(Sweep, "tell", telling)
        assert main(arguments(root, 5)) == 0
    return root, happened


def test_validation_decides(searched: tuple[Path, list[str]]) -> None:
    root, _ = searched
    rows, runs = rows_in(root), runs_in(root)
    for row, run in zip(rows, runs, strict=True):
        with run.metrics.open(newline="") as file:
            losses = [float(line["val/loss"]) for line in csv.DictReader(file) if line["val/loss"]]
        assert min(losses) == pytest.approx(float(row["val/loss"]))
        assert yaml.safe_load(run.config.read_text())["model"]["lr"] == float(row["model.lr"])
    best = min(rows, key=lambda row: float(row["val/loss"]))
    (tested,) = [run for run in runs if run.has_results]

    assert tested.folder.name == f"version_{best['trial']}"
    assert results_of(tested)["val/loss"] == pytest.approx(float(best["val/loss"]), rel=1e-4)
    assert results_of(tested)["num_test_images"] == 10_000
    assert tested.report.is_file()
    assert (tested.figures / "mistakes.png").is_file()


def test_test_images_are_seen_when_everything_is_chosen(searched: tuple[Path, list[str]]) -> None:
    _, happened = searched

    assert happened[:5] == ["trial"] * 5
    assert set(happened[5:]) == {"test images"}
    # Of the best trial alone: once to measure, and for the figures.
    assert happened.count("test images") < 2 * 100


def test_held_back_images_are_given_to_nobody() -> None:
    data = MNISTDataModule()
    data.setup()
    data.hold_test_back()

    assert len(data.images("val")) == 5000
    for ask in (lambda: data.images("test"), data.test_dataloader, data.predict_dataloader):
        with pytest.raises(RuntimeError, match="held back"):
            ask()


def test_bad_trials_are_pruned_and_stay_legible(searched: tuple[Path, list[str]]) -> None:
    root, _ = searched
    pruned = [row for row in rows_in(root) if row["state"] == "pruned"]
    complete = [row for row in rows_in(root) if row["state"] == "complete"]

    assert pruned
    assert {row["epochs"] for row in pruned} <= {"1", "2"}
    assert "1e-05" in {row["model.lr"] for row in pruned}
    best = min(complete, key=lambda row: float(row["val/loss"]))
    assert best["model.lr"] == "0.005"
    run = Run(Path(pruned[0]["folder"]))
    assert run.has_config
    assert run.last.is_file()
    assert run.best.is_file()
    assert not run.has_results


def test_trials_can_be_compared_in_tensorboard(searched: tuple[Path, list[str]]) -> None:
    for run in runs_in(searched[0]):
        events = EventAccumulator(str(run.folder)).Reload()
        assert "_hparams_/session_start_info" in events.summary_metadata
        assert {"val/acc", "val/loss"} <= set(events.Tags()["scalars"])


def test_trials_are_compared_by_validation(searched: tuple[Path, list[str]]) -> None:
    root, happened = searched
    seen = happened.count("test images")
    folder = root / "lightning_logs" / "sweep_0"
    assert main(["report", str(folder)]) == 0
    page = (folder / "comparison.html").read_text()
    complete = [row for row in rows_in(root) if row["state"] == "complete"]

    assert f"{len(complete)} runs side by side" in page
    assert f"{float(complete[0]['val/acc']):.2%}" in page
    assert "The number of validation images that only the first" in page
    assert "test loss" not in page
    assert happened.count("test images") == seen


def test_config_of_a_trial_repeats_it(
    searched: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lit.training.life.finish", lambda *args: None)
    monkeypatch.setattr("mnist_lit.cli.show", lambda run: None)
    untested = [row for row in rows_in(searched[0]) if row["state"] == "complete"]
    trial = next(run for run in map(_run_of, untested) if not run.has_results)
    place = f"--trainer.default_root_dir={tmp_path}"
    repeated = fit_in(tmp_path, "--config", str(trial.config), place)

    assert differences(trial, repeated) == []


def _run_of(row: dict[str, str]) -> Run:
    return Run(Path(row["folder"]))


def test_best_options_are_a_recipe(
    searched: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLI, "_run_subcommand", lambda self, subcommand: None)
    folder = searched[0] / "lightning_logs" / "sweep_0"
    best = min(rows_in(searched[0]), key=lambda row: float(row["val/loss"]))
    options = CLI(
        with_recipe(["fit", "--config", "default", "--config", str(folder / "best.yaml")])
    ).options

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
    said = capsys.readouterr().out

    assert "5 trials: " in said
    assert "importance" in said
    assert {path: path.stat().st_mtime for path in root.rglob("version_*/**/*.*")} == before


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model.label_smoothing=0.1", "was begun with model.label_smoothing 0.0, not 0.1"),
        ("--space", "was begun with space model.lr"),
    ],
)
def test_another_search_needs_another_name(
    option: str,
    said: str,
    searched: tuple[Path, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = arguments(searched[0], 9, option)
    if option == "--space":
        args[-1] = write_space(tmp_path, SPACE.replace("0.005", "0.006"))

    assert main(args) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["min", "max"])
def test_of_those_that_come_so_far_the_better_half_goes_on(mode: str, tmp_path: Path) -> None:
    """At 0.3 and 0.6 of the epochs, however it looked before."""
    monitor = {"min": "val/loss", "max": "val/acc"}[mode]
    pruned = {}
    with closing(Sweep(tmp_path / "sweep_0", None, monitor, mode, 1, 10)) as sweep:
        for quality in (0.5, 0.4, 0.6, 0.7):
            trial = sweep.study.ask()
            for epoch in range(1, 11):
                value = quality if epoch >= 3 else -quality
                metrics = {"val/loss": -value, "val/acc": value}
                if sweep.note(trial, epoch, metrics):
                    pruned[quality] = epoch
                    break
            sweep.tell(trial, TrialState.PRUNED if quality in pruned else TrialState.COMPLETE)

    assert pruned == {0.4: 3}


# --- what is tried --------------------------------------------------------------------------------


def test_space_says_how_each_option_is_tried(tmp_path: Path) -> None:
    text = """\
model.lr: {low: 1e-4, high: 1e-2, log: true}
data.batch_size: {low: 50, high: 200, step: 50}
model.warmup: {low: 0, high: 0.5, step: 0.25}
model.schedule: {choices: [constant, one_cycle]}
"""
    tried = {option.name: option for option in space.read(Path(write_space(tmp_path, text)[8:]))}

    assert tried["model.lr"].distribution == FloatDistribution(1e-4, 1e-2, log=True)
    assert tried["data.batch_size"].distribution == IntDistribution(50, 200, step=50)
    assert tried["model.warmup"].distribution == FloatDistribution(0, 0.5, step=0.25)
    schedules = CategoricalDistribution(["constant", "one_cycle"])
    assert tried["model.schedule"].distribution == schedules
    assert tried["model.lr"].edges == (1e-4, 1e-2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model.lrr: {low: 0.001, high: 0.01}", "did you mean --model.lr?"),
        ("model.lr: {low: 0.01, high: 0.001}", "model.lr: from 0.01 to 0.001, there is nothing"),
        ("model.lr: {low: 0.01, high: 0.01}", "nothing to choose from"),
        ("model.lr: {low: small, high: 0.01}", "low small is no number"),
        ("model.lr: {low: 0.0, high: 0.01, log: true}", "log is for ranges above 0"),
        ("model.lr: {low: 0.001, high: 0.01, log: 3}", "log 3 is neither true nor false"),
        ("model.lr: {low: 0.001, high: .inf}", "high inf is no number"),
        ("model.lr: {low: 0.001}", "give low and high"),
        ("model.lr: 0.001", "give low and high"),
        ("model.lr: {low: -0.1, high: 0.01}", "model.lr -0.1"),
        ("data.batch_size: {low: 100, high: 250, step: 100}", "no whole number of steps"),
        ("data.batch_size: {low: 0.5, high: 10}", "data.batch_size 0.5"),
        ("model.network.dropout: {low: 0.5, high: 1.5}", "dropout 1.5 is no share"),
        ("model.schedule: {choices: []}", "two different ones"),
        ("model.schedule: {choices: [constant, two_cycle]}", "model.schedule two_cycle"),
        ("seed_everything: {choices: [1, 2]}", "seed_everything: it has to be the same"),
        ("data.val_size: {low: 100, high: 200}", "data.val_size: it has to be the same"),
        ("[model.lr]", "names no options"),
        ("model.lr: {low", "is no YAML"),
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
        (["--study=a/b"], "a name is needed"),
        (["--ckpt_path=last"], "sweep takes no ckpt_path"),
        (["--trainer.fast_dev_run=1"], "complete runs"),
        (["--best_checkpoint.monitor=train/loss"], "chooses by validation"),
        (["--model.lrr=1"], "did you mean --model.lr?"),
        (["--space=nowhere.yaml"], "--space nowhere.yaml cannot be read"),
        (["--storage=nothing"], "the study cannot be had"),
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


def test_packaged_space_fits_the_packaged_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mnist_lit.sweep.search.try_one", lambda *args: False)
    place = f"--trainer.default_root_dir={tmp_path}"

    assert main(["sweep", place]) == 2
    assert "no trial of" in capsys.readouterr().err
    assert "sweep" not in recipes.packaged_names()
    assert main(["fit", "--config", "sweep", place]) == 2


def test_trial_that_diverges_fails_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mnist_lit.sweep.search.end", lambda *args: None)
    args = arguments(tmp_path, 4, "--trainer.max_epochs=1")
    write_space(tmp_path, "model.lr: {choices: [1.0e+30, 0.005]}")

    assert main(args) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial ")]
    assert len(said) == 4
    failed = [line for line in said if " failed" in line]
    assert 0 < len(failed) < 4
    assert all("1e+30" in line for line in failed)
    assert "1e+30" not in said[-1].partition("best so far")[2]


# --- several processes ----------------------------------------------------------------------------

WITHOUT_AN_END = """
import sys
from mnist_lit.__main__ import main
import mnist_lit.sweep.search as search
search.end = lambda *args: None
sys.exit(main(sys.argv[1:]))
"""


def started(args: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_AN_END, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trials_in(root: Path, storage: str | None = None) -> list[FrozenTrial]:
    folder = root / "lightning_logs" / "sweep_0"
    with closing(Sweep(folder, storage, "val/loss", "min", 1, 3)) as sweep:
        return sweep.study.get_trials()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_interrupted_sweep_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lit.sweep.search.end", lambda *args: None)
    roots = [tmp_path / name for name in ("interrupted", "whole")]
    for root in roots:
        root.mkdir()
    # Saved after every step, so that there is always something to go on from.
    args, whole = (arguments(root, 3, "--last_checkpoint.every_s=0") for root in roots)
    for number, signum in ((0, signal.SIGINT), (1, signal.SIGKILL)):
        process = started(args)
        folder = roots[0] / "lightning_logs" / "sweep_0" / f"version_{number}"
        wait_for(Run(folder).last, process)
        process.send_signal(signum)
        _, said = process.communicate()
        if signum == signal.SIGINT:
            assert process.returncode == 130
            (line,) = [line for line in said.splitlines() if line]
            assert line.startswith("SIGINT: stopped; go on with: mnist-lit sweep --space")
        assert [trial.state for trial in trials_in(roots[0])][number:] == [TrialState.RUNNING]
    assert main(args) == 0
    assert main(whole) == 0
    trials = [trials_in(root) for root in roots]

    assert [trial.state.is_finished() for trial in trials[0]] == [True] * 3
    assert [trial.params for trial in trials[0]] == [trial.params for trial in trials[1]]
    assert [trial.state for trial in trials[0]] == [trial.state for trial in trials[1]]
    for one, other in zip(*map(runs_in, roots), strict=True):
        assert differences(one, other) == []


def shared(root: Path, *options: str) -> list[list[int]]:
    """Which trials each of two processes did, that began at the same time."""
    args = arguments(root, 6, "--trainer.max_epochs=2", *options)
    processes = [started(args) for _ in range(2)]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return [
        [int(line.split()[1]) for line in out.splitlines() if line.startswith("trial ")]
        for out, _ in said
    ]


def test_two_processes_share_a_sweep(tmp_path: Path) -> None:
    done = shared(tmp_path)

    assert sorted(done[0] + done[1]) == list(range(6))
    assert all(done)
    params = [trial.params["model.network.dropout"] for trial in trials_in(tmp_path)]
    assert len(set(params)) == 6, "the same was tried twice"


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


def test_two_processes_share_a_database(postgres: str, tmp_path: Path) -> None:
    done = shared(tmp_path, f"--storage={postgres}")

    assert sorted(done[0] + done[1]) == list(range(6))
    assert all(done)
    assert [trial.state.is_finished() for trial in trials_in(tmp_path, postgres)] == [True] * 6
    assert not (tmp_path / "lightning_logs" / "sweep_0" / "study.db").exists()


@pytest.mark.parametrize(
    ("silent_s", "state"),
    [
        (None, TrialState.FAIL),
        (2 * study.DEAD_S, TrialState.FAIL),
        (0, TrialState.RUNNING),
    ],
)
def test_trial_of_a_machine_that_is_gone_is_given_up(
    silent_s: float | None, state: TrialState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "STARTING_S", 0)
    sweep = Sweep(tmp_path / "sweep_0", None, "val/loss", "min", 1, 3)
    elsewhere = sweep.study.ask()
    if silent_s is not None:
        elsewhere.set_user_attr("alive_at", time.time() - silent_s)
    with sweep.next_trial(2, [space.Option("model.lr", FloatDistribution(0.1, 0.2))]) as begun:
        assert begun is not None
        assert begun[0].number == 1
        assert sweep.study.trials[0].state == state
        with pytest.raises(Timeout):  # as another process would find it
            FileLock(sweep.run_of(begun[0]).folder / ".lock", timeout=0).acquire()
    sweep.close()

"""Shared fixtures: runs trained once, the commands as functions."""

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from filelock import FileLock

from mnist_lit.__main__ import main
from mnist_lit.training.run_folders import Run

if TYPE_CHECKING:  # most tests need neither
    from playwright.sync_api import Browser
    from server import Server

HELPERS = str(Path(__file__).parent / "helpers")  # on the path of processes that tests start
Fit = Callable[..., Run]


def pytest_configure(config: pytest.Config) -> None:
    """Tests side by side begin in the order of their files, if pytest-xdist is 3.8 or newer.

    Else, test_code, whose few tests take long, would be last.
    """
    config.option.loadscopereorder = False


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import the slow tests, and what only they need, where they are run or named."""
    is_left_out = collection_path.name == "e2e" and config.option.markexpr == "not slow"
    return True if is_left_out and not any("e2e" in arg for arg in config.args) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[object]) -> None:
    """Processes that test side by side share the cores; with a thread too many, all wait."""
    num_threads = max(1, torch.get_num_threads() // len(specs))
    os.environ.setdefault("OMP_NUM_THREADS", str(num_threads))


@pytest.fixture(scope="session", autouse=True)
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of these tests: nothing is read from, or left in, the user's own."""
    return tmp_path_factory.mktemp("cache") / "mnist_lit"


@pytest.fixture(autouse=True)
def _cache(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(data_dir.parent))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """``serve`` sets torch to one thread: with another number, weights are no longer identical."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def fit_in(root: Path, *options: str) -> Run:
    """Run ``fit`` below `root`; the newest run."""
    arguments = ["--trainer.default_root_dir", str(root), "--trainer.enable_progress_bar", "false"]
    assert main(["fit", *arguments, *options]) == 0
    versions = (root / "lightning_logs").glob("version_*")
    return Run(max(versions, key=lambda folder: int(folder.name.removeprefix("version_"))))


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """``fit(*options)`` in a folder of the test's own."""
    return lambda *options: fit_in(tmp_path, *options)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without figures and page, which take longer than brief trainings do."""
    monkeypatch.setattr("mnist_lit.training.results.figure_makers", lambda *args: {})
    monkeypatch.setattr("mnist_lit.training.results.run_page", lambda *args: "")


def skip_results(patch: pytest.MonkeyPatch) -> None:
    """Let runs end when they are trained, without being measured and drawn."""
    patch.setattr(
        "mnist_lit.training.results.finish", lambda run, *args: run.results.write_text("{}")
    )
    patch.setattr("mnist_lit.commands.fit.print_results", lambda run: None)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """`skip_results` in the test."""
    skip_results(monkeypatch)


# Steps of 1,000 images: an epoch takes seconds.
BRIEFLY = (
    "--data.batch_size=1000",
    "--trainer.max_epochs=2",
    "--trainer.log_every_n_steps=10",
    "--model.lr=0.003",
)


SMALL_DIGITS = "--data.dataset=small.digits"
# 20 steps of an epoch; evaluated on 3,000 images instead of 70,000.
QUICKLY = (
    *BRIEFLY,
    SMALL_DIGITS,
    "--data.batch_size=100",
    "--data.val_size=500",
)


@pytest.fixture(scope="session")
def brief_run(tmp_path_factory: pytest.TempPathFactory, data_dir: Path, worker_id: str) -> Run:
    """A run of two quick epochs over all training images, not to be changed.

    It is made once for all processes of tests.
    """
    folder = tmp_path_factory.getbasetemp()
    root = (folder if worker_id == "master" else folder.parent) / "brief"
    run = Run(root / "lightning_logs" / "version_0")
    with FileLock(f"{root}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(data_dir.parent))
        return run if run.is_finished else fit_in(root, *BRIEFLY)


@pytest.fixture(scope="session")
def server() -> "Iterator[Server]":
    """``serve`` with the packaged network; it must outlive all that is done to it."""
    from server import running

    with running() as started:
        yield started
        assert started.process.poll() is None


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from drawing import chromium

    with chromium() as launched:
        yield launched


def results_of(run: Run) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(run.results.read_text())
    return loaded


def metrics_rows(run: Run) -> list[dict[str, str]]:
    with run.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def steps_of(run: Run, metric: str) -> list[int]:
    """Return the steps at which a metric was logged."""
    return [int(row["step"]) for row in metrics_rows(run) if row[metric]]


def one_error(capture: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a failed command has printed."""
    printed = capture.readouterr()
    (line,) = printed.err.splitlines()
    assert printed.out == ""
    return line

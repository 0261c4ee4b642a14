"""Once a network is trained and measured, nothing that fails costs the results."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import results_of
from matplotlib.figure import Figure

from mnist_lit.__main__ import main
from mnist_lit.console import ignore_closed_output, warning_if_failed
from mnist_lit.training.results import save_figures
from mnist_lit.training.run_folders import Run

pytestmark = pytest.mark.slow

# An epoch of 10 steps on 400 images, which takes a second.
STRIPES = (
    "--data.dataset=own.stripes",
    "--data.val_size=100",
    "--data.batch_size=30",
    "--trainer.max_epochs=1",
)


def _fit(root: Path, *options: str) -> int:
    return main(["fit", f"--trainer.default_root_dir={root}", *STRIPES, *options])


def _started(root: Path, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_lit", "fit", *STRIPES, *options],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _run(root: Path) -> Run:
    return Run(root / "lightning_logs" / "version_0")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "gbk"},
    ],
    ids=["ascii", "gbk"],
)
def test_encodings_without_all_characters_are_enough(
    environment: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "[a]"
    root.mkdir()
    (root / "größe.yaml").write_text("# für später\nmodel: {lr: 0.002}\n", encoding="utf-8")
    config = next(root.iterdir()).relative_to(root)
    with _started(
        root, f"--config={config}", PYTHONWARNDEFAULTENCODING="1", **environment
    ) as process:
        out, err = (text.decode("ascii") for text in process.communicate())

    assert process.returncode == 0, err
    assert "mnist_lit" not in err, "a warning: a text file without an encoding"
    assert "epoch 1/1  train " in out, "with 10 steps an epoch, and a point for every 50"
    assert f"results     {_run(root).results}" in out
    assert results_of(_run(root))["test/acc"] > 0
    assert "<title>version_0" in _run(root).report.read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="has another shell")
def test_reader_of_the_output_may_leave(tmp_path: Path) -> None:
    with _started(tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        (line,) = process.stderr.read().decode().splitlines()

    assert process.returncode == 0
    assert "standard output cannot be written (Broken pipe): going on without it" in line
    assert _run(tmp_path).report.is_file()


@pytest.mark.parametrize("step", ["gather_run_data", "run_page"])
def test_figure_report_and_logger_that_fail_cost_a_warning_each(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: object) -> Figure:
        raise RuntimeError("cannot\nbe drawn")

    monkeypatch.setattr("mnist_lit.reports.figures.confusion", fails)
    monkeypatch.setattr(f"mnist_lit.training.results.{step}", fails)
    assert _fit(tmp_path, "--trainer.logger=failing.AtTheEnd") == 0
    said, run = capsys.readouterr(), _run(tmp_path)

    assert [line.removeprefix("mnist-lit: warning: ") for line in said.err.splitlines()] == [
        "the figure confusion failed: RuntimeError: cannot be drawn",
        "the report failed: RuntimeError: cannot be drawn",
        "logging the results to AtTheEnd failed: ConnectionError: the server has gone",
    ]
    assert f"{results_of(run)['test/acc']:.2%}" in said.out
    assert run.best.is_file()
    assert {path.stem for path in run.figures.iterdir()} == {
        "predictions",
        "filters",
        "mistakes",
        "curves",
    }
    assert "report  " not in said.out
    assert run.is_finished, "another try would fail too"
    with run.metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert any(row["test/acc"] for row in rows), "other loggers go on"
    assert "test/confusion" not in rows[0], "only numbers are logged"


def test_run_that_was_ended_while_it_was_drawn_is_drawn_on_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> Figure:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mnist_lit.reports.figures.mistakes", interrupted)
        assert _fit(tmp_path) == 130
    run = _run(tmp_path)
    before = results_of(run)
    assert not run.report.is_file()
    assert _fit(tmp_path, "--ckpt_path=auto") == 0

    assert [path.name for path in run.folder.parent.iterdir()] == ["version_0"]
    assert results_of(run)["test/confusion"] == before["test/confusion"]
    assert (run.figures / "mistakes.png").is_file()
    assert run.report.is_file()
    assert run.is_finished


def test_drawing_that_fails_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Figure:
        raise ValueError

    paths = save_figures(tmp_path, {"one": Figure, "two": fails, "three": Figure})

    assert [path.name for path in paths] == ["one.png", "three.png"]
    assert sorted(tmp_path.iterdir()) == sorted(paths), "leftovers"
    assert capsys.readouterr().err == "mnist-lit: warning: the figure two failed: ValueError: \n"


def test_failure_is_one_line_that_no_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    with warning_if_failed("this"):
        raise OSError("\x1b[2J\nno")

    assert capsys.readouterr().err == "mnist-lit: warning: this failed: OSError: \\x1b[2J no\n"


def test_stream_that_cannot_be_written_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        with ignore_closed_output():
            for number in range(3):
                print("x" * 10_000, number, flush=True)

    assert capsys.readouterr().err.count("(Broken pipe): going on without it") == 1


def test_output_may_be_closed_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with ignore_closed_output():
        print(json.dumps({}))

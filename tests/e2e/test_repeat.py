"""One config, several seeds."""

import csv
import json
import signal
from pathlib import Path
from statistics import mean, stdev

import pytest
from conftest import QUICKLY

from mnist_lit.__main__ import main
from mnist_lit.commands import repeat
from mnist_lit.training.callbacks import Interrupted
from mnist_lit.training.run_folders import Run

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("undrawn")
def test_repeat_prints_what_the_runs_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = ["--trainer.limit_train_batches=10", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["repeat", "--seeds=3,4", *QUICKLY, *options]) == 0
    printed = capsys.readouterr().out
    table = printed[printed.rindex("n = 2") :]
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.rglob("results.json"))]
    accuracies = [result["test/acc"] for result in results]

    assert [result["seed"] for result in results] == [3, 4]
    assert f"{mean(accuracies):.3%}" in table
    assert f"{stdev(accuracies):.3%}" in table
    assert "version_1" in table
    assert "…" not in table
    with (tmp_path / "lightning_logs" / "repeat_version_0.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["run"]) for row in rows] == [("3", "version_0"), ("4", "version_1")]
    assert [float(row["test/acc"]) for row in rows] == accuracies


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_one_shows_what_it_has_and_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")

    class InterruptedAtSeedFour(repeat.NewRun):
        def __init__(self, args: list[str]) -> None:
            if "--seed_everything=4" in args:
                raise Interrupted(signal.SIGINT)
            super().__init__(args)

    monkeypatch.setattr(repeat, "NewRun", InterruptedAtSeedFour)
    options = ["--trainer.limit_train_batches=10", f"--trainer.default_root_dir={tmp_path}"]
    with pytest.raises(Interrupted):
        main(["repeat", "--seeds=3,4,5", *QUICKLY, *options])
    said = capsys.readouterr()

    assert "n = 1" in said.out
    assert len(list(tmp_path.rglob("repeat_version_0.csv"))) == 1
    assert said.err.endswith("--seeds 5\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seeds=one"], "whole numbers"),
        (["--seeds=1,1"], "different"),
        (["--seeds=-1,1"], "from 0 to"),
        (["--seeds=1,99999999999"], "from 0 to"),
        (["--seed_everything=1"], "takes no --seed_everything"),
        (["--ckpt_path=last"], "takes no --ckpt_path"),
        (["--trainer.fast_dev_run=1", "--trainer.enable_progress_bar=false"], "complete runs"),
    ],
)
def test_repeat_refuses(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repeat", *options]) == 2
    assert said in capsys.readouterr().err


def test_config_may_name_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], brief_run: Run
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"ckpt_path: {brief_run.last}\n")
    root = f"--trainer.default_root_dir={tmp_path}"

    assert main(["repeat", root, f"--config={config}", "--seeds=1"]) == 2
    assert "repeat takes no ckpt_path" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_cross_validation_trains_on_each_fold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main(["repeat", "--folds=3", *QUICKLY, root, "--trainer.max_epochs=1"]) == 0
    printed = capsys.readouterr().out
    configs = [path.read_text() for path in sorted(tmp_path.rglob("config.yaml"))]

    assert "fold 2/3, 2 of 3" in printed
    assert "n = 3" in printed
    assert [f"fold: {number}/3" in text for number, text in enumerate(configs, 1)] == [True] * 3
    assert main(["repeat", "--folds=1", *QUICKLY, root]) == 2
    assert main(["repeat", "--folds=3", "--data.fold=1/3", *QUICKLY, root]) == 2

"""The commands, as a person gives them."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import QUICKLY, SMALL_DIGITS, Fit, metrics_rows, results_of, steps_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from mnist_lit.__main__ import main
from mnist_lit.commands.command_line import CommandLine
from mnist_lit.commands.fit import CLI
from mnist_lit.errors import UserError
from mnist_lit.reading.classifier import PACKAGED_CLASSIFIER
from mnist_lit.serve.corrections import Corrections
from mnist_lit.training import config_files
from mnist_lit.training.run_folders import Run

CONFIGS = [Path(config_files.packaged(name)) for name in sorted(config_files.packaged_names())]


def _events(run: Run) -> EventAccumulator:
    events = EventAccumulator(str(run.folder), size_guidance={"scalars": 0, "images": 0})
    return events.Reload()


def test_fit_learns_and_reports(brief_run: Run) -> None:
    results = results_of(brief_run)

    assert results["params"] == 21_840
    assert results["num_test_images"] == 10_000
    assert results["epochs"] == 2
    # Over seeds 1 to 5: 0.976 and 0.975 on average, standard deviations 0.002 and 0.001. Exactly 1
    # would be a broken test set.
    assert 0.97 < results["test/acc"] < 1
    assert 0.97 < results["train/acc"] < 1
    assert results["images_per_s"] > 0


def test_half_the_bits_learn_and_are_drawn_too(fit: Fit) -> None:
    run = fit(*QUICKLY, "--trainer.precision=bf16-mixed")

    assert 0.8 < results_of(run)["test/acc"] < 1, "seed 1: 0.87, after 40 steps"
    assert (run.folder / "figures" / "predictions.png").exists()


def test_fit_leaves_a_complete_run_folder(brief_run: Run) -> None:
    files = {
        path.relative_to(brief_run.folder).as_posix()
        for path in brief_run.folder.rglob("*")
        if path.is_file() and not path.name.startswith((".", "events."))
    }

    assert files == {
        "config.yaml",
        "hparams.yaml",
        "metrics.csv",
        "report.html",
        "results.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "figures/predictions.png",
        "figures/confusion.png",
        "figures/filters.png",
        "figures/mistakes.png",
        "figures/curves.png",
    }


def test_curves_are_the_same_in_csv_and_tensorboard(brief_run: Run) -> None:
    events = _events(brief_run)
    metrics = ("train/loss", "train/acc", "val/loss", "val/acc", "test/acc", "lr", "images_per_s")

    for name in metrics:
        in_events = events.Scalars(name)
        assert steps_of(brief_run, name) == [event.step for event in in_events]
        values = [float(row[name]) for row in metrics_rows(brief_run) if row[name]]
        assert values == pytest.approx([event.value for event in in_events])
    assert steps_of(brief_run, "train/loss") == list(range(9, 110, 10))
    assert steps_of(brief_run, "val/acc") == [54, 109]


def test_pictures_are_in_tensorboard(brief_run: Run) -> None:
    tags = _events(brief_run).Tags()["images"]

    assert sorted(tags) == ["confusion", "curves", "filters", "mistakes", "predictions"]


def test_runs_can_be_compared_in_tensorboard(brief_run: Run) -> None:
    events = _events(brief_run)
    plugin_data = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    start = HParamsPluginData.FromString(plugin_data.content).session_start_info

    assert start.hparams["model.lr"].number_value == 0.003
    assert start.hparams["model.network.class_path"].string_value == "mnist_lit.models.CNN"
    assert start.hparams["trainer.log_every_n_steps"].number_value == 10, "the default is 50"
    assert "early_stopping.patience" not in start.hparams, "that is the default"
    assert len(start.hparams) < 20
    assert "_hparams_/experiment" not in events.summary_metadata, "columns are those of all runs"
    assert {"val/acc", "val/loss", "test/acc", "test/loss"} <= set(events.Tags()["scalars"])


def test_best_checkpoint_is_that_of_the_lowest_validation_loss(brief_run: Run) -> None:
    losses = [float(row["val/loss"]) for row in metrics_rows(brief_run) if row["val/loss"]]

    assert results_of(brief_run)["val/loss"] == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize(("command", "name"), [("test", "test"), ("validate", "val")])
def test_reloaded_checkpoint_scores_as_after_fit(
    command: str, name: str, brief_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = CLI([command, "--ckpt_path", str(brief_run.best), "--trainer.enable_progress_bar=false"])
    metrics: dict[str, Any] = dict(cli.trainer.callback_metrics)
    results = results_of(brief_run)

    assert metrics[f"{name}/acc"].item() == pytest.approx(results[f"{name}/acc"], abs=1e-6)
    assert metrics[f"{name}/loss"].item() == pytest.approx(results[f"{name}/loss"], rel=1e-4)
    printed = capsys.readouterr().out
    assert str(brief_run.best) in printed
    assert f"{results[f'{name}/acc']:.2%}" in printed
    assert not re.search(r"\d\.\d{5}", printed), "as many digits as a float has"


@pytest.mark.usefixtures("unmeasured")
def test_test_takes_the_newest_best_and_its_config(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(*QUICKLY, "--trainer.limit_train_batches=10")
    run = fit(*QUICKLY, "--trainer.limit_train_batches=10", "--model.network.dropout=0.0")
    capsys.readouterr()

    assert main(["test", "--trainer.default_root_dir", str(tmp_path)]) == 0
    assert str(run.best) in capsys.readouterr().out
    assert len(list((tmp_path / "lightning_logs").iterdir())) == 2, "test made a run folder"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs(
    config: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options = ["--trainer.fast_dev_run=2", "--trainer.enable_progress_bar=false"]
    if config.stem == "personal":
        options.append(f"--data.dataset={tmp_path_factory.mktemp('corrections')}")
        Corrections(Path(options[-1].partition("=")[2])).keep(bytes(784), 0)
    elif config.stem == "detector":
        options += ["--data.batch_size=2", "--optimizer=AdamW"]
    else:
        options.append("--data.dataset=mnist")  # the only one that is packaged
    root = ["--trainer.default_root_dir", str(tmp_path)]

    assert main(["fit", "--config", str(config), *options, *root]) == 0
    assert not list(tmp_path.iterdir()), "fast_dev_run leaves nothing"


def test_configs_come_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (speedrun,) = (str(path) for path in CONFIGS if path.stem == "speedrun")
    for options in (["--config", "speedrun"], ["--config=speedrun"], ["-c", "speedrun"]):
        assert CommandLine.resolve(["fit", *options]).args == ["fit", f"--config={speedrun}"]


def test_default_config_states_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CLI, "_run_subcommand", lambda self, subcommand: None)
    monkeypatch.setattr(CLI, "run_folder", lambda self: None)
    config = str(CONFIGS[0].with_name("default.yaml"))
    stated = yaml.safe_load(CLI(["fit", "--config", config]).config_yaml)
    default = yaml.safe_load(CLI(["fit"]).config_yaml)
    assert stated["trainer"].pop("logger") is True
    assert default["trainer"].pop("logger") is None, "Lightning's way to say true"

    assert stated == default


@pytest.mark.usefixtures("unmeasured")
def test_config_of_a_run_repeats_it(fit: Fit) -> None:
    run = fit(*QUICKLY)
    text = run.config.read_text()
    repeated = fit("-c", str(run.config))

    assert f"# torch {torch.__version__}".split("+")[0] in text
    assert yaml.safe_load(text)["model"]["lr"] == 0.003
    first, second = (
        torch.load(run.last, weights_only=True)["state_dict"] for run in (run, repeated)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.batch_size=0"], "data.batch_size"),
        (["--model.lr=-0.1"], "model.lr"),
        (["--model.network.dropout=1"], "dropout 1.0 is out of range"),
        (["--data.dataset=cifar"], "cifar"),
        (["--data.datset=mnist"], "--data.datset"),
        (["--trainer.accelerator=abacus"], "abacus"),
        (["--trainer.strategy=fsdp", "--trainer.accelerator=cpu"], "`fsdp` requires a GPU"),
        (["--config=nowhere"], "nowhere: no such file, and none of the packaged: best, "),
        (["--ckpt_path=last"], "no run in"),
        (["--ckpt_path=nowhere.ckpt"], "nowhere.ckpt: --ckpt_path takes best, last, a file, or"),
        ([f"--ckpt_path={PACKAGED_CLASSIFIER}"], "holds a network, but not its training"),
        (["--ckpt_path"], "ckpt_path"),
        (["--early_stopping.monitor=val/accuracy"], "early_stopping.monitor"),
        (["--model.schedule=one_cycle", "--trainer.max_epochs=-1"], "has to know the end"),
        (["--trainer.limit_val_batches=0"], "no best epoch"),
        (["--trainer.limit_predict_batches=2"], "leave it out"),
        (["--trainer.max_epochs=0"], "nothing to train"),
        (["--trainer.limit_train_batches=0"], "nothing to train"),
        (["--trainer.log_every_n_steps=0"], "take 1 or more"),
        (
            [
                *("--trainer.gradient_clip_val=1", "--trainer.precision=bf16-mixed"),
                *("--optimizer=Adam", "--optimizer.fused=true"),
            ],
            "leave out optimizer.fused",
        ),
        (["--seed_everything=99999999999"], "seed_everything"),
        (["--trainer.overfit_batches=5"], "--data.val_size 59000 leaves 1000"),
        (["--trainer.precision=bf16-true"], "bf16-mixed"),
        (["--ckpt=last"], "did you mean --ckpt_path?"),
        (["--trainer.val_check_interval=1000"], "an epoch has 550 steps, so take no more"),
        (["--trainer.val_check_interval=0"], "0 is not an interval"),
        (["--trainer.check_val_every_n_epoch=0"], "0 is not an interval"),
        (["--trainer.devices=-1", "--trainer.accelerator=cpu"], ""),
        (["--trainer.plugins=TorchCheckpointIO"], ""),
        (["--data.split_seed=99999999999999999999"], "data.split_seed"),
        (["--data.batch_size=99999999999999999999"], "data.batch_size"),
        (["--data.data_dir=~nobody-is-called-so/a"], "no such user"),
        (["--ckpt_path=~nobody-is-called-so/a"], "no such user"),
        (["--model.warm=0"], "did you mean --model.warmup?"),
        (["--trainer.strategy=ddp_spawn", "--trainer.accelerator=cpu"], "--trainer.strategy ddp"),
        (
            ["--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01"],
            "its average is in no checkpoint",
        ),
        (
            ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/loss"],
            "--early_stopping.patience",
        ),
        (["--trainer.callbacks=LearningRateFinder"], "so set --model.lr"),
        (["--trainer.callbacks+=BatchSizeFinder"], "so set --data.batch_size"),
        (
            [
                "--trainer.callbacks=GradientAccumulationScheduler",
                "--trainer.callbacks.scheduling={0: 2}",
            ],
            "so set --trainer.accumulate_grad_batches",
        ),
        (
            ["--trainer.callbacks=OnExceptionCheckpoint", "--trainer.callbacks.dirpath=."],
            "--ckpt_path last resumes from it",
        ),
        (["--trainer.callbacks=DeviceStatsMonitor"], "psutil"),
        (["--trainer.callbacks=os.system"], "os.system"),
        (["--model="], "model"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--trainer.default_root_dir", str(tmp_path), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()

    assert line.startswith("mnist-lit: error: ")
    assert said in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--trainer.logger=Foo", "no class Foo is known"),
        ("--trainer.logger=[{class_path: Foo}]", "no class Foo is known"),
        ("--trainer.callbacks=Foo", "no class Foo is known"),
        ("--model.network=wid", "no class wid is known"),
        (
            "--model.network=own.Perceptron --model.network.hiden=3",
            "Option 'hiden' is not accepted",
        ),
        ("--model.network=own.Perceptron --model.network.hidden=many", "Got value: many"),
        ("--model.loss=own.Focl", "module 'own' has no attribute 'Focl'"),
        ("--model.loss=own.Focal --model.loss.gama=1", "`--model.loss.help CLASS` lists"),
        ("--optimizer=Adm", "no class Adm is known"),
        ("--optimizer=SGD --lr_scheduler=StepLR", "arguments are required: step_size"),
        ("--trainer.max_epochs=ten", "Expected a <class 'int'>. Got value: ten"),
    ],
)
def test_error_of_a_class_is_its_innermost_reason(
    options: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *re.split(" (?=--)", options)]) == 2
    (line,) = capsys.readouterr().err.splitlines()

    assert reason in line
    assert "subtypes" not in line
    assert len(line) < 250


def test_error_of_a_logger_that_cannot_be_made_is_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = ["--trainer.logger=MLFlowLogger", f"--trainer.logger.tracking_uri=file:{tmp_path}"]

    assert main(["fit", *logger]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mnist-lit: error: The filesystem tracking backend")


def test_callbacks_of_a_config_that_are_replaced_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dry = ["--trainer.fast_dev_run=1", "--trainer.enable_progress_bar=false"]

    assert main(["fit", "--config=best", "--trainer.callbacks=Timer", *dry]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "replaces EMAWeightAveraging of the config" in line
    assert "--trainer.callbacks+ CLASS" in line


@pytest.mark.parametrize(
    ("option", "callbacks", "replaced"),
    [
        ("--config={trainer: {callbacks: [Timer]}}", ["Timer"], ["EMAWeightAveraging"]),
        ("--trainer.callbacks+=Timer", ["EMAWeightAveraging", "Timer"], []),
        ("--trainer.callbacks=EMAWeightAveraging", ["EMAWeightAveraging"], []),
        ("--trainer.callbacks=null", None, []),
    ],
    ids=["later config", "added", "the same", "left out"],
)
def test_callbacks_that_are_kept_or_left_out_are_not_named(
    option: str, callbacks: list[str] | None, replaced: list[str]
) -> None:
    args = ["fit", "--config", config_files.packaged("best"), option]

    assert CommandLine.resolve(args).replaced_callbacks(callbacks) == replaced


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89PNG\x00\xff", "is not text"),
        (b"&a [*a]", "refers to itself"),
        (b"[" * 5000, "nested too deeply"),
        (b"model: {lr: " + b"9" * 5000 + b"}", "4300"),
        (b"model:\n  lr:\n", "model.lr"),
        (b"model: 3\n", "model"),
        (
            b"trainer: {max_epochs: 1}\nmodel: {}\ntrainer: {}\n",
            "trainer is there once more in line 3",
        ),
    ],
    ids=["binary", "itself", "deep", "number", "no value", "no section", "section twice"],
)
def test_what_is_no_config_is_one_line(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes(content)
    root = f"--trainer.default_root_dir={tmp_path}"

    assert main(["fit", root, "--config", str(config)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize("command", ["test", "repeat", "predict", "serve"])
def test_options_are_not_abbreviated(
    command: str,
    brief_run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else ``--ckpt`` would name a checkpoint to one half of the program, and none to the other."""
    monkeypatch.chdir(brief_run.folder.parents[1])
    picture = ["a.png"] if command == "predict" else []

    assert main([command, *picture, "--ckpt", "some.ckpt"]) == 2
    assert "unrecognized arguments: --ckpt some.ckpt" in capsys.readouterr().err


@pytest.mark.usefixtures("unmeasured")
def test_profiler_and_summary_of_the_network_are_shown(
    fit: Fit, caplog: pytest.LogCaptureFixture
) -> None:
    options = ("--trainer.profiler=simple", "--trainer.callbacks=ModelSummary")
    fit(*QUICKLY, "--trainer.limit_train_batches=10", *options)

    assert "run_training_batch" in caplog.text
    # Twice the products: 24 x 24 x 25 x 10, 8 x 8 x 250 x 20, 320 x 50 and 50 x 10.
    assert re.search(r"961 K +Total Flops", caplog.text)


def test_help_is_the_config_and_the_rest_is_a_flag_further(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--help"]) == 0
    config = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["fit", "--trainer.help"])
    rest = capsys.readouterr().out

    assert len(config.splitlines()) < 90
    assert "    lr: 0.001                 # Adam's learning rate" in config
    assert "robust" in config
    assert "gradient_clip_val" not in config
    assert "gradient_clip_val" in rest
    assert "--model" not in rest


def test_options_of_a_class_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--model.network.help", "Wide"])

    assert "share of the last 256 features" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["test", "validate"])
def test_without_a_run_nothing_is_tested(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--trainer.default_root_dir", str(tmp_path)]) == 2
    assert "train one with `mnist-lit fit`" in capsys.readouterr().err


def test_precision_without_32_bits_is_refused(
    brief_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--ckpt_path={brief_run.best}", "--trainer.precision=16-true"]

    assert main(["test", *options]) == 2
    assert "take 32-true, 16-mixed or bf16-mixed" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["truncated", "text", "foreign"])
def test_bad_checkpoint_is_one_line(
    content: str, brief_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.ckpt"
    if content == "truncated":
        path.write_bytes(brief_run.best.read_bytes()[:5000])
    elif content == "text":
        path.write_text("not a checkpoint")
    else:
        torch.save({"weights": torch.zeros(3)}, path)

    assert main(["test", "--ckpt_path", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "some.ckpt" in line


@pytest.mark.usefixtures("undrawn")
def test_resume_goes_on_in_the_same_folder(fit: Fit, tmp_path: Path) -> None:
    first = fit(*QUICKLY, "--trainer.limit_train_batches=20", "--trainer.max_epochs=1")
    best = torch.load(first.best, weights_only=True)
    run = fit(
        *QUICKLY,
        "--trainer.limit_train_batches=20",
        "--trainer.max_epochs=3",
        "--ckpt_path=last",
    )

    assert run == first
    assert best["epoch"] == 0
    assert steps_of(run, "train/loss") == [9, 19, 29, 39, 49, 59]
    assert steps_of(run, "val/acc") == [19, 39, 59]
    assert [event.step for event in _events(run).Scalars("train/loss")] == [9, 19, 29, 39, 49, 59]
    assert [event.step for event in _events(run).Scalars("val/acc")] == [19, 39, 59]
    assert results_of(run)["epochs"] == 3
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_finished_run_says_which_option_to_raise(
    brief_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = brief_run.results.read_bytes()

    assert main(["fit", "--config", str(brief_run.config), f"--ckpt_path={brief_run.last}"]) == 0
    assert "raise --trainer.max_epochs" in capsys.readouterr().out
    assert brief_run.results.read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_finished_run_without_its_checkpoints_is_not_begun_again(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(*QUICKLY, "--trainer.limit_train_batches=10")
    shutil.rmtree(run.checkpoints)
    before = run.results.read_bytes()

    assert main(["fit", f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=last"]) == 2
    assert "its checkpoints are gone" in capsys.readouterr().err
    assert run.results.read_bytes() == before


@pytest.mark.usefixtures("unmeasured")
def test_home_is_where_runs_are_looked_for_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    root = "--trainer.default_root_dir=~/experiments"
    brief = [*QUICKLY, "--trainer.limit_train_batches=10", "--trainer.enable_progress_bar=false"]
    assert main(["fit", root, *brief]) == 0
    assert main(["validate", root, "--trainer.enable_progress_bar=false"]) == 0

    assert (tmp_path / "experiments" / "lightning_logs" / "version_0").is_dir()


@pytest.mark.usefixtures("undrawn")
def test_empty_config_of_a_run_is_as_good_as_none(
    fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(*QUICKLY, "--trainer.limit_train_batches=10", "--trainer.max_epochs=1")
    run.config.write_text("")
    fit("--ckpt_path=last", SMALL_DIGITS, "--trainer.max_epochs=2")

    assert results_of(run)["epochs"] == 2
    assert "trainer.max_epochs 2 instead of 1" in capsys.readouterr().out
    assert "val_size: 500" in run.config.read_text()


@pytest.mark.usefixtures("unmeasured")
def test_run_goes_on_with_its_own_config(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    fit(*QUICKLY, "--trainer.limit_train_batches=10", "--model.schedule=one_cycle")
    fit("--ckpt_path=last", "--trainer.max_epochs=3")
    printed = capsys.readouterr().out

    assert "trainer.max_epochs 3 instead of 2" in printed
    assert printed.count("instead of") == 1


@pytest.mark.usefixtures("unmeasured")
def test_learning_rate_ends_where_the_training_does(fit: Fit) -> None:
    options = ("--model.schedule=one_cycle", "--trainer.max_steps=15")
    run = fit(*QUICKLY, "--trainer.limit_train_batches=10", *options)
    optimizer = torch.load(run.last, weights_only=True)["optimizer_states"][0]

    assert optimizer["param_groups"][0]["lr"] == pytest.approx(0)


def test_training_that_diverges_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*QUICKLY, "--trainer.limit_train_batches=10", "--model.lr=1e30"]
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", *options, root, "--trainer.enable_progress_bar=false"]) == 2

    assert "a smaller --model.lr" in capsys.readouterr().err
    assert not list(tmp_path.rglob("results.json"))


def test_training_without_validation_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*QUICKLY, "--trainer.max_steps=3", "--trainer.enable_progress_bar=false"]

    assert main(["fit", *options, f"--trainer.default_root_dir={tmp_path}"]) == 2
    assert "no epoch was validated" in capsys.readouterr().err


@pytest.mark.usefixtures("unmeasured")
def test_line_of_an_epoch_has_no_older_validation(
    fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    every_second = "--trainer.check_val_every_n_epoch=2"
    fit(*QUICKLY, every_second, "--trainer.max_epochs=3", "--trainer.enable_progress_bar=true")
    lines = [line for line in capsys.readouterr().out.splitlines() if " train " in line]

    assert ["validation" in line for line in lines] == [False, True, False]


@pytest.mark.usefixtures("undrawn")
def test_run_goes_on_under_another_name(fit: Fit) -> None:
    run = fit(*QUICKLY, "--trainer.limit_train_batches=10", "--trainer.max_epochs=1")
    renamed = Run(run.folder.rename(run.folder.with_name("baseline")))
    options = [f"--ckpt_path={renamed.last}", SMALL_DIGITS, "--trainer.max_epochs=2"]
    assert main(["fit", *options]) == 0

    assert results_of(renamed)["epochs"] == 2
    assert steps_of(renamed, "val/acc") == [9, 19]
    assert not run.folder.exists()
    checkpoints = sorted(path.name for path in renamed.checkpoints.iterdir())
    assert checkpoints == ["best.ckpt", "last.ckpt"]


@pytest.mark.usefixtures("unmeasured")
def test_worse_epochs_after_resuming_are_not_the_best(fit: Fit) -> None:
    options = (*QUICKLY, "--trainer.limit_train_batches=20")
    first = fit(*options, "--trainer.max_epochs=1")
    best = torch.load(first.best, weights_only=True)["state_dict"]
    # An absurd learning rate: everything after resuming is worse.
    run = fit(*options, "--model.lr=1.0", "--ckpt_path=last")
    kept = torch.load(run.best, weights_only=True)["state_dict"]

    assert all(torch.equal(best[name], kept[name]) for name in best)


@pytest.mark.usefixtures("undrawn")
def test_early_stopping_ends_the_training(fit: Fit) -> None:
    run = fit(
        *QUICKLY,
        "--model.lr=1.0",
        "--early_stopping.patience=1",
        "--trainer.limit_train_batches=5",
        "--trainer.log_every_n_steps=5",
        "--trainer.max_epochs=9",
    )

    assert results_of(run)["epochs"] < 9


def test_option_that_an_older_version_did_not_have_is_no_change() -> None:
    now = {"data": {"val_size": 500, "fold": None, "dataset": "mnist"}, "model": {"lr": 0.1}}
    old: dict[str, Any] = {
        "data": {"val_size": 500, "dataset": "mnist"},
        "model": {"lr": 0.2},
    }

    assert config_files.changes(old, now) == ["model.lr 0.1 instead of 0.2"]
    with pytest.raises(UserError, match=r"data\.val_size 500 instead of 400"):
        config_files.changes({**old, "data": {**old["data"], "val_size": 400}}, now)
    with pytest.raises(UserError, match=r"optimizer\.class_path"):
        config_files.changes({**old, "optimizer": None}, {**now, "optimizer": {"class_path": "A"}})


def test_environment_gives_what_nothing_else_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CLI, "_run_subcommand", lambda self, subcommand: None)
    monkeypatch.setattr(CLI, "run_folder", lambda self: None)
    monkeypatch.setenv("MNIST_LIT_FIT__MODEL__LR", "0.002")
    config = tmp_path / "rate.yaml"
    config.write_text("model: {lr: 0.003}")

    assert CLI(["fit"]).options.model.lr == 0.002
    assert CLI(["fit", f"--config={config}"]).options.model.lr == 0.003
    assert CLI(["fit", "--model.lr=0.004"]).options.model.lr == 0.004
    monkeypatch.setenv("MNIST_LIT_FIT__MODEL__LR", "fast")
    assert main(["fit"]) == 2
    assert "model.lr" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["command line", "config"])
def test_early_stopping_can_be_switched_off(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLI, "_run_subcommand", lambda self, subcommand: None)
    monkeypatch.setattr(CLI, "run_folder", lambda self: None)
    config = tmp_path / "off.yaml"
    config.write_text("early_stopping: null\n")
    args = ["--early_stopping", "null"] if way == "command line" else ["--config", str(config)]
    first = CLI(["fit", *args])
    config.write_text(first.config_yaml)
    again = CLI(["fit", "--config", str(config)])

    assert yaml.safe_load(again.config_yaml)["early_stopping"]["patience"] is None
    assert again.config_yaml == first.config_yaml
    on = CLI(["fit", "--config", str(config), "--early_stopping.patience=2"])
    assert yaml.safe_load(on.config_yaml)["early_stopping"]["patience"] == 2


@pytest.mark.usefixtures("undrawn")
def test_training_without_early_stopping_goes_to_its_end(
    fit: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    never_better = ("--early_stopping.patience=1", "--early_stopping.min_delta=1000")
    brief = (*QUICKLY, "--trainer.limit_train_batches=10", "--trainer.limit_val_batches=1")
    fit(*brief, *never_better, "--early_stopping=null", "--trainer.max_epochs=4")
    run = fit("--ckpt_path=last", "--trainer.max_epochs=6")

    assert results_of(run)["epochs"] == 6
    assert "early_stopping" not in capsys.readouterr().out


@pytest.mark.usefixtures("unmeasured")
def test_each_epoch_has_a_point_of_the_curves_with_accumulated_gradients(fit: Fit) -> None:
    run = fit(*QUICKLY, "--trainer.accumulate_grad_batches=4")

    assert [row["step"] for row in metrics_rows(run) if row["train/loss"]] == ["4", "9"]

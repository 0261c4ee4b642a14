"""Networks, losses, optimizers and data of one's own, by their import path."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import own
import pytest
import torch
import yaml
from conftest import BRIEFLY, HELPERS, QUICKLY, Fit, fit_in, metrics_rows, results_of
from kill import kill
from launched_ranks import run_command
from PIL import Image
from server import running
from torchvision.datasets import KMNIST

from mnist_lit import Classifier, LitClassifier, MNISTDataModule
from mnist_lit.__main__ import main
from mnist_lit.checkpoints import network_state
from mnist_lit.data import folders
from mnist_lit.data.sources import load
from mnist_lit.errors import UserError
from mnist_lit.models import CNN
from mnist_lit.training.dry_run import check_training_step
from mnist_lit.training.run_folders import Run

pytestmark = pytest.mark.slow

BRIEF = (*BRIEFLY, "--trainer.limit_train_batches=20")
SMALL = ("--data.batch_size=50", "--data.val_size=100", "--trainer.log_every_n_steps=2")
Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory, data_dir: object) -> Run:
    """A run of a network of one's own, with a number of units of one's own."""
    network = ("--model.network=own.Perceptron", "--model.network.hidden=64")
    return fit_in(tmp_path_factory.mktemp("own"), *BRIEF, *network)


# --- networks -------------------------------------------------------------------------------------


def test_own_network_is_trained_and_reads(own_run: Run, tmp_path: Path, capsys: Printed) -> None:
    results = results_of(own_run)
    network = yaml.safe_load(own_run.config.read_text())["model"]["network"]
    picture = tmp_path / "blank.png"
    Image.new("L", (50, 50), 255).save(picture)
    command = ["predict", str(picture), f"--ckpt_path={own_run.best}", "--format=json"]
    assert main([*command, "--network=own.Perceptron"]) == 0

    assert results["params"] == 784 * 64 + 64 + 64 * 10 + 10
    assert results["test/acc"] > 0.8
    assert network["class_path"] == "own.Perceptron"
    assert network["init_args"]["hidden"] == 64
    assert "num_classes" not in network["init_args"], "it follows from the data"
    assert not (own_run.figures / "filters.png").exists(), "there are none"
    assert json.loads(capsys.readouterr().out)["number"] == ""
    classifier = Classifier.load(own_run.best, own.Perceptron)
    assert classifier.feature_maps(torch.zeros(3, 1, 28, 28)).shape[1] == 0


def test_own_network_is_reported_once_it_is_named(
    own_run: Run, tmp_path: Path, capsys: Printed
) -> None:
    command = ["report", str(own_run.folder), "--output", str(tmp_path / "own.html")]

    assert main(command) == 2
    assert "names own.Perceptron" in capsys.readouterr().err
    assert main([*command, "--network=own.Perceptron"]) == 0
    assert "Perceptron on mnist" in (tmp_path / "own.html").read_text()


def test_own_network_is_served(own_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", HELPERS)
    picture = BytesIO()
    Image.new("L", (50, 50), 255).save(picture, "PNG")
    with running(f"--ckpt_path={own_run.best}", "--network=own.Perceptron") as server:
        status, answer = server.predict(picture.getvalue(), "?details=true")

    assert (status, answer) == (200, {"number": "", "digits": []})


@pytest.mark.parametrize("command", ["predict a.png", "serve --port=0"])
def test_class_of_a_checkpoint_is_never_looked_for(
    command: str, own_run: Run, capsys: Printed
) -> None:
    assert main([*command.split(), f"--ckpt_path={own_run.best}"]) == 2
    assert "a own.Perceptron: name it if you trust it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("os.system", "is not a Module"),
        ("own.stripes", "is not a Module"),
        ("own.Missing", "no class own.Missing"),
        ("nowhere", "no class nowhere"),
        ("own.Picky", "cannot be built"),
        ("own.Convolving", "cannot be built"),
    ],
)
def test_class_that_is_not_the_checkpoints_is_refused(
    network: str, said: str, own_run: Run, capsys: Printed
) -> None:
    arguments = [f"--ckpt_path={own_run.best}", f"--network={network}"]

    assert main(["predict", "a.png", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_config_beside_a_checkpoint_from_elsewhere_runs_nothing(
    own_run: Run, tmp_path: Path, capsys: Printed
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    arguments = ["test", root, f"--ckpt_path={own_run.best}", "--trainer.enable_progress_bar=false"]

    assert main(arguments) == 2
    assert "names own.Perceptron: code is imported only if the" in (capsys.readouterr().err)
    assert main([*arguments, "--model.network=own.Perceptron"]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model.network=os.system"], "os.system"),
        (["--model.network=collections.OrderedDict"], "OrderedDict"),
        (["--model.network=own.Missing"], "own.Missing"),
        (["--model.network=own.Picky"], "own.Picky cannot be built: not today"),
        (["--model.network=own.OneClass"], "outputs (2, 1) for 2 images of 10 classes"),
        (
            ["--model.network=own.Convolving", "--data.dataset=own.stripes", "--data.val_size=9"],
            "does not take images (2, 3, 32, 32)",
        ),
        (["--model=own.Perceptron"], "own.Perceptron is not a LightningModule"),
        (["--model=own.Absent"], "no class own.Absent"),
        (["--model.network=own.ExtraState"], "network._extra_state is a dict"),
        (["--model.network=own.Masked"], "network.mask has values that are not finite"),
        (["--model.network=own.ComplexWeights"], "network.last.weight is complex"),
        (["--model.network=own.ComplexLogits"], "outputs torch.complex64"),
        (["--model.network=own.Frozen"], "own.Frozen has nothing to train"),
        (["--model.loss=own.PerImage"], "PerImage returns a tensor of shape (2,)"),
        (
            ["--model.network=own.Normed", "--data.batch_size=27", "--data.val_size=5027"],
            "cannot be trained on a single image, which is all that the last batch",
        ),
        (["--model.loss=own.Focal", "--model.label_smoothing=0.1"], "leave it at 0"),
        (["--optimizer=SGD", "--model.lr=0.1"], "set optimizer.lr"),
        (["--lr_scheduler=ConstantLR"], "needs an optimizer"),
        (
            ["--optimizer=SGD", "--lr_scheduler=ConstantLR", "--model.schedule=one_cycle"],
            "take one of them",
        ),
        (["--optimizer=os.system"], "os.system"),
        (["--data.dataset=own.nothing_of_use"], "it gives a str, not (images, labels)"),
        (["--data.dataset=own.Missing"], "own.Missing"),
        (["--data.dataset=os.system"], "as a function load(train: bool)"),
        (["--data.dataset=nowhere"], "known are mnist, fashion_mnist, kmnist"),
        (["--data.dataset=own.stripes", "--data.val_size=9", "--data.styles=0.1"], "for digits"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    options: list[str], said: str, tmp_path: Path, capsys: Printed
) -> None:
    assert main(["fit", f"--trainer.default_root_dir={tmp_path}", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()

    assert said in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        [
            "--model.network=own.Normed",
            "--data.batch_size=27",
            "--data.val_size=5027",
            "--trainer.limit_train_batches=3",
        ],
        ["--model.network=own.Normed"],
    ],
    ids=["without the last batch", "no batch of one"],
)
def test_what_does_fit_is_not_refused(options: list[str]) -> None:
    dry = ["--trainer.fast_dev_run=1", "--trainer.enable_progress_bar=false"]
    assert main(["fit", *options, *dry]) == 0


def test_checking_a_step_changes_nothing(data_dir: Path) -> None:
    torch.manual_seed(3)
    data, model = MNISTDataModule(negatives=0.1), LitClassifier(own.Counting(10, 1, 28))
    data.setup()
    network = model.network
    assert isinstance(network, own.Counting)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hidden = (int(network.seen), network.calls, network.generator.get_state().tolist())
    random = torch.get_rng_state()
    check_training_step(model, data, smallest_batch=1)

    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert hidden == (int(network.seen), network.calls, network.generator.get_state().tolist())
    assert torch.equal(random, torch.get_rng_state())
    assert all(weight.grad is None for weight in model.parameters())


def test_buffers_that_no_checkpoint_holds_are_named(capsys: Printed) -> None:
    dry = ["--trainer.fast_dev_run=1", "--trainer.enable_progress_bar=false"]
    assert main(["fit", "--model.network=own.Counting", *dry]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]

    assert "no checkpoint holds network.seen (persistent=False)" in line


# --- optimizers, schedules, losses ----------------------------------------------------------------

ADAMW = (
    "--model.network=own.Perceptron",
    "--model.network.dropout=0.5",
    "--model.loss=own.Focal",
    "--model.loss.gamma=1",
    "--optimizer=AdamW",
    "--optimizer.lr=0.003",
    "--optimizer.weight_decay=0.1",
    "--lr_scheduler=CosineAnnealingLR",
    "--lr_scheduler.T_max=3",
)


@pytest.mark.usefixtures("undrawn")
def test_own_optimizer_and_schedule_are_used(fit: Fit, capsys: Printed) -> None:
    brief = ("--trainer.limit_train_batches=10", "--trainer.log_every_n_steps=5")
    run = fit(*BRIEFLY[:1], *ADAMW, *brief, "--trainer.max_epochs=3")
    checkpoint = torch.load(run.last, weights_only=True)
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]

    assert results_of(run)["test/acc"] > 0.5
    assert group["weight_decay"] == 0.1
    assert group["lr"] == pytest.approx(0, abs=1e-9), "the end of half a cosine"
    options = [f"--ckpt_path={run.last}", "--trainer.max_epochs=4"]
    root = f"--trainer.default_root_dir={run.folder.parents[1]}"
    for option in ("--optimizer.weight_decay=0.2", "--optimizer.lr=0.1", "--lr_scheduler.T_max=9"):
        assert main(["fit", root, *options, option]) == 2
        assert "this run cannot resume with" in capsys.readouterr().err


SCHEDULE = """
optimizer: {class_path: SGD, init_args: {lr: 0.1}}
lr_scheduler:
  class_path: mnist_lit.training.schedules.Sequential
  init_args:
    schedulers:
    - {class_path: LinearLR, init_args: {start_factor: 0.1, total_iters: 10}}
    - {class_path: CosineAnnealingLR, init_args: {T_max: 30}}
    milestones: [10]
lr_scheduler_interval: step
"""


@pytest.mark.usefixtures("undrawn")
def test_nested_schedules_move_with_each_step_and_resume(tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "mine.yaml").write_text(SCHEDULE, encoding="utf-8")
    quickly = [option for option in QUICKLY if "model.lr" not in option]
    options = [f"--config={tmp_path / 'mine.yaml'}", *quickly, "--trainer.log_every_n_steps=1"]
    whole = fit_in(tmp_path / "whole", *options)
    fit_in(tmp_path / "parts", *options, "--trainer.max_epochs=1")
    parts = fit_in(tmp_path / "parts", "--ckpt_path=last", "--trainer.max_epochs=2")
    rates = [float(row["lr"]) for row in metrics_rows(whole) if row["lr"]]

    assert rates[:11] == pytest.approx([0.01 + 0.009 * step for step in range(11)])
    assert rates[-1] < 0.001
    assert all(torch.equal(_state(whole)[name], _state(parts)[name]) for name in _state(whole))
    wrong = SCHEDULE.replace("T_max", "T_min")
    (tmp_path / "wrong.yaml").write_text(wrong, encoding="utf-8")
    assert main(["fit", f"--config={tmp_path / 'wrong.yaml'}", *quickly]) == 2
    assert "lr_scheduler CosineAnnealingLR" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_model_schedule_drives_any_optimizer(fit: Fit) -> None:
    options = ("--optimizer=SGD", "--optimizer.lr=0.1", "--model.schedule=one_cycle")
    run = fit(*QUICKLY, "--model.lr=0.001", *options)
    (group,) = torch.load(run.last, weights_only=True)["optimizer_states"][0]["param_groups"]

    assert group["initial_lr"] == 0.1
    assert group["lr"] == pytest.approx(0, abs=1e-9)


# --- data -----------------------------------------------------------------------------------------


def test_coloured_images_of_another_size_are_learned(fit: Fit) -> None:
    run = fit(*SMALL, "--data.dataset=own.stripes", "--model.network=Wide", "--model.lr=0.003")
    results = results_of(run)

    assert results["test/acc"] > 0.95
    assert sorted(results["test/acc_per_class"]) == sorted(own.stripes.classes)  # type: ignore[attr-defined]
    assert np.sum(results["test/confusion"]) == 400
    classifier = Classifier.load(run.best)
    assert classifier.classes == own.stripes.classes  # type: ignore[attr-defined]
    assert classifier.probabilities(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    with pytest.raises(UserError, match=r"other classes \(red, green, blue, and 2 more\)"):
        classifier.read(Image.new("L", (50, 50)))


def _folder(root: Path, *parts: str, num: int = 30) -> Path:
    """Grey pictures of two sizes: dark ones and light ones."""
    for part in parts:
        for label, grey in (("dark", 40), ("light", 200)):
            (root / part / label).mkdir(parents=True)
            for n in range(num):
                picture = Image.new("L", (40, 30 + n % 2), grey + n)
                picture.save(root / part / label / f"{n:03}.png")
    return root


@pytest.mark.parametrize("parts", [("",), ("train", "test")], ids=["one", "train and test"])
def test_folder_of_pictures_is_a_data_set(
    parts: tuple[str, ...], tmp_path: Path, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _folder(tmp_path / "pictures", *parts)
    options = ("--data.val_size=10", "--data.batch_size=10", "--model.lr=0.01")
    runs = []
    for num_bytes in (folders.MAX_BYTES_IN_MEMORY, 0):  # the second time, they stay in the files
        monkeypatch.setattr(folders, "MAX_BYTES_IN_MEMORY", num_bytes)
        runs.append(fit(f"--data.dataset={folder}", *options, "--trainer.log_every_n_steps=2"))
    results = results_of(runs[0])
    weights = [torch.load(run.last, weights_only=True)["state_dict"] for run in runs]

    assert results["test/acc"] == 1
    assert results["num_test_images"] == (60 if len(parts) == 2 else 9)
    assert list(results["test/acc_per_class"]) == ["dark", "light"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_other_sets_are_downloaded_by_torchvision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a mirror of this test's own, which has MNIST's files."""
    mnist = Path(load.__code__.co_filename).parent / "mnist"
    handler = partial(QuietHandler, directory=mnist)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as mirror:
        threading.Thread(target=mirror.serve_forever, daemon=True).start()
        monkeypatch.setattr(KMNIST, "mirrors", [f"http://127.0.0.1:{mirror.server_port}/"])
        resources = [(path.name, None) for path in mnist.glob("*.gz")]
        monkeypatch.setattr(KMNIST, "resources", resources)
        loaded = load("kmnist", tmp_path)
        mirror.shutdown()

    assert len(loaded.train[1]) == 60_000
    assert loaded.classes[0] == "o"
    assert {path.name for path in tmp_path.iterdir()} == {".kmnist.lock", "kmnist"}, "leftovers"
    assert len(load("kmnist", tmp_path).test[1]) == 10_000, "the second time, nothing is fetched"


class QuietHandler(SimpleHTTPRequestHandler):
    """Says nothing of what it is asked."""

    def log_message(self, *args: object) -> None:
        pass


def test_forty_seven_classes_are_drawn(fit: Fit) -> None:
    run = fit(*SMALL, "--data.dataset=own.digits_of_47", "--model.lr=0.003")
    with Image.open(run.figures / "confusion.png") as picture:
        assert picture.width > 1300, "a line of the table has its place"
    assert len(results_of(run)["test/confusion"]) == 37


# --- weights ------------------------------------------------------------------------------------


def _state(run: Run) -> dict[str, torch.Tensor]:
    return network_state(torch.load(run.last, weights_only=True))


@pytest.mark.usefixtures("undrawn")
def test_training_starts_from_weights_and_trains_what_is_not_frozen(
    brief_run: Run, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(_state(brief_run), weights)  # without anything else
    options = [f"--model.weights={weights}", "--model.freeze=[conv*,fc1.*]", *QUICKLY]
    fit_in(tmp_path, *options, "--trainer.max_epochs=1")
    weights.unlink()  # a resumed run has its own
    run = fit_in(tmp_path, "--ckpt_path=last", "--trainer.max_epochs=2")

    before, after = _state(brief_run), _state(run)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc2.weight", "fc2.bias"}
    first = next(row for row in metrics_rows(run) if row["train/acc"])
    assert float(first["train/acc"]) > 0.85, "random weights have less in their first steps"


@pytest.mark.usefixtures("undrawn")
def test_weights_get_another_head_for_other_classes(tmp_path: Path, capsys: Printed) -> None:
    options = [*QUICKLY, "--data.dataset=own.digits_of_47", "--model.weights=packaged"]
    run = fit_in(tmp_path, *options, "--trainer.max_epochs=1")

    assert "fc2.weight, fc2.bias: initialised at random" in capsys.readouterr().out
    assert _state(run)["fc2.weight"].shape == (37, 50)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model.weights=absent.pt"], "absent.pt cannot be read"),
        (["--model.weights=text.pt"], "is neither a checkpoint nor a state_dict"),
        (["--model.weights=packaged", "--model.network=Wide"], "are of another network"),
        (["--model.freeze=[con1*]"], "con1* fits no parameter: there are conv1.weight"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(
    options: list[str], said: str, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pt").write_text("no weights", encoding="utf-8")
    assert main(["fit", *options, "--trainer.enable_progress_bar=false"]) == 2
    (line,) = capsys.readouterr().err.splitlines()

    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["text.pt"]


@pytest.mark.usefixtures("undrawn")
def test_report_has_the_data_of_ones_own_module(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--data=own.Smaller", "--data.side=20", "--model.network=own.Convolving"]
    run = fit(*QUICKLY, *options)
    monkeypatch.chdir(run.folder.parents[1])  # only there a run may name classes
    assert main(["report", str(run.folder), "--network=own.Convolving"]) == 0


@pytest.mark.usefixtures("undrawn")
def test_transform_of_ones_own_changes_training_batches(tmp_path: Path) -> None:
    options = ["--data.transform=torchvision.transforms.v2.RandomInvert", "--data.transform.p=1"]
    run = fit_in(tmp_path, *options, *QUICKLY)

    assert results_of(run)["test/acc"] < 0.6, "trained on white digits on black, tested on black"


@pytest.mark.usefixtures("undrawn")
def test_compiled_network_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    options = [*QUICKLY, "--model.compile=true", "--trainer.limit_train_batches=8"]
    whole = fit_in(tmp_path / "whole", *options)
    fit_in(tmp_path / "parts", *options, "--trainer.max_epochs=1")
    parts = fit_in(tmp_path / "parts", "--ckpt_path=last", "--trainer.max_epochs=2")

    assert _state(whole).keys() == _state(parts).keys() == CNN(10, 1, 28).state_dict().keys()
    assert all(torch.equal(_state(whole)[name], _state(parts)[name]) for name in _state(whole))


@pytest.mark.usefixtures("undrawn")
def test_loss_takes_class_weights_as_a_list(tmp_path: Path, capsys: Printed) -> None:
    options = [*QUICKLY, "--model.loss=CrossEntropyLoss", "--trainer.max_epochs=1"]
    weights = [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    run = fit_in(tmp_path, *options, f"--model.loss.weight={weights}")

    assert results_of(run)["test/acc_per_class"]["9"] == 0, "its images weigh nothing"
    assert yaml.safe_load(run.config.read_text())["model"]["loss"]["init_args"]["weight"] == weights
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", root, *options, "--model.loss.weight=[1, 2]"]) == 2
    assert "all 10 classes" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_accumulated_gradients_are_those_of_larger_batches(tmp_path: Path) -> None:
    options = [*QUICKLY, "--model.network.dropout=0", "--trainer.log_every_n_steps=3"]
    whole = fit_in(tmp_path / "whole", *options)
    halves = [*options, "--data.batch_size=50", "--trainer.accumulate_grad_batches=2"]
    parts = fit_in(tmp_path / "parts", *halves)
    root = f"--trainer.default_root_dir={tmp_path / 'killed'}"
    killed = run_command("fit", root, *halves, *kill("step", 14), "--last_checkpoint.every_s=0")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = fit_in(tmp_path / "killed", "--ckpt_path=last", "--trainer.callbacks=null")

    for name, weights in _state(whole).items():
        torch.testing.assert_close(_state(parts)[name], weights, rtol=0, atol=2e-3)
    assert all(torch.equal(_state(parts)[name], _state(resumed)[name]) for name in _state(parts))
    rows = [run.metrics.read_text(encoding="utf-8").splitlines() for run in (parts, resumed)]
    assert len(rows[0]) == len(rows[1])


# --- LightningModules ---------------------------------------------------------------------------


def test_subclass_of_the_classifier_is_trained_and_reported(fit: Fit, tmp_path: Path) -> None:
    run = fit("--model", "own.Confident", "--model.share=0.2", *QUICKLY)
    config = yaml.safe_load(run.config.read_text())

    assert config["model"]["class_path"] == "own.Confident"
    assert config["model"]["init_args"]["share"] == 0.2
    assert results_of(run)["test/acc"] > 0.5
    assert run.report.is_file()
    assert Classifier.load(run.best).probabilities(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    options = [f"--ckpt_path={run.last}", "--trainer.max_epochs=9", "--model=own.Autoencoder"]
    assert main(["fit", *options, f"--trainer.default_root_dir={tmp_path}"]) == 2


def test_any_lightning_module_is_trained_killed_resumed_and_tested(
    tmp_path: Path, capsys: Printed
) -> None:
    options = [*QUICKLY, "--model=own.Autoencoder", "--model.hidden=8"]
    options = [option for option in options if not option.startswith("--model.lr")]
    whole = fit_in(tmp_path / "whole", *options)
    root = f"--trainer.default_root_dir={tmp_path}"
    killed = run_command("fit", root, *options, *kill("step", 14), "--last_checkpoint.every_s=0")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = fit_in(tmp_path, "--ckpt_path=last", "--trainer.callbacks=null")

    first, second = (torch.load(r.last, weights_only=True)["state_dict"] for r in (whole, run))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert results_of(run)["test/loss"] == results_of(whole)["test/loss"]
    assert (run.figures / "curves.png").is_file()
    assert main(["test", root, "--trainer.enable_progress_bar=false"]) == 0
    assert "test" in capsys.readouterr().out.splitlines()[-2]


def test_module_whose_test_fails_or_is_missing_is_one_line(tmp_path: Path, capsys: Printed) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    options = [option for option in QUICKLY if not option.startswith("--model.lr")]
    assert main(["fit", root, *options, "--model=own.Diverged"]) == 2
    assert "test/loss is nan" in capsys.readouterr().err
    run = fit_in(tmp_path, *options, "--model=own.Untested")
    assert main(["test", root, "--trainer.enable_progress_bar=false"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "test_step" in line
    assert run.results.is_file()


# --- the README's section -------------------------------------------------------------------------


def test_readme_begins_an_experiment_of_ones_own(tmp_path: Path, data_dir: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    section = readme.split("## An experiment of your own\n")[1].split("\n## ")[0]
    _, python, *_ = section.split("```python\n")
    code, rest = python.split("```", 1)
    commands = rest.split("```sh\n")[1].split("```")[0].strip()
    (tmp_path / "mine.py").write_text(code)

    assert len(section.splitlines()) <= 60
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    _, of_test = re.split("^checkpoint /.*best.ckpt$", done.stdout, maxsplit=1, flags=re.MULTILINE)
    assert re.search(r"test +│ +\d+\.\d+%", of_test.split("epoch ")[0])

"""Checkpoints that are not what they should be are refused by whatever loads them."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import one_error

from mnist_lit.__main__ import main
from mnist_lit.checkpoints import load_checkpoint
from mnist_lit.errors import UserError
from mnist_lit.reading.classifier import PACKAGED_CLASSIFIER, Classifier
from mnist_lit.training.run_folders import Run

ODD: dict[str, Any] = {
    "none": None,
    "number": -7,
    "text": "odd",
    "list": [1],
    "dict": {"a": 1},
    "tensor": torch.zeros(2),
    "sparse": torch.zeros(2, 2).to_sparse(),
}


def _changed(path: Path, to: Path, keys: tuple[Any, ...], value: object) -> Path:
    checkpoint = copy.deepcopy(torch.load(path, weights_only=True))
    part = checkpoint
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    torch.save(checkpoint, to)
    return to


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("command", ["predict picture.png", "test", "validate", "serve", "fit"])
def test_weights_that_are_no_numbers_are_refused(
    command: str,
    value: float,
    brief_run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = torch.full((10,), value)
    keys = ("state_dict", "network.fc2.bias")
    path = _changed(brief_run.last, tmp_path / "diverged.ckpt", keys, weights)

    assert main([*command.split(), f"--ckpt_path={path}"]) == 2
    assert "a smaller --model.lr" in one_error(capsys)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_by_which_nothing_can_be_divided_is_refused(
    temperature: float, brief_run: Run, tmp_path: Path
) -> None:
    path = _changed(brief_run.best, tmp_path / "odd.ckpt", ("temperature",), temperature)

    with pytest.raises(UserError, match="train again"):
        load_checkpoint(path)


def test_one_changed_bit_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Torch does not compare the sums of a checkpoint's parts; the answer would be another one."""
    content = bytearray(PACKAGED_CLASSIFIER.read_bytes())
    content[92_231] ^= 0x40  # in a bias
    (tmp_path / "damaged.ckpt").write_bytes(content)

    assert main(["predict", "a.png", f"--ckpt_path={tmp_path / 'damaged.ckpt'}"]) == 2
    assert "it is damaged" in one_error(capsys)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("state_dict", "network.std"), torch.tensor(0.0)),
        (("state_dict", "network.fc2.weight"), torch.full((10, 50), 3e38)),
        (("state_dict", "network.fc2.weight"), torch.full((10, 50), 1e300, dtype=torch.float64)),
        (("state_dict", "network.fc2.bias"), torch.ones(10, dtype=torch.complex64)),
        (("temperature",), 1e-300),
        (("hyper_parameters", "network", "init_args", "dropout"), math.nan),
        (("hyper_parameters", "network", "init_args", "mirror"), torch.zeros(2)),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, tuple) else "",
)
def test_network_whose_answers_are_none_is_refused(
    keys: tuple[str, ...], value: object, brief_run: Run, tmp_path: Path
) -> None:
    path = _changed(brief_run.best, tmp_path / "odd.ckpt", keys, value)

    with pytest.raises(UserError, match=r"odd\.ckpt"):
        Classifier.load(path)


def test_network_without_answers_is_not_tested(
    brief_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ("state_dict", "network.std")
    path = _changed(brief_run.best, tmp_path / "odd.ckpt", keys, torch.tensor(0.0))

    assert main(["test", f"--ckpt_path={path}"]) == 2
    assert "NaN or infinite outputs" in one_error(capsys)


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize(
    "keys",
    [
        ("mnist_lit",),
        ("mnist_lit", "version"),
        ("hyper_parameters",),
        ("hyper_parameters", "network"),
        ("state_dict",),
        ("state_dict", "network.conv1.weight"),
    ],
    ids=str,
)
def test_odd_part_is_one_line(
    keys: tuple[str, ...],
    value: object,
    brief_run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = _changed(brief_run.best, tmp_path / "odd.ckpt", keys, value)

    assert main(["predict", "picture.png", f"--ckpt_path={path}"]) == 2
    assert "odd.ckpt" in one_error(capsys)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("callbacks", "RandomState", "python"), "list"),
        (("loops", "fit_loop"), "list"),
        (("train_sums",), "list"),
        (("train_sums",), "tensor"),
        (("lr_schedulers",), "list"),
        (("lr_schedulers",), "dict"),
        (("optimizer_states", 0, "param_groups"), "list"),
        (("callbacks", "TrainingLog", "images_per_s"), "list"),
        (("optimizer_states", 0, "state", 3, "exp_avg"), "list"),
        # Adam's fused kernel would write past it.
        (("optimizer_states", 0, "state", 3, "exp_avg"), "tensor"),
    ],
    ids=str,
)
def test_no_training_goes_on_from_an_odd_part(
    keys: tuple[Any, ...],
    value: str,
    brief_run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = _changed(brief_run.last, tmp_path / "odd.ckpt", keys, ODD[value])
    options = [f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=3"]

    assert (
        main(["fit", *options, "--trainer.enable_progress_bar=false", f"--ckpt_path={path}"]) == 2
    )
    assert "odd.ckpt" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.rglob("version_*")), "a run that never began"


def test_config_in_a_checkpoint_names_no_classes_but_lightnings(
    brief_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tmp_path / "planted.py"
    module.write_text("raise SystemExit('executed')")
    keys = ("mnist_lit", "config", "trainer", "callbacks")
    path = _changed(brief_run.best, tmp_path / "odd.ckpt", keys, [{"class_path": "planted.Evil"}])

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        assert main(["test", f"--ckpt_path={path}"]) == 2
    assert "names planted.Evil" in one_error(capsys)

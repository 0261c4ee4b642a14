"""A run that is killed and resumed ends with exactly the weights that it would have had."""

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import SMALL_DIGITS, fit_in, metrics_rows, skip_results
from filelock import FileLock
from kill import Spot, kill
from launched_ranks import Finished, run_command
from same import differences

from mnist_lit.__main__ import main
from mnist_lit.models import Wide
from mnist_lit.training.run_folders import Run, claim

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unmeasured")]

# Everything that draws random numbers or keeps a state of its own.
STRONG = (
    SMALL_DIGITS,
    "--data.val_size=500",
    "--data.augment.rotate_deg=10",
    "--data.augment.elastic_px=1",
    "--data.negatives=0.1",
    "--data.styles=0.3",
    "--model.schedule=one_cycle",
    "--model.label_smoothing=0.1",
    "--model.lr=0.005",
    "--trainer.limit_train_batches=12",
    "--trainer.max_epochs=3",
    "--trainer.log_every_n_steps=5",
    "--trainer.enable_progress_bar=false",
    "--trainer.callbacks=EMAWeightAveraging",
    "--trainer.callbacks.decay=0.9",
    "--last_checkpoint.every_s=0.05",
)


def _killed_fit(root: Path, *options: str) -> Finished:
    return run_command("fit", f"--trainer.default_root_dir={root}", *options)


def _resumed(root: Path, *options: str) -> Run:
    """Resume in this process, whose id is lower than that of the killed one."""
    time.sleep(1)  # TensorBoard orders files by second, then by process id
    return fit_in(root, *options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(data_dir.parent))
        skip_results(patch)
        return fit_in(tmp_path_factory.mktemp("uninterrupted"), *STRONG)


@pytest.mark.parametrize(
    "spots",
    [
        [("step", 0)],
        [("step", 7), ("validation", 12)],
        [("checkpoint", 12), ("epoch_end", 24)],
        [("last_checkpoint", 12)],
        [("checkpoint", 15), ("step", 30), ("validation", 36)],
    ],
    ids=str,
)
def test_killed_run_ends_as_if_it_had_not_been(
    spots: list[tuple[Spot, int]], uninterrupted: Run, tmp_path: Path
) -> None:
    resume: list[str] = []
    for spot, at in spots:
        killed = _killed_fit(tmp_path, *STRONG, *resume, *kill(spot, at))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        resume = ["--ckpt_path=last"]

    run = _resumed(tmp_path, *STRONG, *resume)

    assert run.version == 0
    assert differences(uninterrupted, run) == []
    assert not list(run.checkpoints.glob(".*")), "leftovers"


def test_killed_run_of_ones_own_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    left_out = ("--model.schedule", "--model.label_smoothing", "--data.negatives")
    options = [
        *(option for option in STRONG if not option.startswith(left_out)),
        "--model.network=own.Perceptron",
        "--model.network.dropout=0.5",
        "--model.loss=own.Focal",
        "--optimizer=AdamW",
        "--optimizer.weight_decay=0.1",
        "--lr_scheduler=CosineAnnealingLR",
        "--lr_scheduler.T_max=3",
        "--model.lr=0.001",
    ]
    uninterrupted = fit_in(tmp_path / "whole", *options)
    spots: list[tuple[Spot, int]] = [("step", 7), ("checkpoint", 15), ("validation", 30)]
    for spot, at in spots:
        resume = ["--ckpt_path=last"] if at > 7 else []
        killed = _killed_fit(tmp_path, *options, *resume, *kill(spot, at))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = _resumed(tmp_path, *options, "--ckpt_path=last")

    assert differences(uninterrupted, run) == []


def test_killed_run_of_max_steps_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Between two epochs, Lightning would take the first one up again; killed there and later."""
    options = [*STRONG, "--trainer.max_steps=30"]
    uninterrupted = fit_in(tmp_path / "whole", *options)
    for at in (12, 20):
        resume = ["--ckpt_path=last"] if at > 12 else []
        killed = _killed_fit(tmp_path, *options, *resume, *kill("step", at))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = _resumed(tmp_path, *options, "--ckpt_path=last")

    assert differences(uninterrupted, run) == []


def test_differences_are_found(uninterrupted: Run, tmp_path: Path) -> None:
    other = fit_in(tmp_path, *STRONG, "--seed_everything=2")
    found = differences(uninterrupted, other)

    assert "metrics.csv" in found
    assert "last.ckpt /state_dict/network.conv1.weight" in found


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_and_says_how_to_go_on(
    signum: signal.Signals, uninterrupted: Run, tmp_path: Path
) -> None:
    options = [option for option in STRONG if not option.startswith("--last_checkpoint")]
    stopped = _killed_fit(tmp_path, *options, *kill("step", 7, signum))
    run = Run(tmp_path / "lightning_logs" / "version_0")
    saved = torch.load(run.last, weights_only=True)
    _resumed(tmp_path, *STRONG, f"--ckpt_path={run.last}")

    assert stopped.returncode == 128 + signum
    (line,) = [line for line in stopped.stderr.splitlines() if line]
    how = "resume with: python -m mnist_lit fit --trainer"
    assert line.startswith(f"{signum.name}: stopped; {how}")
    assert line.endswith(f"--ckpt_path {run.last}")
    assert saved["global_step"] == 8, "the step is finished, and no other one"
    assert differences(uninterrupted, run) == []


def test_second_resume_of_a_run_is_refused(
    uninterrupted: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with FileLock(uninterrupted.folder / ".lock"):
        assert main(["fit", *STRONG, f"--ckpt_path={uninterrupted.last}"]) == 2
    assert "is being trained by another process" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    ["--data.split_seed=1", "--data.val_size=100", "--data.batch_size=500", "--seed_everything=2"],
)
def test_resume_that_would_make_the_result_a_lie_is_refused(
    option: str, uninterrupted: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = uninterrupted.config.read_bytes()
    options = [*STRONG, "--trainer.max_epochs=9", option, f"--ckpt_path={uninterrupted.last}"]

    assert main(["fit", *options]) == 2
    said = capsys.readouterr().err
    assert f"{option.removeprefix('--').replace('=', ' ')} instead of" in said
    assert uninterrupted.config.read_bytes() == before


def test_resume_by_another_network_is_refused(
    uninterrupted: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after an edit of the network's code."""
    before = {path: path.read_bytes() for path in uninterrupted.folder.rglob("*.*")}
    edited = type("CNN", (Wide,), {"__module__": "mnist_lit.models"})
    monkeypatch.setattr("mnist_lit.models.CNN", edited)
    options = [*STRONG, "--trainer.max_epochs=9", f"--ckpt_path={uninterrupted.last}"]

    assert main(["fit", *options]) == 2
    assert "leave its code as it was" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in uninterrupted.folder.rglob("*.*")} == before


def test_resume_may_go_on_longer_and_with_another_learning_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brief = [option for option in STRONG if "schedule" not in option]
    fit_in(tmp_path, *brief, "--trainer.max_epochs=1")
    run = fit_in(tmp_path, *brief, "--trainer.max_epochs=2", "--model.lr=0.002", "--ckpt_path=last")
    change = "from step 12 on: model.lr 0.002 instead of 0.005"

    assert change in capsys.readouterr().out
    assert f"# {change}" in run.config.read_text().splitlines()
    optimizer = torch.load(run.last, weights_only=True)["optimizer_states"][0]
    assert optimizer["param_groups"][0]["lr"] == 0.002


def test_stopped_run_that_was_killed_before_its_results_trains_no_further(
    tmp_path: Path,
) -> None:
    options = [*STRONG, "--trainer.max_epochs=9", "--early_stopping.patience=1", "--model.lr=1"]
    run = fit_in(tmp_path, *options)
    weights = torch.load(run.last, weights_only=True)
    run.results.unlink()
    fit_in(tmp_path, *options, "--ckpt_path=last")

    assert run.results.is_file()
    assert 0 < weights["global_step"] < 9 * 12, "it did not stop early"
    assert torch.load(run.last, weights_only=True)["global_step"] == weights["global_step"]


def test_checkpoint_from_elsewhere_starts_a_run_of_its_own(
    uninterrupted: Run, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(uninterrupted.last.read_bytes())
    refused = [*STRONG, f"--trainer.default_root_dir={tmp_path}", "--data.batch_size=500"]
    assert main(["fit", *refused, f"--ckpt_path={copy}"]) == 2
    assert not (tmp_path / "lightning_logs").exists()

    run = fit_in(tmp_path, *STRONG, "--trainer.max_epochs=4", f"--ckpt_path={copy}")
    assert torch.load(run.last, weights_only=True)["global_step"] == 48


def test_checkpoint_of_a_newer_version_is_refused(
    uninterrupted: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(uninterrupted.last, weights_only=True)
    checkpoint["mnist_lit"]["version"] = "99.0"
    torch.save(checkpoint, tmp_path / "newer.ckpt")

    assert main(["fit", *STRONG, f"--ckpt_path={tmp_path / 'newer.ckpt'}"]) == 2
    assert "was made by mnist-lit 99.0" in capsys.readouterr().err


def test_checkpoint_cannot_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"mnist_lit": {"version": "0.1"}, "payload": Payload()}, tmp_path / "evil.ckpt")

    assert main(["test", f"--ckpt_path={tmp_path / 'evil.ckpt'}"]) == 2
    assert "is not a checkpoint made by" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit_in(tmp_path, *STRONG, "--trainer.max_epochs=1")
    before = run.last.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["fit", *STRONG, f"--ckpt_path={run.last}"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]

    assert "No space left on device" in line
    assert f"--ckpt_path {run.last}" in line
    assert run.last.read_bytes() == before
    assert not list(run.checkpoints.glob(".*")), "leftovers"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("size_kb", [200, 400, 700, 1000])
def test_disk_that_fills_up_is_one_line(size_kb: int, tmp_path: Path) -> None:
    options = [*STRONG, "--last_checkpoint.every_s=0", "--trainer.log_every_n_steps=1"]
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        stopped = _killed_fit(disk, *options)
        leftovers = list(disk.rglob("checkpoints/.*"))
        run = Run(disk / "lightning_logs" / "version_0")
        saved = [torch.load(path, weights_only=True) for path in run.checkpoints.glob("*.ckpt")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)

    (line,) = stopped.stderr.splitlines()
    assert stopped.returncode == 2
    assert "No space left on device; fix that, then " in line
    assert f"--ckpt_path {run.last}" in line or "start again: no step was saved yet" in line
    assert not leftovers
    assert bool(saved) == ("start again" not in line)


def test_curves_that_a_power_cut_took_do_not_end_the_run(tmp_path: Path) -> None:
    run = fit_in(tmp_path, *STRONG, "--trainer.max_epochs=1")
    content = run.metrics.read_bytes()
    run.metrics.write_bytes(content[:60] + bytes(len(content) - 60))
    fit_in(tmp_path, *STRONG, "--ckpt_path=last")
    steps = [int(row["step"]) for row in metrics_rows(run)]

    assert sorted(steps) == steps
    assert steps[-1] == 35


@pytest.mark.parametrize(
    "option",
    [
        "--trainer.callbacks=kill.NeverBegins",
        "--trainer.callbacks=kill.CannotBeMade",
        "--trainer.callbacks=kill.StopsAtTheStart",
    ],
)
def test_training_that_cannot_begin_leaves_everything_as_it_was(
    option: str, uninterrupted: Run, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in uninterrupted.folder.rglob("*.*")}
    options = [*STRONG[:-3], "--trainer.max_epochs=9", option]
    ways: list[list[str]] = [[f"--ckpt_path={uninterrupted.last}"], []]
    with ThreadPoolExecutor() as threads:
        ended = list(threads.map(lambda way: _killed_fit(tmp_path, *options, *way), ways))

    assert all(process.returncode for process in ended)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.rglob("version_*")), "a run that never began"


def test_folder_that_another_process_has_taken_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment between claiming a folder and locking it."""
    claimed: list[Run] = []
    taken: list[FileLock] = []

    def claim_and_lose(root: Path, config: str, kind: str) -> Run:
        run = claim(root, config, kind)
        claimed.append(run)
        taken.append(FileLock(run.folder / ".lock"))
        taken[0].acquire()
        return run

    monkeypatch.setattr("mnist_lit.training.run_folders.claim", claim_and_lose)
    assert main(["fit", f"--trainer.default_root_dir={tmp_path}", *STRONG]) == 2
    taken[0].release()

    assert claimed[0].config.is_file()

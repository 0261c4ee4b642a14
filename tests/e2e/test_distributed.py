"""Several processes train as one does, end together, and resume."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import HELPERS
from kill import Spot, kill
from launched_ranks import LaunchedRanks, free_port, start
from same import differences
from torch import Tensor

from mnist_lit.checkpoints import load_checkpoint
from mnist_lit.data.loaders import EpochShuffle
from mnist_lit.training.run_folders import Run

pytestmark = pytest.mark.slow

# 13 steps of 77 images an epoch, the last one of 76: no number of them is shared evenly.
OPTIONS = (
    "--data.val_size=59000",
    "--data.batch_size=77",
    "--model.network.dropout=0",
    "--trainer.max_epochs=2",
    "--trainer.log_every_n_steps=5",
    "--trainer.enable_progress_bar=false",
    "--trainer.limit_val_batches=7",
    "--trainer.callbacks=kill.NoResults",
)

RANDOM = (*OPTIONS, "--model.network.dropout=0.25", "--data.augment.shift_px=1")
DDP = "--trainer.strategy=ddp"


def _fit(root: Path, *options: str, num_ranks: int = 2) -> LaunchedRanks:
    ddp = [DDP] if num_ranks > 1 else []
    folder = f"--trainer.default_root_dir={root}"
    return start(root / "said", "fit", folder, *options, *ddp, num_ranks=num_ranks)


def _run(root: Path) -> Run:
    return Run(root / "lightning_logs" / "version_0")


def _weights(run: Run) -> Tensor:
    state = load_checkpoint(run.last)["state_dict"]
    return torch.cat([value.flatten().double() for value in state.values()])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Run:
    root = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(data_dir.parent))
        assert _fit(root, *RANDOM).end() == [0, 0]
    return _run(root)


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_share_each_step_of_one_process(world_size: int) -> None:
    whole = EpochShuffle(1000, 77, seed=3)
    shares = [EpochShuffle(1000, 77, 3, rank, world_size) for rank in range(world_size)]

    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(torch.cat(parts).tolist()) == sorted(batch.tolist())


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_learn_what_one_process_learns(num_ranks: int, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"

    assert _fit(alone, *OPTIONS, num_ranks=1).end() == [0]
    launched = _fit(together, *OPTIONS, "--trainer.enable_progress_bar=true", num_ranks=num_ranks)
    assert launched.end() == [0] * num_ranks, launched.lines()

    torch.testing.assert_close(_weights(_run(together)), _weights(_run(alone)), rtol=0, atol=2e-4)
    lines = [line for line in launched.lines("out") if "validation " in line]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert [path.name for path in (together / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_each_test_image_counts_once(num_ranks: int, brief_run: Run, tmp_path: Path) -> None:
    expected = json.loads(brief_run.results.read_text())
    options = [f"--config={brief_run.config}", f"--ckpt_path={brief_run.best}", DDP]

    launched = start(tmp_path, "test", *options, num_ranks=num_ranks)

    assert launched.end() == [0] * num_ranks, launched.lines()
    percents = re.findall(r"test +│ +([\d.]+)%", " ".join(launched.lines("out")))
    # Of 10,000 images, one makes a hundredth of a percent.
    assert percents == [f"{100 * expected['test/acc']:.2f}"]


@pytest.mark.parametrize(
    ("spot", "at", "rank"), [("step", 7, 1), ("checkpoint", 13, 0), ("validation", 13, 1)]
)
def test_death_of_a_rank_ends_all_and_the_run_goes_on_to_the_same_weights(
    spot: Spot, at: int, rank: int, uninterrupted: Run, tmp_path: Path
) -> None:
    options = [*RANDOM, "--last_checkpoint.every_s=0"]

    killed = _fit(tmp_path, *options, *kill(spot, at, rank=rank))
    codes = killed.end(within_s=30)

    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] == 2
    (said,) = [line for line in killed.lines() if "has died" in line]
    assert "--ckpt_path" in said or "start again" in said
    launched = _fit(tmp_path, *options, "--ckpt_path=auto")
    assert launched.end() == [0, 0], launched.lines()
    assert differences(uninterrupted, _run(tmp_path)) == []


def test_signal_to_one_rank_lets_all_save(uninterrupted: Run, tmp_path: Path) -> None:
    options = [*RANDOM, "--last_checkpoint.every_s=0.05"]

    stopped = _fit(tmp_path, *options, *kill("step", 3, signal.SIGTERM, rank=1))

    assert stopped.end() == [128 + signal.SIGTERM] * 2, stopped.lines()
    (said,) = [line for line in stopped.lines() if "SIGTERM" in line]
    assert str(_run(tmp_path).last) in said
    assert _fit(tmp_path, *options, "--ckpt_path=auto").end() == [0, 0]
    assert differences(uninterrupted, _run(tmp_path)) == []


def test_what_the_user_can_mend_is_said_once(tmp_path: Path) -> None:
    launched = _fit(tmp_path, "--data.batch_size=1")

    assert launched.end() == [2, 2]
    (said,) = launched.lines()
    assert "data.batch_size" in said
    assert not (tmp_path / "lightning_logs").exists()


def test_other_number_of_ranks_goes_on_and_is_told(uninterrupted: Run, tmp_path: Path) -> None:
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(uninterrupted.last.read_bytes())
    options = [*RANDOM, f"--ckpt_path={checkpoint}", "--trainer.max_epochs=3"]

    launched = _fit(tmp_path, *options, num_ranks=1)

    assert launched.end() == [0], launched.lines()
    note = "# from step 26 on: 1 rank instead of 2: other random numbers"
    assert note in _run(tmp_path).config.read_text().splitlines()
    assert load_checkpoint(_run(tmp_path).last)["global_step"] == 39


def _fit_by_lightning(root: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mnist_lit", "fit", f"--trainer.default_root_dir={root}"]
    return subprocess.Popen(
        [*command, *OPTIONS, "--trainer.accelerator=cpu", "--trainer.devices=2", *options],
        env={**os.environ, "PYTHONPATH": HELPERS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _processes_of(root: Path) -> list[bytes]:
    commands = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    return [command for command in commands if str(root).encode() in command]


def test_rank_that_lightning_started_dies_and_no_process_is_left(tmp_path: Path) -> None:
    with _fit_by_lightning(tmp_path, *kill("step", 14, rank=1)) as stopped:
        _, printed = stopped.communicate(timeout=60)

    (said,) = [line for line in printed.splitlines() if line]
    assert "has died; resume with: python -m mnist_lit fit" in said
    assert said.endswith(f"--ckpt_path {_run(tmp_path).last}")
    assert stopped.returncode == 2
    assert not _processes_of(tmp_path)


@pytest.mark.parametrize("delay_s", [0, 3])
def test_death_of_the_launcher_leaves_no_process(delay_s: float, tmp_path: Path) -> None:
    with _fit_by_lightning(tmp_path, "--trainer.max_epochs=1000") as started:
        until = time.monotonic() + 60
        while len(_processes_of(tmp_path)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(delay_s)
        started.kill()
        until = time.monotonic() + 30
        while _processes_of(tmp_path) and time.monotonic() < until:
            time.sleep(0.2)

    assert not _processes_of(tmp_path)


def test_ctrl_c_saves_and_is_said_once(tmp_path: Path) -> None:
    with _fit_by_lightning(tmp_path, "--trainer.max_epochs=1000") as started:
        until = time.monotonic() + 60
        while not _run(tmp_path).last.is_file() and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(started.pid, signal.SIGINT)
        _, printed = started.communicate(timeout=30)

    (said,) = [line for line in printed.splitlines() if line]
    assert said.startswith("SIGINT: stopped; resume with:")
    assert started.returncode == 130
    assert not _processes_of(tmp_path)


def test_two_nodes_meet_and_torchrun_starts_what_died_again(
    uninterrupted: Run, tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    endpoint = f"--rdzv_endpoint=127.0.0.1:{free_port()}"
    command = ["--rdzv_backend=c10d", endpoint, "--max_restarts=2", "-m", "mnist_lit", "fit"]
    options = [f"--trainer.default_root_dir={tmp_path}", *RANDOM, "--ckpt_path=auto"]
    nodes = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=2"]
    environment = {**os.environ, "PYTHONPATH": HELPERS, "OMP_NUM_THREADS": "1"}
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"

    said = tmp_path / "said"
    with said.open("a") as output:
        both = [
            subprocess.Popen(
                [*torchrun, *command, *options, *nodes, *kill("step", 16, rank=1)],
                env=environment,
                stdout=output,
                stderr=output,
            )
            for _ in range(2)
        ]
    try:
        until = time.monotonic() + 120
        codes = [node.wait(max(1, until - time.monotonic())) for node in both]
    finally:
        for node in both:
            node.terminate()

    assert codes == [0, 0], said.read_text()
    assert "from step 13" in said.read_text()
    assert differences(uninterrupted, _run(tmp_path)) == []

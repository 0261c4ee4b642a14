"""Kills trainings at random moments, resumes them, and compares the ends: all bits are the same.

    python tests/studies/kill_at_random.py
    python tests/studies/kill_at_random.py --quick --devices 2

Trains the default config and the strongest one (warps, one-cycle, weight averaging) without any
interruption, then again, killed with SIGKILL 20 times in all. Exits with 1 if anything differs.
About 25 minutes on 2 cores; 5 with --quick, which takes a sixth of the images. With several
devices, a process of them is killed at random, and all have to be gone within 30 seconds.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from same import differences

from mnist_lit.training.run_folders import Run

ROOT = Path(__file__).parents[2]
SHORT = ["--trainer.max_epochs=4", "--trainer.enable_progress_bar=false"]
STRONGEST = [
    *("--data.augment.rotate_deg=8", "--data.augment.shear_deg=6", "--data.augment.scale=0.06"),
    *("--data.augment.shift_px=1.7", "--data.augment.elastic_px=0.7"),
    *("--model.schedule=one_cycle", "--model.lr=0.003", "--model.label_smoothing=0.03"),
    *("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.999"),
]
CONFIGS = {"default": [], "strongest": STRONGEST}


QUICK = ["--data.val_size=50000"]
ALL_GONE_S = 30.0


def fit(root: Path, *options: str) -> subprocess.Popen[bytes]:
    config = [f"--config={ROOT / 'configs' / 'default.yaml'}", *SHORT, *options]
    places = [f"--trainer.default_root_dir={root}", "--last_checkpoint.every_s=3"]
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_lit", "fit", *config, *places],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def run_in(root: Path) -> Run:
    return Run(root / "lightning_logs" / "version_0")


def processes_of(root: Path) -> list[int]:
    """Return the ids of all processes that train in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"--trainer.default_root_dir={root}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return sorted(found)


def kill_one(root: Path, process: subprocess.Popen[bytes], dice: random.Random) -> bool:
    """Kill a process of a training; return True if all of them have ended then."""
    victims = processes_of(root)
    with suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(dice.choice(victims) if victims else process.pid, signal.SIGKILL)
    until = time.monotonic() + ALL_GONE_S
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    while time.monotonic() < until and processes_of(root):
        time.sleep(0.1)
    left = processes_of(root)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return not left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="train on 10,000 images")
    parser.add_argument("--devices", type=int, default=1, help="processes that train together")
    args = parser.parse_args()
    dice = random.Random(args.seed)
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, own in CONFIGS.items():
            options = [*own, *(QUICK if args.quick else [])]
            if args.devices > 1:
                options += ["--trainer.accelerator=cpu", f"--trainer.devices={args.devices}"]
            whole, killed = Path(folder, name), Path(folder, f"{name}-killed")
            started = time.monotonic()
            if fit(whole, *options).wait():
                raise RuntimeError(f"the {name} config does not run")
            seconds = time.monotonic() - started
            kills = args.kills // len(CONFIGS)
            for _ in range(kills):
                # Anywhere from the start to the last figure, as far as this stretch gets.
                resume = ["--ckpt_path=last"] if run_in(killed).config.is_file() else []
                process = fit(killed, *options, *resume)
                time.sleep(dice.uniform(0, 0.6 * seconds))
                are_gone = kill_one(killed, process, dice)
                found += not are_gone
                print(f"{name}: killed{'' if are_gone else ', and one was left'}", flush=True)
            resume = ["--ckpt_path=last"] if run_in(killed).config.is_file() else []
            fit(killed, *options, *resume).wait()
            differing = differences(run_in(whole), run_in(killed))
            print(f"{name}: {kills} kills, {len(differing)} differences {differing}", flush=True)
            found += len(differing)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

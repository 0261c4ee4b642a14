"""Kills trainings at random moments, resumes them, and compares the ends: all bits are the same.

    python tests/studies/kill_at_random.py

Trains the default config and the strongest one (warps, one-cycle, weight averaging) without any
interruption, then again, killed with SIGKILL 20 times in all. Exits with 1 if anything differs.
About 25 minutes on 2 cores.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from same import differences

from mnist_lit.training.runs import Run

ROOT = Path(__file__).parents[2]
SHORT = ["--trainer.max_epochs=4", "--trainer.enable_progress_bar=false"]
STRONGEST = [
    *("--data.augment.rotate_deg=8", "--data.augment.shear_deg=6", "--data.augment.scale=0.06"),
    *("--data.augment.shift_px=1.7", "--data.augment.elastic_px=0.7"),
    *("--model.schedule=one_cycle", "--model.lr=0.003", "--model.label_smoothing=0.03"),
    *("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.999"),
]
CONFIGS = {"default": [], "strongest": STRONGEST}


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    dice = random.Random(args.seed)
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, options in CONFIGS.items():
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
                process.kill()
                process.wait()
                print(f"{name}: killed", flush=True)
            resume = ["--ckpt_path=last"] if run_in(killed).config.is_file() else []
            fit(killed, *options, *resume).wait()
            differing = differences(run_in(whole), run_in(killed))
            print(f"{name}: {kills} kills, {len(differing)} differences {differing}", flush=True)
            found += len(differing)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Check everything that needs a GPU, in one command: one table, and the same as JSON.

    python tests/gpu/check.py                          # about 6 minutes on a data-centre GPU
    python tests/gpu/check.py --device cpu --quick     # the same commands, small, anywhere

Correctness is checked first (these trainings run side by side), then speed (one process at a time).
The JSON file is rewritten after every row, so a run that is cut short leaves what it measured. The
exit code is 1 if a row failed.

A machine without a network gets the missing packages as wheels (tests/gpu/wheels.txt, 12 MB). Where
pip works, with the Python version of that machine:

    pip download --no-deps --only-binary=:all: --python-version 3.12 \
      --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
      -r tests/gpu/wheels.txt -d tests/gpu/wheels

and there:

    pip install --no-index --no-deps --target /tmp/site tests/gpu/wheels/*.whl
    PYTHONPATH=/tmp/site python tests/gpu/check.py
"""

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TESTS = HERE.parent
PLACES = [str(path) for path in (ROOT, HERE, TESTS / "helpers", TESTS / "studies")]
sys.path[:0] = PLACES

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from same import differences  # noqa: E402
from server import running  # noqa: E402
from torchvision.utils import save_image  # noqa: E402

from mnist_lit import __version__  # noqa: E402
from mnist_lit.checkpoints import load_checkpoint  # noqa: E402
from mnist_lit.data.module import MNISTDataModule  # noqa: E402
from mnist_lit.files import atomic_write  # noqa: E402
from mnist_lit.training.classification import LitClassifier  # noqa: E402
from mnist_lit.training.run_folders import Run  # noqa: E402

CPU_TEST_ACC, CPU_SD = 0.9902, 0.0006  # default config, n = 5, README
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "jsonargparse", "numpy")
# Random numbers in every step: a resumed run differs at once if any generator is not restored.
RANDOM = ["--data.augment.rotate_deg=8", "--data.augment.elastic_px=0.7"]
SHORT = ["--data.batch_size=1000", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=10"]
KILL = ["--trainer.callbacks+=kill.Kill", "--trainer.callbacks.spot=step"]


Outcome = tuple[str, bool | None]
"""Text of a row and its verdict; None where there is nothing to judge."""


class CommandError(RuntimeError):
    """A command ended with another exit code than expected; the message is its last output."""


@dataclass
class Check:
    """The rows measured so far, and how to measure more.

    Args:
        device: cpu or cuda.
        quick: few batches instead of whole epochs; targets are then not judged.
        folder: for runs; each row has a folder of its own in it.
        path: of the JSON file.

    Attributes:
        images_per_s: of the default config, once that was measured.
    """

    device: str
    quick: bool
    folder: Path
    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    images_per_s: float = math.nan

    def row(self, name: str, measure: Callable[..., Outcome], *arguments: object) -> None:
        """Measure one row; an error becomes a failed row.

        Args:
            name: shown in front.
            measure: called with this object, an empty folder, and the arguments.
            *arguments: more for `measure`.
        """
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        start = time.monotonic()
        try:
            found, is_right = measure(self, folder, *arguments)
        except Exception as error:  # a row that fails must not cost the others
            found, is_right = f"{type(error).__name__}: {error}", False
        seconds = round(time.monotonic() - start, 1)
        self.rows.append({"row": name, "found": found, "ok": is_right, "seconds": seconds})
        print(f"{name}: {found} [{seconds} s]", file=sys.stderr, flush=True)
        self.write()

    def write(self) -> None:
        report = {"machine": machine(self.device), "quick": self.quick, "rows": self.rows}
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def command(self, *arguments: str, expected: int = 0) -> str:
        """Run ``python ARGUMENTS``.

        Returns:
            What it printed on standard output.

        Raises:
            CommandError: it ended with another exit code than expected.
        """
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        if done.returncode != expected:
            raise CommandError(f"exit code {done.returncode}: {done.stderr[-600:]}")
        return done.stdout

    def fit(self, folder: Path, *options: str, expected: int = 0, device: str = "") -> Run:
        """Train below a folder, in ``lightning_logs/version_0`` there."""
        limits = ["--trainer.limit_train_batches=30"] if self.quick else []
        self.command(
            *("-m", "mnist_lit", "fit", *options, *limits),  # a --config may be among the options
            f"--trainer.default_root_dir={folder}",
            f"--trainer.accelerator={device or self.device}",
            "--trainer.enable_progress_bar=false",
            expected=expected,
        )
        return Run(folder / "lightning_logs" / "version_0")

    def epochs(self, number: int) -> str:
        return f"--trainer.max_epochs={1 if self.quick else number}"

    def target(self, is_reached: bool) -> bool | None:
        """Judge an accuracy or a speed, which a quick check cannot."""
        return None if self.quick else is_reached


def results(run: Run) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(run.results.read_text())
    return loaded


def machine(device: str) -> dict[str, Any]:
    """The device and the versions that figures were measured with."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    found = {package: version(package) for package in PACKAGES}
    cuda = torch.version.cuda if device == "cuda" else None
    return {
        "device": name or device,
        "cuda": cuda,
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "mnist_lit": __version__,
        **found,
    }


# --- correctness -------------------------------------------------------------------------------


def resumed(check: Check, folder: Path, *options: str) -> Outcome:
    """Compare a run that was killed and resumed with one that was not."""
    options = ("--config=default", *SHORT, *RANDOM, *options)  # not the run's: it kills itself
    whole = check.fit(folder / "whole", *options)
    kill = [*KILL, f"--trainer.callbacks.at={18 if check.quick else 80}"]
    fast = "--last_checkpoint.every_s=0.05"
    check.fit(folder / "killed", *options, *kill, fast, expected=-9)
    killed = check.fit(folder / "killed", *options, fast, "--ckpt_path=last")
    differing = differences(whole, killed)
    if not differing:
        return "bit-identical", True
    first, second = (load_checkpoint(run.last)["state_dict"] for run in (whole, killed))
    largest = max(float((first[name] - second[name]).abs().max()) for name in first)
    return f"{len(differing)} differences, weights by {largest:.1e} at most", False


def resumed_as_is(check: Check, folder: Path) -> Outcome:
    """Resume on CUDA without `deterministic`, for which nothing is promised."""
    found, is_right = resumed(check, folder)
    return found, is_right or None


def moved(check: Check, folder: Path, first: str, second: str) -> Outcome:
    """Begin a run on one device, resume it on another one, and read with what it learned."""
    run = check.fit(folder, *SHORT, device=first)
    before = results(run)["val/acc"]
    check.fit(folder, *SHORT, "--trainer.max_epochs=3", "--ckpt_path=last", device=second)
    after = results(run)
    found = f"epochs {after['epochs']} on {after['device']}, validation {before:.2%} to "
    return f"{found}{after['val/acc']:.2%}", after["epochs"] == 3 and after["val/acc"] > before


def used(check: Check, folder: Path) -> Outcome:
    """Predict, serve and export with a checkpoint that was trained on the device."""
    data = MNISTDataModule()
    data.setup()
    pixels, label = data.images("test").pixels[:1], int(data.images("test").chosen_labels[0])
    picture = folder / "digit.png"
    save_image(torch.nn.functional.pad(pixels / 255, [8] * 4), picture)
    run = check.fit(folder, *SHORT)
    ckpt_path = f"--ckpt_path={run.best}"
    printed = check.command("-m", "mnist_lit", "predict", str(picture), "--format=json", ckpt_path)
    answers = {"predict": json.loads(printed)["number"]}
    with running(ckpt_path) as server:
        answers["serve"] = server.predict(picture.read_bytes())[1]["number"]
    model = f"--output={folder / 'model.onnx'}"
    check.command("-m", "mnist_lit", "export", ckpt_path, model)
    accelerator = f"--trainer.accelerator={check.device}"
    check.command("-m", "mnist_lit", "test", ckpt_path, accelerator)
    said = f"a {label} is read {answers}; exported and compared; tested"
    return said, check.target(set(answers.values()) == {str(label)})


def ddp(check: Check, folder: Path) -> Outcome:
    """Train by DistributedDataParallel in one process: NCCL on CUDA, gloo on a CPU."""
    run = check.fit(folder, *SHORT, "--trainer.strategy=ddp", "--trainer.devices=1")
    found = results(run)
    return f"validation {found['val/acc']:.2%}, {found['images_per_s']:,.0f} images/s", True


def sweep(check: Check, folder: Path) -> Outcome:
    limits = ["--trainer.limit_train_batches=10"] if check.quick else []
    check.command(
        *("-m", "mnist_lit", "sweep", "--n_trials=2", *SHORT, "--trainer.max_epochs=1", *limits),
        f"--trainer.accelerator={check.device}",
        f"--trainer.default_root_dir={folder}",
    )
    trials = (folder / "lightning_logs" / "sweep_0" / "trials.csv").read_text().splitlines()
    return f"{len(trials) - 1} trials", len(trials) == 3


def precision(check: Check, folder: Path, name: str) -> Outcome:
    options = ["--config=wide", check.epochs(2), "--early_stopping=null"]
    found = results(check.fit(folder, *options, f"--trainer.precision={name}"))
    said = f"test {found['test/acc']:.2%} after {found['epochs']} epochs,"
    return f"{said} {found['images_per_s']:,.0f} images/s", check.target(found["test/acc"] > 0.95)


# --- speed -------------------------------------------------------------------------------------


def default(check: Check, folder: Path) -> Outcome:
    """Train the default config as the README says, and observe the GPU meanwhile."""
    observed = folder / "gpu.json"
    observe = ["--trainer.callbacks+=observer.GPUObserver", f"--trainer.callbacks.path={observed}"]
    found = results(check.fit(folder, check.epochs(10), *observe))
    said = f"test {found['test/acc']:.2%}, {found['fit_seconds']:.1f} s"
    if observed.is_file():
        gpu = json.loads(observed.read_text())
        shutil.copy(observed, check.path.with_name("gpu_check_waits.json"))
        said += f", peak {gpu['peak_mib']:.0f} MiB, {gpu['waits_per_step']:.2f} waits a step"
    return said, check.target(found["test/acc"] >= CPU_TEST_ACC - 3 * CPU_SD)


def beside_bare_loop(check: Check, folder: Path, batch_size: int, target: float) -> Outcome:
    """Images a second of `fit` with everything on, and of the bare loop, in turn."""
    num_epochs = 3 if batch_size <= 100 else 8
    num_rounds = 1 if check.quick else 3
    epochs = ["--epochs", "1" if check.quick else str(num_epochs)]
    options = [f"--data.batch_size={batch_size}", check.epochs(num_epochs)]
    pairs = []
    for number in range(num_rounds):
        loop = [str(TESTS / "benchmarks" / "loops.py"), "bare", *epochs]
        loop += ["--batch_size", str(batch_size), "--device", check.device]
        bare = json.loads(check.command(*loop))["images_per_s"]
        own = results(check.fit(folder / str(number), *options))["images_per_s"]
        pairs.append((own, bare))
    ratio = median(own / bare for own, bare in pairs)
    own, bare = (median(each) for each in zip(*pairs, strict=True))
    if batch_size == 100:
        check.images_per_s = own
    ratios = ", ".join(f"{own / bare:.2f}" for own, bare in pairs)
    said = f"{own:,.0f} images/s, bare loop {bare:,.0f}: {ratio:.2f} ({ratios})"
    return said, check.target(ratio >= target)


def deterministic_cost(check: Check, folder: Path) -> Outcome:
    run = check.fit(folder, check.epochs(3), "--trainer.deterministic=true")
    images_per_s, without = results(run)["images_per_s"], check.images_per_s
    said = f"{images_per_s:,.0f} images/s, {without:,.0f} without: {images_per_s / without:.2f}"
    return said, None


def packaged(check: Check, folder: Path, name: str, most_seconds: float = math.inf) -> Outcome:
    limit = [check.epochs(1)] if check.quick else []
    found = results(check.fit(folder, f"--config={name}", *limit))
    said = f"test {found['test/acc']:.2%}, {found['fit_seconds']:.1f} s of training"
    said += f", {found['images_per_s']:,.0f} images/s"
    is_right = found["test/acc"] >= 0.99 and found["fit_seconds"] <= most_seconds
    return said, check.target(is_right)


def profile(check: Check, folder: Path) -> Outcome:
    """Split the time of a step of 100 images: the network, the data path, and the rest.

    The rest is Lightning with callbacks, logging and checkpoints: what a step of `fit` takes beyond
    the two parts, each measured alone.
    """
    num_steps = 30 if check.quick else 500
    device = torch.device(check.device)
    data, model = MNISTDataModule(), LitClassifier()
    data.setup()
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    images = data.images("train").to(device)
    positions = torch.split(torch.randperm(len(images), device=device)[: 100 * num_steps], 100)
    fixed, labels = data.on_after_batch_transfer(images[positions[0]], 0)

    def network_step(_: object) -> None:
        loss = torch.nn.functional.cross_entropy(model(fixed), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    def data_step(chosen: torch.Tensor) -> None:
        data.on_after_batch_transfer(images[chosen], 0)

    network_ms = milliseconds_per_step(network_step, positions, device)
    data_ms = milliseconds_per_step(data_step, positions, device)
    whole_ms = 1000 * 100 / check.images_per_s
    profiler = ["--trainer.profiler=SimpleProfiler", f"--trainer.profiler.dirpath={folder}"]
    check.fit(folder / "profiled", check.epochs(1), *profiler, "--trainer.profiler.filename=hooks")
    shutil.copy(folder / "fit-hooks.txt", check.path.with_name("gpu_check_hooks.txt"))
    said = f"{whole_ms:.3f} ms a step: network {network_ms:.3f}, data {data_ms:.3f}"
    return f"{said}, Lightning, logs and the rest {whole_ms - network_ms - data_ms:.3f}", None


def milliseconds_per_step(
    step: Callable[[torch.Tensor], None], batches: Sequence[torch.Tensor], device: torch.device
) -> float:
    for batch in batches[:10]:  # the first steps choose kernels
        step(batch)
    _wait(device)
    start = time.perf_counter()
    for batch in batches:
        step(batch)
    _wait(device)
    return 1000 * (time.perf_counter() - start) / len(batches)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


# --- all of it ---------------------------------------------------------------------------------


def run_all(check: Check) -> None:
    on = check.device
    independent: list[tuple[Any, ...]] = [
        ("resume, deterministic", resumed, "--trainer.deterministic=true"),
        ("resume, not deterministic", resumed_as_is),
        (f"{on} checkpoint on cpu", moved, on, "cpu"),
        (f"cpu checkpoint on {on}", moved, "cpu", on),
        ("predict, serve, export, test", used),
        ("ddp with 1 device", ddp),
        ("sweep of 2 trials", sweep),
    ]
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as threads:
        list(threads.map(lambda row: check.row(*row), independent))
    check.row("default config", default)
    check.row("fit beside the bare loop, batch 100", beside_bare_loop, 100, 0.8)
    check.row("fit beside the bare loop, batch 1000", beside_bare_loop, 1000, 0.95)
    check.row("speedrun", packaged, "speedrun", 3)
    check.row("profile of a step", profile)
    check.row("cost of deterministic", deterministic_cost)
    check.row("wide, 16-mixed", precision, "16-mixed")
    check.row("wide, bf16-mixed", precision, "bf16-mixed")
    check.row("best", packaged, "best")
    check.row("wide", packaged, "wide")


def table(check: Check) -> Table:
    shown = Table(title=" ".join(f"{k} {v}" for k, v in machine(check.device).items()))
    for heading in ("", "found", "ok", "s"):
        shown.add_column(heading, overflow="fold")
    for row in check.rows:
        judged = {True: "yes", False: "NO", None: "-"}[row["ok"]]
        shown.add_row(row["row"], row["found"], judged, f"{row['seconds']:.0f}")
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="few batches; targets not judged")
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"))
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([*PLACES, os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        check = Check(args.device, args.quick, Path(folder), args.output.resolve())
        run_all(check)
    Console(width=140).print(table(check), markup=False)
    return int(any(row["ok"] is False for row in check.rows))


if __name__ == "__main__":
    sys.exit(main())

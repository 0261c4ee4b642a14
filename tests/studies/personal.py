"""Measures what corrections teach: errors on a hand before and after, and what MNIST loses.

    python tests/studies/personal.py

Six hands are made of the 5,000 digits that the packaged network was not trained on: slanted either
way, flat, by a marker, turned, and with the 1s, 7s and 9s of much of the world. Of 3,500 digits of
a hand, the first that are misread are corrected, as somebody would at the page; errors are counted
on the other 1,500. With --choose, they are counted on 1,500 of the 3,500 instead. MNIST's accuracy
is that of its test images. Other options are those of fit. About four minutes on 2 cores.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_lit import Classifier, MNISTDataModule
from mnist_lit.__main__ import main as run_command
from mnist_lit.data.styles import STROKES, Stroke, with_styles
from mnist_lit.serve.corrections import Corrections
from mnist_lit.training.calibration import calibration_error
from mnist_lit.training.run_folders import Run

NUM_POOL = 3500  # digits of a hand from which corrections come
NUM_CHOOSE = 1500  # of them, to measure on while a config is chosen


def affine(images: Tensor, rows: list[list[float]]) -> Tensor:
    grid = F.affine_grid(
        torch.tensor([rows]).expand(len(images), 2, 3), list(images.shape), align_corners=False
    )
    return F.grid_sample(images, grid, align_corners=False)


def marker(images: Tensor) -> Tensor:
    """Thicken strokes to twice their width or more."""
    thick = F.max_pool2d(images, 5, stride=1, padding=2)
    return torch.lerp(images, thick, 0.8)


HANDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "slanted right": lambda images, _: affine(images, [[1, 0.65, 0], [0, 1, 0]]),
    "slanted left": lambda images, _: affine(images, [[1, -0.65, 0], [0, 1, 0]]),
    "flat": lambda images, _: affine(images, [[0.85, 0, 0], [0.15, 1.9, 0]]),
    "marker": lambda images, _: marker(images),
    "leaning lines": lambda images, _: affine(images, [[0.8, 0.6, 0], [-0.6, 0.8, 0]]),
    "elsewhere": lambda images, labels: elsewhere(images, labels),
}
LONG = {
    **STROKES,
    1: (Stroke(at=(0.0, 0.0), angle_deg=(130, 150), ahead=(0.8, 1.0)),),
    9: (Stroke(at=(1.0, 1.0), angle_deg=(175, 200), ahead=(0.5, 0.8)),),
}


def elsewhere(images: Tensor, labels: Tensor) -> Tensor:
    """Write 1s with a long upstroke, 7s with a bar and 9s with a hook; turn the others a little."""
    turned = affine(images, [[0.9, 0.42, 0], [-0.42, 0.9, 0]])
    return with_styles(turned, labels, 1.0, LONG)


def errors(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Return which images are misread, ``(N,)`` bool."""
    return classifier.probabilities(images).argmax(1) != labels


def teach(root: Path, images: Tensor, labels: Tensor, given: Sequence[str] = ()) -> Classifier:
    """Fine-tune the packaged network on corrections."""
    corrections = Corrections(root / "corrections")
    for image, label in zip(images, labels.tolist(), strict=True):
        corrections.keep((image * 255).round().byte().numpy().tobytes(), label)
    options = ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={root}"]
    place = f"--data.dataset={corrections.folder}"
    if run_command(["fit", "--config", "personal", place, *options, *given]):
        raise RuntimeError("the training failed")
    return Classifier.load(Run(root / "lightning_logs" / "version_0").best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corrections", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--choose", action="store_true")
    args, given = parser.parse_known_args()
    torch.manual_seed(0)
    data = MNISTDataModule()
    data.setup()
    numbers = data.images("val").indices
    originals, labels = data.images("val").pixels[numbers] / 255, data.images("val").labels[numbers]
    test, truth = data.images("test").pixels, data.images("test").chosen_labels
    packaged = Classifier.load()
    known = errors(packaged, test, truth).double().mean().item()
    rows: dict[int, list[tuple[float, float, float, float]]] = {}
    for hand, write in HANDS.items():
        images = write(originals, labels).clamp(0, 1)
        if args.choose:
            images = images[:NUM_POOL]
        num_pool = NUM_POOL - NUM_CHOOSE if args.choose else NUM_POOL
        wrong = errors(packaged, images, labels[: len(images)])
        misread = wrong[:num_pool].nonzero()[:, 0]
        rest, of_rest = images[num_pool:], labels[num_pool : len(images)]
        before = wrong[num_pool:].double().mean().item()
        for num in args.corrections:
            with tempfile.TemporaryDirectory() as folder:
                chosen = misread[:num]
                taught = teach(Path(folder), images[chosen], labels[chosen], given)
            after = errors(taught, rest, of_rest).double().mean().item()
            lost = errors(taught, test, truth).double().mean().item() - known
            off = calibration_error(taught.probabilities(rest), of_rest)
            rows.setdefault(num, []).append((before, after, lost, off))
            print(
                f"{hand}, {len(chosen)} corrections: errors {before:.2%} -> {after:.2%},"
                f" MNIST loses {lost:.2%}, confidence off by {off:.2%}",
                flush=True,
            )
    print("\nmeans (standard deviations) over", len(HANDS), "hands")
    for num, measured in rows.items():
        share = [after / before for before, after, *_ in measured]
        losses = [row[2] for row in measured]
        print(
            f"{num} corrections: {mean(share):.2f} ({stdev(share):.2f}) of the errors left,"
            f" MNIST loses {mean(losses):.2%} ({stdev(losses):.2%})"
        )


if __name__ == "__main__":
    main()

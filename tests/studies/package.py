"""Make a run's best network the packaged one, and write down how well the packaged ones read.

    python tests/studies/package.py [lightning_logs/version_N [--share 0.3]]

writes ``mnist_lit/weights/mnist.pt``, or of a detector's run ``detector.pt``, and the table in the
model card beside it: test images, nothing chosen by them.
"""

import argparse
import re
from pathlib import Path

import stress
import torch
from rich.progress import track
from torch import Tensor

from mnist_lit.checkpoints import load_checkpoint
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.files import atomic_write
from mnist_lit.reading.classifier import PACKAGED_CLASSIFIER, Classifier
from mnist_lit.reading.detector import PACKAGED_DETECTOR
from mnist_lit.training.calibration import calibration_error
from mnist_lit.training.run_folders import Run

CARD = PACKAGED_CLASSIFIER.with_name("README.md")
KEPT = ("mnist_lit", "hyper_parameters", "state_dict", "temperature", "classes")
TABLE = r"^(\|---\|---\|\n)(\|.*\n)*"  # of two columns
NUM_PICTURES = 500  # of each kind


def measure(classifier: Classifier) -> dict[str, float]:
    """All figures of the card that take no pictures, as shares."""
    data = MNISTDataModule()
    data.setup()
    test = data.images("test")
    probs = classifier.probabilities(test.pixels)
    figures = {f"test images, {name}": stress.accuracy(classifier, name, "test")
               for name in stress.PENS_AND_SCANNERS}  # fmt: skip
    return {**figures, "calibration error": calibration_error(probs, test.chosen_labels)}


def read_card() -> dict[str, float]:
    """The figures that the card states, as shares."""
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) % \|$", CARD.read_text(), re.MULTILINE)
    return {name: float(percent) / 100 for name, percent in rows}


def _write_card(figures: dict[str, float]) -> None:
    rows = "".join(
        f"| {name} | {share:.2%} |\n".replace("%", " %") for name, share in figures.items()
    )
    with atomic_write(CARD) as path:
        path.write_text(re.sub(TABLE, rf"\g<1>{rows}", CARD.read_text(), flags=re.MULTILINE))


def averaged(new: dict[str, Tensor], old: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights between the old and the new ones; counts are the new ones.

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models" (2022).
    """
    return {
        name: torch.lerp(old[name].float(), part, share) if part.is_floating_point() else part
        for name, part in new.items()
    }


def half(weights: Tensor) -> Tensor:
    """Weights of 16 bits; counts stay what they are."""
    return weights.half() if weights.is_floating_point() else weights


def package(run: Path, share: float) -> None:
    """Package the best network of a run, or its average with the packaged one."""
    checkpoint = load_checkpoint(Run(run).best)
    kept = {name: checkpoint[name] for name in KEPT if name in checkpoint}
    is_detector = "width" in kept["hyper_parameters"]
    packaged = PACKAGED_DETECTOR if is_detector else PACKAGED_CLASSIFIER
    if share < 1:
        old = load_checkpoint(packaged)
        kept["state_dict"] = averaged(kept["state_dict"], old["state_dict"], share)
    if is_detector:  # half of the bits say as much, as training with bfloat16 shows
        kept["state_dict"] = {name: half(part) for name, part in kept["state_dict"].items()}
    with atomic_write(packaged) as path:
        torch.save(kept, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Package the best network of a run, and measure the packaged ones."
    )
    parser.add_argument("run", type=Path, nargs="?", help="default: measure the packaged ones")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of its weights; the rest: the packaged ones"
    )
    given = parser.parse_args()
    if given.share < 1 and not given.run:
        parser.error("--share is of a run's weights: name the run")
    if given.run:
        package(given.run, given.share)
    classifier = Classifier.load()
    figures = measure(classifier)
    for kind in track(stress.KINDS, "reading"):
        figures[kind] = stress.share_right(classifier, stress.make(kind, "test", NUM_PICTURES))
    figures[stress.OTHER_WRITERS] = stress.share_right(classifier, stress.other_writers())
    _write_card(figures)


if __name__ == "__main__":
    main()

"""Compare an exported network with the original: its answers and its speed."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor

from mnist_lit.checkpoints import load_checkpoint
from mnist_lit.data.downloads import DOWNLOADS
from mnist_lit.data.images import Pixels
from mnist_lit.data.sources import SOURCES, default_data_dir, load
from mnist_lit.errors import UserError, one_line
from mnist_lit.files import user_path
from mnist_lit.models import Shape
from mnist_lit.reading.classifier import BATCH_SIZE, PACKAGED, Classifier

MAX_DIFFERENCE = 1e-4  # of two probabilities
NUM_RANDOM = 10_000


class Images(NamedTuple):
    """Images that both networks classify.

    Attributes:
        pixels: ``(N, C, H, W)`` uint8.
        what: a noun for them.
    """

    pixels: Pixels
    what: str


@dataclass
class Agreement:
    """Agreement of two networks.

    Attributes:
        images: those compared.
        num_other: number of images that are classified differently.
        largest: largest difference of two probabilities.
        seconds: time that PyTorch took, and ONNX Runtime.
    """

    images: Images
    num_other: int = 0
    largest: float = 0.0
    seconds: tuple[float, float] = (0.0, 0.0)

    def __str__(self) -> str:
        num = len(self.images.pixels)
        torch_per_s, onnx_per_s = (f"{num / taken:,.0f}" for taken in self.seconds)
        return (
            f"{num:,} {self.images.what}: the same answers,"
            f" probabilities within {self.largest:.0e}\n"
            f"images/s: {torch_per_s} in PyTorch, {onnx_per_s} in ONNX Runtime"
        )


def images_to_compare(ckpt_path: str | None, shape: Shape) -> Images:
    """Load the test images of the data set that a checkpoint's network was trained on.

    Random images take their place if they cannot be had, and for a data set of one's own: a
    checkpoint is data, and a function that it names is never called.
    """
    checkpoint = load_checkpoint(PACKAGED if ckpt_path is None else user_path(ckpt_path))
    config = checkpoint["mnist_lit"]["config"]["data"]
    config = config.get("init_args", config)  # of a data module that is named by its class
    dataset, side = str(config["dataset"]), config.get("image_size") and shape.image_size
    size = shape.in_channels, shape.image_size, shape.image_size
    try:
        if dataset in (*SOURCES, *DOWNLOADS) or Path(dataset).expanduser().is_dir():
            pixels, _ = load(dataset, _data_dir(config), side).test
            if pixels[torch.tensor([0])].shape[1:] == size:
                return Images(pixels, f"test images of {dataset}")
    except UserError:
        pass  # no network, for instance
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(256, (NUM_RANDOM, *size), dtype=torch.uint8, generator=generator)
    return Images(random, f"random images, because those of {dataset} cannot be had here")


def _data_dir(config: dict[str, Any]) -> Path:
    """Return the folder of the data set; never a new one: anybody can have written a checkpoint."""
    given = config.get("data_dir")
    return Path(given) if given and Path(given).is_dir() else default_data_dir()


def compare(model: ModelProto, classifier: Classifier, images: Images) -> Agreement:
    """Classify all images with both networks.

    Raises:
        UserError: their answers differ, or the exported one cannot be run.
    """
    agreement = Agreement(images)
    try:
        run = _in_onnxruntime(model)
        for batch in _batches(images.pixels):
            _compare_batch(agreement, batch, classifier.probabilities, run)
    except UserError:
        raise
    except Exception as error:  # of ONNX Runtime, which has its own
        raise UserError(f"ONNX Runtime cannot run this network: {one_line(error)}") from error
    if agreement.num_other or agreement.largest > MAX_DIFFERENCE:
        raise UserError(
            f"as ONNX, this network answers {agreement.num_other} of {len(images.pixels)} images"
            f" otherwise; probabilities differ by {agreement.largest:.1e}: nothing was written"
        )
    return agreement


def _batches(pixels: Pixels) -> Iterator[Tensor]:
    for numbers in torch.split(torch.arange(len(pixels)), BATCH_SIZE):
        yield pixels[numbers] / 255


def _compare_batch(
    agreement: Agreement,
    images: Tensor,
    original: Callable[[Tensor], Tensor],
    exported: Callable[[Tensor], Tensor],
) -> None:
    start = time.perf_counter()
    expected = original(images)
    middle = time.perf_counter()
    probs = exported(images)
    end = time.perf_counter()
    in_torch, in_onnx = agreement.seconds
    agreement.seconds = in_torch + middle - start, in_onnx + end - middle
    agreement.num_other += int((expected.argmax(1) != probs.argmax(1)).sum())
    differences = (expected - probs).abs().nan_to_num(math.inf)
    agreement.largest = max(agreement.largest, float(differences.max()))


def _in_onnxruntime(model: ModelProto) -> Callable[[Tensor], Tensor]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (probs,) = session.run(["probabilities"], {"images": images.numpy()})
        return torch.from_numpy(probs)

    return run

"""`Classifier`: from a checkpoint to probabilities, and to what a picture says."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_lit.checkpoints import load_checkpoint, network_state
from mnist_lit.errors import UserError, one_line
from mnist_lit.files import user_path
from mnist_lit.finder.detector import Detector
from mnist_lit.finder.merging import merged
from mnist_lit.models import ModuleSpec, Network, Shape, paper_and_ink
from mnist_lit.pictures import (
    FRAME,
    Found,
    FoundDigit,
    Picture,
    find_digits,
    halves,
    lines,
    pages_of,
)
from mnist_lit.pictures.sheet import Sheet
from mnist_lit.reading import Digit, Reading
from mnist_lit.segmentation import SURE, cost_of_cut, doubtful, likeliest

DIGITS = tuple("0123456789")
PACKAGED = Path(__file__).parent / "weights" / "mnist.pt"
BATCH_SIZE = 500  # images at a time; more are no faster
LOOK_DEG = 8.0  # how far a digit is turned or slanted when it is looked at again
CLEAR = 0.99  # how probable all digits of a canvas are that no finder needs to look at
MAX_CUT = 64  # digits of a picture, the least sure ones; one with more of them is no writing
CUT_AT_ONCE = 32  # digits, each of which is cut in some ten ways: their images take memory

TOO_MUCH_INK = "too much ink: not all of it was looked at, or not as closely as usual"


class Classifier:
    """A trained network that is only asked, never trained.

    Args:
        network: images in [0, 1] to logits.
        temperature: what the logits are divided by: above 1, less sure.
        classes: what they mean, K names.
        shape: what the network was made to fit.
        finder: whether the packaged finder helps to read pictures.
    """

    def __init__(
        self,
        network: nn.Module,
        temperature: float = 1.0,
        classes: Sequence[str] = DIGITS,
        shape: Shape = Shape(),  # noqa: B008, it cannot be changed
        finder: bool = True,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.temperature = temperature
        self.classes = tuple(classes)
        self.shape = shape
        self.finder = finder

    @classmethod
    def load(
        cls,
        path: str | PathLike[str] | None = None,
        network: type[nn.Module] | None = None,
        finder: bool = True,
    ) -> Self:
        """Load the packaged network, or the one of a checkpoint.

        Args:
            path: a checkpoint that `fit` wrote; None: the packaged network.
            network: the class of the checkpoint's network, if it is none of this package: what a
                checkpoint names itself is never looked for.
            finder: whether the packaged finder helps it to read pictures.

        Raises:
            UserError: it cannot be read, is of another version, or of a class that was not given.
        """
        path = PACKAGED if path is None else user_path(path)
        checkpoint = load_checkpoint(path)
        try:
            hyper_parameters = checkpoint["hyper_parameters"]
            spec = ModuleSpec(**hyper_parameters["network"], trusted=network)
            sizes = {
                name: hyper_parameters[name] for name in Shape._fields & hyper_parameters.keys()
            }
            shape, classes = Shape(**sizes), checkpoint["classes"]
            loaded = spec.build(shape)
            loaded.load_state_dict(network_state(checkpoint))
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} holds a network that this version does not know") from error
        classifier = cls(loaded, checkpoint.get("temperature", 1.0), classes, shape, finder)
        classifier._check(path)
        return classifier

    def _check(self, path: Path) -> None:
        """Ask about nothing but paper, and nothing but ink.

        Raises:
            UserError: the answer is none.
        """
        try:
            probs = self.probabilities(paper_and_ink(self.shape))
        except Exception as error:  # of whatever the network was made of
            raise UserError(f"{path} holds a network that cannot run: {one_line(error)}") from error
        if probs.shape != (2, len(self.classes)) or not probs.isfinite().all():
            raise UserError(f"{path} holds a network whose answers are no probabilities")

    def probabilities(self, images: Tensor) -> Tensor:
        """How probable each digit is.

        Args:
            images: ``(B, C, H, W)``, of digits ``(B, 1, 28, 28)``, float in [0, 1] or uint8; of
                digits, ink is 1 (or 255), paper 0.

        Returns:
            ``(B, K)``; each row's sum is 1.
        """
        _, channels, side = self.shape
        if images.shape[1:] != (channels, side, side):
            expected = f"(B, {channels}, {side}, {side})"
            raise ValueError(f"images are {expected}, not {tuple(images.shape)}")
        return self._log_probabilities(images).exp()

    def _log_probabilities(self, images: Tensor) -> Tensor:
        # The network may change its input in place.
        images = images.clone() if images.is_floating_point() else images / 255
        with torch.no_grad():
            logits = [self.network(batch) for batch in torch.split(images, BATCH_SIZE)]
            return (torch.cat(logits) / self.temperature).log_softmax(dim=1)

    def feature_maps(self, images: Tensor) -> Tensor:
        """How strongly each filter of the first convolution answers, everywhere in an image.

        It is what the filters' weights (and biases) alone say: before pooling or normalisation.

        Args:
            images: ``(B, 1, 28, 28)`` float in [0, 1].

        Returns:
            ``(B, C, H, W)`` from 0 on, for the C filters; of a network without any, C is 0.
        """
        for layer in self.network.modules():
            if isinstance(layer, nn.Conv2d):
                if isinstance(self.network, Network):
                    return F.relu(layer(self.network.normalise(images)))
                return F.relu(_output_of(layer, self.network, images))
        return images[:, :0]

    def read(self, picture: Picture | Tensor) -> Reading:
        """Read the digits in a picture, and of a file with several pages those of the first.

        Args:
            picture: a path, the bytes of a file, a PIL image, or a grey or RGB image as NumPy array
                or tensor, channels last or first, uint8 or float in [0, 1].

        >>> from PIL import Image, ImageDraw
        >>> paper = Image.new("L", (100, 140), "white")
        >>> ImageDraw.Draw(paper).line([(55, 10), (48, 130)], fill="black", width=9)
        >>> reading = Classifier.load().read(paper)
        >>> reading.number, reading.confidence > 0.9
        ('1', True)

        Raises:
            PictureError: it cannot be read.
            UserError: the network was trained on something else.
        """
        return self.read_found([find_digits(_without_torch(picture))])[0]

    def read_pages(self, picture: Picture | Tensor) -> list[Reading]:
        """Read all pages of a PDF, a TIFF or an animation; anything else has one.

        Args:
            picture: as for `read`.

        Raises:
            PictureError: one of them cannot be read.
            UserError: the network was trained on something else.
        """
        pages = pages_of(_without_torch(picture))
        return [self.read_found([find_digits(page)])[0] for page in pages]

    def read_found(self, pictures: Sequence[Found]) -> list[Reading]:
        """Read pictures whose digits have been found already, all of them in one batch.

        Raises:
            UserError: the network was trained on something else.
        """
        if self.classes != DIGITS or self.shape != Shape():
            names = ", ".join(self.classes[:3])
            raise UserError(
                f"this network was trained on other classes ({names}): it reads no digits"
            )
        whole = iter(self._classify([digit for found in pictures for digit in found.digits]))
        read = [list(islice(whole, len(found.digits))) for found in pictures]
        unsure = [doubtful(*both) for both in zip(pictures, read, strict=True)]
        as_one_or_two = iter(self._as_one_or_two(pictures, read, unsure))
        readings = []
        for found, each, numbers in zip(pictures, read, unsure, strict=True):
            digits = [digit for place in found.places for digit in likeliest(place, as_one_or_two)]
            left_out = "" if found.complete and len(numbers) <= MAX_CUT else TOO_MUCH_INK
            if self.finder and found.sheet and not (left_out or _is_clear(found.sheet, digits)):
                seen = Detector.packaged().detect(found.sheet.ink, found.sheet.sizes)
                digits = digits if seen is None else merged(found.sheet, each, seen)
            readings.append(_reading(digits, "; ".join(filter(None, (left_out, found.note)))))
        return readings

    def _as_one_or_two(
        self,
        pictures: Sequence[Found],
        read: Sequence[Sequence[Digit]],
        unsure: Sequence[Sequence[int]],
    ) -> list[list[Digit]]:
        """All digits of all pictures, each as one, or as two that touch where that is likelier."""
        best = [[[digit] for digit in digits] for digits in read]
        places = [(p, n) for p, numbers in enumerate(unsure) for n in numbers[:MAX_CUT]]
        for start in range(0, len(places), CUT_AT_ONCE):
            some = places[start : start + CUT_AT_ONCE]
            cuts = [(p, n, cut) for p, n in some for cut in halves(pictures[p].digits[n])]
            parts = iter(self._classify([half for *_, cut in cuts for half in cut]))
            for p, n, _ in cuts:
                best[p][n] = min(best[p][n], [next(parts), next(parts)], key=cost_of_cut)
        return [digits for picture in best for digits in picture]

    def _classify(self, found: Sequence[FoundDigit]) -> list[Digit]:
        if not found:
            return []
        images = torch.from_numpy(np.stack([digit.image for digit in found]))
        logs = self._log_probabilities(images)
        unsure = (logs.amax(dim=1) < math.log(SURE)).nonzero().flatten()
        for start in range(0, len(unsure), BATCH_SIZE):
            some = unsure[start : start + BATCH_SIZE]
            logs[some] = self._look_again(images[some], logs[some])
        return [
            Digit(int(prob.argmax()), float(prob.max()), digit.box, prob, image)
            for digit, prob, image in zip(found, logs.exp(), images, strict=True)
        ]

    def _look_again(self, images: Tensor, logs: Tensor) -> Tensor:
        """What the network says of all looks together, `logs` being what it says of the first."""
        others = self._log_probabilities(other_looks(images)).view(-1, *logs.shape)
        return torch.cat([logs[None], others]).mean(dim=0).log_softmax(dim=1)


def _without_torch(picture: Picture | Tensor) -> Picture:
    if not isinstance(picture, Tensor):
        return picture
    # NumPy has no bfloat16.
    values = picture.float() if picture.is_floating_point() else picture
    array: NDArray[Any] = values.numpy(force=True)
    return array


def other_looks(images: Tensor) -> Tensor:
    """Images turned a little either way, and slanted a little either way.

    Who writes holds the paper as he likes. The mean of what the network says of all of them is
    right more often than what it says of the first.

    Args:
        images: ``(B, 1, 28, 28)`` float in [0, 1].

    Returns:
        ``(4 * B, 1, 28, 28)``: all turned one way, all turned the other way, ...
    """
    cos, sin = math.cos(math.radians(LOOK_DEG)), math.sin(math.radians(LOOK_DEG))
    slant = math.tan(math.radians(LOOK_DEG))
    ways = torch.tensor(
        [
            [[cos, -sin, 0], [sin, cos, 0]],
            [[cos, sin, 0], [-sin, cos, 0]],
            [[1, slant, 0], [0, 1, 0]],
            [[1, -slant, 0], [0, 1, 0]],
        ]
    )
    grids = F.affine_grid(ways, [len(ways), 1, FRAME, FRAME], align_corners=False)
    shape = len(images), FRAME, FRAME, 2
    return torch.cat(
        [F.grid_sample(images, grid.expand(shape), align_corners=False) for grid in grids]
    )


def _output_of(layer: nn.Module, network: nn.Module, images: Tensor) -> Tensor:
    """What a layer of a network puts out for images; nothing, ``(B, 0, ...)``, if it is not run."""
    outputs = [images[:, :0]]
    hook = layer.register_forward_hook(lambda layer, args, output: outputs.append(output))
    network(images.clone())  # which it may change in place
    hook.remove()
    return outputs[-1]


def _is_clear(sheet: Sheet, digits: Sequence[Digit]) -> bool:
    """Whether there is nothing that a finder would see better."""
    return sheet.is_canvas and all(digit.confidence >= CLEAR for digit in digits)


def _reading(digits: Sequence[Digit], note: str) -> Reading:
    """Put together what was read, in reading order."""
    read = [
        [replace(digits[index], line=number) for index in line]
        for number, line in enumerate(lines([digit.box for digit in digits]))
    ]
    number = " ".join("".join(str(digit.digit) for digit in line) for line in read)
    return Reading(number, tuple(digit for line in read for digit in line), note)

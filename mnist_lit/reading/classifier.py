"""`Classifier`: a trained network that classifies images and reads pictures."""

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from threading import get_ident
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_lit.checkpoints import load_checkpoint, network_state
from mnist_lit.errors import UserError, join_names, one_line
from mnist_lit.files import user_path
from mnist_lit.models import ModuleSpec, Network, Shape, probe_images
from mnist_lit.models.characters import DIGITS
from mnist_lit.reading.decode import Picture, pages_of
from mnist_lit.reading.detector import Detector
from mnist_lit.reading.digit_image import IMAGE_PX
from mnist_lit.reading.ink import Ink, find_ink
from mnist_lit.reading.preprocessing import Preprocessing
from mnist_lit.reading.result import Classification, Digit, Reading

PACKAGED_CLASSIFIER = Path(__file__).parents[1] / "weights" / "mnist.pt"
BATCH_SIZE = 500  # images at a time; more are no faster
SURE_PROB = 0.95  # below it, a digit is classified in turned and slanted views, too
VIEW_DEG = 8.0  # angle by which a digit is turned or slanted
# Exponents of the two probabilities in their product, which maximise the likelihood of the digits
# in drawn validation pictures: the detector is less confident than it should be.
DETECTOR_EXPONENT, CLASSIFIER_EXPONENT = 1.2, 0.5
MIN_PROB = 1e-4  # probabilities are clamped to this distance from 0 and 1
TOO_SMALL = "some of the writing is too small to be read at full resolution"


class Classifier:
    """A trained network for inference.

    Args:
        network: maps images in [0, 1] to logits. It is set to evaluation mode and frozen: of one
            that is to be trained further, give a copy.
        temperature: divides the logits; above 1, the network is less confident.
        classes: names of the K classes.
        shape: of the images that the network takes.
        preprocessing: from a picture to such an image; None: scaled, its ends cut off.
    """

    def __init__(
        self,
        network: nn.Module,
        temperature: float = 1.0,
        classes: Sequence[str] = DIGITS,
        shape: Shape = Shape(),  # noqa: B008, it cannot be changed
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.temperature = temperature
        self.classes = tuple(classes)
        self.shape = shape
        usual = Preprocessing.scaled(shape.image_size, shape.in_channels)
        self.preprocessing = preprocessing or usual

    @classmethod
    def load(
        cls,
        path: str | PathLike[str] | None = None,
        network: type[nn.Module] | None = None,
    ) -> Self:
        """Load the packaged network, or the one of a checkpoint.

        Args:
            path: a checkpoint that `fit` wrote; None: the packaged network.
            network: class of the checkpoint's network, if it is not one of this package. A class
                that only the checkpoint names is never imported.

        Raises:
            UserError: the file cannot be read, is of another version, or of an unknown class.
        """
        path = PACKAGED_CLASSIFIER if path is None else user_path(path)
        checkpoint = load_checkpoint(path)
        try:
            hyper_parameters = dict(checkpoint["hyper_parameters"])
            spec = ModuleSpec(**hyper_parameters["network"], trusted=network)
            sizes = {
                name: hyper_parameters[name] for name in Shape._fields & hyper_parameters.keys()
            }
            shape, classes = Shape(**sizes), checkpoint["classes"]
            loaded = spec.build(shape)
            loaded.load_state_dict(network_state(checkpoint))
            plain = checkpoint.get("preprocessing")
            preprocessing = Preprocessing(**plain) if plain else None
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path} holds no classifier that this version knows: {one_line(error)}"
            ) from error
        temperature = checkpoint.get("temperature", 1.0)
        classifier = cls(loaded, temperature, classes, shape, preprocessing)
        classifier._check(path)
        return classifier

    def _check(self, path: Path) -> None:
        """Classify an all-0 and an all-1 image.

        Raises:
            UserError: the result is not probabilities.
        """
        try:
            probs = self.probabilities(probe_images(self.shape))
        except Exception as error:  # of whatever the network was made of
            raise UserError(f"{path} holds a network that cannot run: {one_line(error)}") from error
        if probs.shape != (2, len(self.classes)) or not probs.isfinite().all():
            raise UserError(f"the network in {path} gives NaN or infinite outputs")

    def probabilities(self, images: Tensor) -> Tensor:
        """Compute the probability of each class.

        Args:
            images: ``(B, C, H, W)`` float in [0, 1] or uint8; of digits ``(B, 1, 28, 28)``, ink 1
                (or 255), paper 0.

        Returns:
            ``(B, K)``; each row sums to 1.
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
        """Compute the activations of the first convolution, before pooling or normalisation.

        Args:
            images: ``(B, 1, 28, 28)`` float in [0, 1].

        Returns:
            ``(B, C, H, W)``, 0 or more, for C filters; C is 0 for a network without convolution.
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
        return self.read_ink(find_ink(_without_torch(picture)))

    def read_pages(self, picture: Picture | Tensor) -> list[Reading]:
        """Read all pages of a PDF, a TIFF or an animation; any other picture has one.

        Args:
            picture: as for `read`.

        Raises:
            PictureError: one of them cannot be read.
            UserError: the network was trained on something else.
        """
        return [self.read_ink(find_ink(page)) for page in pages_of(_without_torch(picture))]

    def classify(self, picture: Picture | Tensor) -> Classification:
        """Classify a whole picture, which is brought to the network's input as in its training.

        Of a file with several pages, it is the first.

        Args:
            picture: as for `read`.

        Raises:
            PictureError: it cannot be read.
        """
        page = pages_of(_without_torch(picture), most=1)[0]
        probs = self.probabilities(self.preprocessing(page)[None])[0]
        return Classification.of(self.classes, probs, page.note)

    @property
    def reads_digits(self) -> bool:
        """True for a network of digits in MNIST's form, which `read` needs."""
        return self.classes == DIGITS and self.shape == Shape()

    def check_reads_digits(self) -> None:
        """Check that the network classifies digits.

        Raises:
            UserError: it was trained on something else.
        """
        if not self.reads_digits:
            raise UserError(
                f"this network was trained on other classes ({join_names(self.classes)}): it reads"
                " no digits, but classifies whole pictures (Classifier.classify, predict, serve)"
            )

    def read_ink(self, ink: Ink) -> Reading:
        """Read the digits in a picture's ink: the detector locates them, both networks decide.

        Raises:
            UserError: the network was trained on something else.
        """
        self.check_reads_digits()
        if not ink.sizes:
            return Reading.of([], ink.note)
        detections, is_complete = Detector.packaged().detect(ink.pixels, ink.sizes)
        note = "; ".join(filter(None, ("" if is_complete else TOO_SMALL, ink.note)))
        boxes = [ink.picture_box(box) for box in detections.boxes.tolist()]
        cut_out = enumerate(map(ink.digit_image, boxes))
        drawn = {number: image for number, image in cut_out if image is not None}  # no blobs
        if not drawn:
            return Reading.of([], note)
        images = torch.from_numpy(np.stack(list(drawn.values())))
        detected = (
            detections.probs[list(drawn)].clamp(MIN_PROB, 1 - MIN_PROB).logit().log_softmax(dim=1)
        )
        classified = self._tta_log_probabilities(images).exp().clamp(min=MIN_PROB).log()
        logs = DETECTOR_EXPONENT * detected + CLASSIFIER_EXPONENT * classified
        digits = [
            Digit(int(probs.argmax()), float(probs.max()), boxes[number], probs, image)
            for number, probs, image in zip(drawn, logs.softmax(dim=1), images, strict=True)
        ]
        return Reading.of(digits, note)

    def _tta_log_probabilities(self, images: Tensor) -> Tensor:
        """Compute log probabilities of digits, of unsure ones as a mean over several views."""
        logs = self._log_probabilities(images)
        unsure = logs.amax(dim=1) < math.log(SURE_PROB)
        if unsure.any():
            first = logs[unsure]
            others = self._log_probabilities(tta_views(images[unsure])).view(-1, *first.shape)
            logs[unsure] = torch.cat([first[None], others]).mean(dim=0).log_softmax(dim=1)
        return logs


def _without_torch(picture: Picture | Tensor) -> Picture:
    if not isinstance(picture, Tensor):
        return picture
    # NumPy has no bfloat16.
    values = picture.float() if picture.is_floating_point() else picture
    array: NDArray[Any] = values.numpy(force=True)
    return array


def tta_views(images: Tensor) -> Tensor:
    """Rotate and shear images by `VIEW_DEG` either way, for test-time augmentation.

    Args:
        images: ``(B, 1, 28, 28)`` float in [0, 1].

    Returns:
        ``(4 * B, 1, 28, 28)``: all turned one way, all turned the other way, ...
    """
    cos, sin = math.cos(math.radians(VIEW_DEG)), math.sin(math.radians(VIEW_DEG))
    slant = math.tan(math.radians(VIEW_DEG))
    ways = torch.tensor(
        [
            [[cos, -sin, 0], [sin, cos, 0]],
            [[cos, sin, 0], [-sin, cos, 0]],
            [[1, slant, 0], [0, 1, 0]],
            [[1, -slant, 0], [0, 1, 0]],
        ]
    )
    grids = F.affine_grid(ways, [len(ways), 1, IMAGE_PX, IMAGE_PX], align_corners=False)
    shape = len(images), IMAGE_PX, IMAGE_PX, 2
    return torch.cat(
        [F.grid_sample(images, grid.expand(shape), align_corners=False) for grid in grids]
    )


def _output_of(layer: nn.Module, network: nn.Module, images: Tensor) -> Tensor:
    """Return the output of a layer for images; ``(B, 0, ...)`` if it is not run."""
    outputs, thread = [images[:, :0]], get_ident()

    def keep(layer: nn.Module, args: Any, output: Tensor) -> None:
        if get_ident() == thread:  # other threads run the same network
            outputs.append(output)

    hook = layer.register_forward_hook(keep)
    try:
        network(images.clone())  # which it may change in place
    finally:
        hook.remove()
    return outputs[-1]

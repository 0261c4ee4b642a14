"""`Detector`: digits in a picture by a trained network, with boxes and probabilities."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mnist_lit.checkpoints import load_checkpoint, network_state
from mnist_lit.errors import UserError
from mnist_lit.models.characters import FIRST_SIGN, NUM_DIGITS
from mnist_lit.models.detector import DIGIT_PX, STRIDE, DetectorNetwork
from mnist_lit.reading.arrays import extent, scaled

PACKAGED_DETECTOR = Path(__file__).parents[1] / "weights" / "detector.pt"
MAX_NETWORK_PIXELS = 1_500_000.0  # of a picture, over all scales: some 3 s of a core
MAX_BAND_PIXELS = 200_000  # at once, because of the memory they take
BAND_OVERLAP_PX = 112  # rows beyond a band: nearly half the receptive field
OTHER_SIZES = (1.8, 1 / 1.8)  # sizes tried besides the given ones, as multiples of the first
SAME_SIZE_LOG = 0.16  # |log ratio| of two sizes that count as one
SIZE_FIT_LOG = 0.5  # |log ratio| of a digit's size and the scale's at which its vote falls to 1/e
MIN_PEAK_PROB = 0.1  # of a peak
MIN_DETECTION_PROB = 0.35  # of a detected digit
CERTAIN_PROB = 0.4  # if all digits are above it, no further scale is tried
MIN_INK = 16  # of 255; fainter margins of a picture are cropped
MARGIN_PX = 12  # of paper around the picture
MAX_IOU = 0.5  # of two detections
MAX_CONTAINED = 0.9  # share of a box inside another one, of two detections
MAX_DETECTIONS = 2000


@dataclass(frozen=True)
class Detections:
    """Detected characters, the most probable first.

    Attributes:
        boxes: left, top, right, bottom in pixels of the picture, ``(N, 4)``.
        probs: of each class, independent of the others, ``(N, NUM_CLASSES)``.
    """

    boxes: Tensor
    probs: Tensor

    def __getitem__(self, chosen: Tensor) -> "Detections":
        return Detections(self.boxes[chosen], self.probs[chosen])

    @property
    def sizes(self) -> Tensor:
        """Longer sides of the boxes, in pixels, ``(N,)``."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).amax(dim=1)

    @property
    def digits(self) -> "Detections":
        """Detections of which a digit is the most probable class, with the ten digits' probs."""
        probs, labels = self.probs.max(dim=1)
        chosen = (labels < NUM_DIGITS) & (probs > MIN_DETECTION_PROB)
        return Detections(self.boxes[chosen], self.probs[chosen, :NUM_DIGITS])


class Detector:
    """Detects digits of any size by running a network on rescaled pictures.

    Args:
        network: a trained `DetectorNetwork`. It is copied, set to evaluation mode and fused.
    """

    def __init__(self, network: nn.Module) -> None:
        network = deepcopy(network).eval().requires_grad_(False)
        _fuse_batch_norm(network)
        self.network = network.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a detector from a checkpoint.

        Raises:
            UserError: the file cannot be read, or is of another network.
        """
        checkpoint = load_checkpoint(path)
        try:
            network = DetectorNetwork(checkpoint["hyper_parameters"]["width"])
            network.load_state_dict(network_state(checkpoint))
        except (LookupError, RuntimeError, TypeError) as error:
            raise UserError(f"{path} holds no detector") from error
        return cls(network)

    @classmethod
    @cache
    def packaged(cls) -> Self:
        """Return the detector that comes with the package."""
        return cls.load(PACKAGED_DETECTOR)

    def detect(self, ink: NDArray[np.uint8], sizes: Sequence[float]) -> tuple[Detections, bool]:
        """Detect digits at the best scale, searched from ``sizes``.

        The network detects digits best whose longer side is 28 pixels, so a scale is a size of
        digits that is mapped to 28 pixels. Scales are compared by their detections: each counts by
        its probability, and less the further its own size is from the scale's. The median size of
        these detections is the next scale to try.

        Args:
            ink: ``(H, W)`` uint8, paper 0.
            sizes: likely longer sides of digits, in pixels, the likeliest first; one at least.

        Returns:
            Digits at the best scale, ``probs`` ``(N, 10)``; and False if a likely scale was left
            out because of `MAX_NETWORK_PIXELS`.
        """
        x, y, right, bottom = extent(ink > MIN_INK)
        part = ink[y:bottom, x:right] if x < right else ink
        best = Detections(torch.zeros(0, 4), torch.zeros(0, NUM_DIGITS))
        best_vote, pixels_left, is_complete = 0.0, MAX_NETWORK_PIXELS, True
        tried: list[float] = []
        others = [sizes[0] * factor for factor in OTHER_SIZES]
        waiting = [*sizes, *others]
        while waiting:
            size = waiting.pop(0)
            pixels = part.size * (DIGIT_PX / size) ** 2
            if any(_is_same_size(size, other) for other in tried):
                continue
            if pixels > pixels_left:
                is_complete &= size in others
                continue
            tried.append(size)
            pixels_left -= pixels
            digits = self.detect_at(part, size).digits
            probs, misfit = digits.probs.amax(dim=1), (digits.sizes / size).log() / SIZE_FIT_LOG
            vote = float(((probs - MIN_DETECTION_PROB) * (-(misfit**2)).exp()).sum())
            if vote > best_vote:
                best, best_vote = digits, vote
            if len(probs):
                median_size = float(digits.sizes.median())
                if _is_same_size(median_size, size) and float(probs.min()) > CERTAIN_PROB:
                    break
                waiting.insert(0, median_size)
        moved = best.boxes + torch.tensor([x, y, x, y])
        return Detections(moved, best.probs), is_complete

    def detect_at(self, ink: NDArray[np.uint8], size: float) -> Detections:
        """Detect all characters at one scale.

        Args:
            ink: ``(H, W)`` uint8, paper 0.
            size: longer side of a digit that is mapped to 28 pixels.
        """
        scale = DIGIT_PX / size
        small = scaled(ink, scale, cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        height, width = small.shape
        below, right = (MARGIN_PX + -(side + 2 * MARGIN_PX) % 4 for side in (height, width))
        framed = cv2.copyMakeBorder(small, MARGIN_PX, below, MARGIN_PX, right, cv2.BORDER_CONSTANT)
        maps = self._run(torch.from_numpy(framed)[None, None] / 255)
        return non_max_suppression(_peaks(maps, ink.shape[1] / width, ink.shape[0] / height))

    def _run(self, ink: Tensor) -> Tensor:
        """Run the network on ink ``(1, 1, H, W)``, a large picture in bands.

        Returns:
            ``(NUM_CLASSES + 2, H / 2, W / 2)``, see `DetectorNetwork.forward`.
        """
        height, width = ink.shape[2:]
        band = max(4 * BAND_OVERLAP_PX, MAX_BAND_PIXELS // width // 4 * 4)
        parts = []
        for top in range(0, height, band):
            start, end = max(0, top - BAND_OVERLAP_PX), min(height, top + band + BAND_OVERLAP_PX)
            with torch.no_grad():
                (maps,) = self.network(ink[:, :, start:end])
            first, last = (top - start) // STRIDE, (min(height, top + band) - start) // STRIDE
            parts.append(maps[:, first:last])
        return torch.cat(parts, dim=1)


def non_max_suppression(detections: Detections) -> Detections:
    """Apply non-maximum suppression over all classes, also to digits inside other characters.

    Args:
        detections: the most probable first.

    Returns:
        Of two detections with an IoU above `MAX_IOU`, the more probable one; the same of two digits
        or letters of which one contains `MAX_CONTAINED` of the other, like the stroke of a 4. Signs
        may contain digits: a root, a brace.
    """
    # Not torchvision's NMS: it knows no containment, and its import would double the time in which
    # `predict` starts (3.6 s instead of 1.8 s).
    boxes, is_sign = detections.boxes, detections.probs.argmax(dim=1) >= FIRST_SIGN
    top_left = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    common = (bottom_right - top_left).clamp(min=0).prod(dim=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    contained = common / torch.minimum(areas[:, None], areas).clamp(min=1e-6) > MAX_CONTAINED
    contained[is_sign] = contained[:, is_sign] = False
    are_same = common / (areas[:, None] + areas - common).clamp(min=1e-6) > MAX_IOU
    overlap = are_same | contained
    keep = torch.ones(len(boxes), dtype=torch.bool)
    for number in range(len(boxes)):
        if keep[number]:
            keep[number + 1 :] &= ~overlap[number, number + 1 :]
    return detections[keep]


def _is_same_size(size: float, other: float) -> bool:
    return abs(math.log(size / other)) < SAME_SIZE_LOG


def _peaks(maps: Tensor, x_scale: float, y_scale: float) -> Detections:
    """Decode the network's output: a character is a local maximum over all classes.

    Args:
        maps: ``(NUM_CLASSES + 2, H, W)``, see `DetectorNetwork.forward`.
        x_scale: picture pixels a network pixel, across.
        y_scale: the same, down.
    """
    probs = maps[:-2].sigmoid()
    highest = probs.amax(dim=0)
    around = F.max_pool2d(highest[None], 3, 1, 1)[0]
    rows, columns = ((highest == around) & (highest > MIN_PEAK_PROB)).nonzero(as_tuple=True)
    order = highest[rows, columns].argsort(descending=True, stable=True)[:MAX_DETECTIONS]
    rows, columns = rows[order], columns[order]
    sides = maps[-2:, rows, columns].clamp(-2, 2).exp() * DIGIT_PX
    centres = STRIDE * (torch.stack([columns, rows]) + 0.5) - MARGIN_PX
    edges = torch.cat([centres - sides / 2, centres + sides / 2]).T
    boxes = edges * torch.tensor([x_scale, y_scale, x_scale, y_scale])
    return Detections(boxes, probs[:, rows, columns].T)


def _fuse_batch_norm(module: nn.Module) -> None:
    """Fuse each convolution with the batch normalisation that follows it, for speed."""
    for name, child in module.named_children():
        first, last = (child[0], child[-1]) if isinstance(child, nn.Sequential) else (None, None)
        if isinstance(first, nn.Conv2d) and isinstance(last, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(first, last))
        else:
            _fuse_batch_norm(child)

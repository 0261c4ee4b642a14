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
from mnist_lit.finder.network import NUM_DIGITS, STRIDE, USUAL, Finder
from mnist_lit.pictures.arrays import extent, scaled

PACKAGED = Path(__file__).parents[1] / "weights" / "finder.pt"
MAX_NETWORK_PIXELS = 1_000_000.0  # a picture, over all scales: 1.4 s of a core
MAX_BAND_PIXELS = 400_000  # at once, because of the memory they take
BAND_OVERLAP_PX = 64  # rows beyond a band that are seen with it; the field of view is little larger
OTHER_SIZES = (1.8, 1 / 1.8)  # sizes tried besides the given ones, as multiples of the first
SAME_SIZE_LOG = 0.16  # |log ratio| of two sizes that count as one
SIZE_FIT_LOG = 0.5  # |log ratio| of a digit's size and the scale's at which its vote falls to 1/e
MIN_PEAK_PROB = 0.1  # of a detection
MIN_VOTE_PROB = 0.35  # of a detection that votes for a scale
CERTAIN_PROB = 0.5  # if all votes are above it, no further scale is tried
MIN_INK = 16  # of 255; fainter margins of a picture are cut off
MARGIN_PX = 12  # of paper around the picture
MAX_IOU = 0.5  # of two detections
MAX_DETECTIONS = 2000


@dataclass(frozen=True)
class Detections:
    """Detected digits, the most probable first.

    Attributes:
        boxes: left, top, right, bottom in pixels of the picture, ``(N, 4)``.
        probs: probability of each digit, independent of the others, ``(N, 10)``.
    """

    boxes: Tensor
    probs: Tensor

    def __getitem__(self, chosen: Tensor) -> "Detections":
        return Detections(self.boxes[chosen], self.probs[chosen])

    @property
    def sizes(self) -> Tensor:
        """Longer sides of the boxes, in pixels, ``(N,)``."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).amax(dim=1)


class Detector:
    """Finds digits of any size by running its network on rescaled pictures.

    Args:
        network: a trained `Finder`. It is copied, set to evaluation mode and fused.
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
            network = Finder(checkpoint["hyper_parameters"]["width"])
            network.load_state_dict(network_state(checkpoint))
        except (KeyError, RuntimeError, TypeError) as error:
            raise UserError(f"{path} holds no finder") from error
        return cls(network)

    @classmethod
    @cache
    def packaged(cls) -> Self:
        """Return the detector that comes with the package."""
        return cls.load(PACKAGED)

    def detect(self, ink: NDArray[np.uint8], sizes: Sequence[float]) -> Detections | None:
        """Detect digits at the best scale, searched from ``sizes``.

        The network detects digits best whose longer side is 28 pixels, so a scale is a size of
        digits that is mapped to 28 pixels. Scales are compared by their detections: each counts by
        its probability, and less the further its own size is from the scale's. The median size of
        these detections is the next scale to try.

        Args:
            ink: ``(H, W)`` uint8, paper 0.
            sizes: likely longer sides of digits, in pixels, the likeliest first.

        Returns:
            Detections of the best scale; None if every scale exceeds `MAX_NETWORK_PIXELS`.
        """
        x, y, right, bottom = extent(ink > MIN_INK)
        part = ink[y:bottom, x:right] if x < right else ink
        best: Detections | None = None
        best_vote, pixels_left = -1.0, MAX_NETWORK_PIXELS
        tried: list[float] = []
        waiting = [*sizes, *(sizes[0] * factor for factor in OTHER_SIZES)]
        while waiting:
            size = waiting.pop(0)
            pixels = part.size * (USUAL / size) ** 2
            if pixels > pixels_left or any(_is_same_size(size, other) for other in tried):
                continue
            tried.append(size)
            pixels_left -= pixels
            detections = self._detect_at(part, size)
            voters = detections[detections.probs.amax(dim=1) > MIN_VOTE_PROB]
            probs, misfit = voters.probs.amax(dim=1), (voters.sizes / size).log() / SIZE_FIT_LOG
            vote = float(((probs - MIN_VOTE_PROB) * (-(misfit**2)).exp()).sum())
            if vote > best_vote:
                best, best_vote = detections, vote
            if len(probs):
                median_size = float(voters.sizes.median())
                if _is_same_size(median_size, size) and float(probs.min()) > CERTAIN_PROB:
                    break
                waiting.insert(0, median_size)
        return best and Detections(best.boxes + torch.tensor([x, y, x, y]), best.probs)

    def _detect_at(self, ink: NDArray[np.uint8], size: float) -> Detections:
        """Detect digits of about one size, in pixels."""
        scale = USUAL / size
        small = scaled(ink, scale, cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        height, width = small.shape
        below, right = (MARGIN_PX + -(side + 2 * MARGIN_PX) % 4 for side in (height, width))
        framed = cv2.copyMakeBorder(small, MARGIN_PX, below, MARGIN_PX, right, cv2.BORDER_CONSTANT)
        maps = self._run(torch.from_numpy(framed)[None, None] / 255)
        detections = _peaks(maps, ink.shape[1] / width, ink.shape[0] / height)
        return detections[nms(detections.boxes, detections.probs.amax(dim=1))]

    def _run(self, ink: Tensor) -> Tensor:
        """Run the network on a sheet ``(1, 1, H, W)``, a large one in bands.

        Returns:
            ``(12, H / 2, W / 2)``, see `Finder.forward`.
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


def nms(boxes: Tensor, scores: Tensor) -> Tensor:
    """Indices of detections that non-maximum suppression keeps, the highest score first."""
    # torchvision takes a while to import, and a clear canvas needs no detector.
    from torchvision.ops import nms as greedy_nms

    kept: Tensor = greedy_nms(boxes, scores, MAX_IOU)
    return kept


def _is_same_size(size: float, other: float) -> bool:
    return abs(math.log(size / other)) < SAME_SIZE_LOG


def _peaks(maps: Tensor, x_scale: float, y_scale: float) -> Detections:
    """Decode the network's output: a digit is a local maximum of its probability map.

    Args:
        maps: ``(12, H, W)``, see `Finder.forward`.
        x_scale: picture pixels a network pixel, across.
        y_scale: the same, down.
    """
    probs = maps[:NUM_DIGITS].sigmoid()
    highest = probs.amax(dim=0)
    around = F.max_pool2d(highest[None], 3, 1, 1)[0]
    rows, columns = ((highest == around) & (highest > MIN_PEAK_PROB)).nonzero(as_tuple=True)
    order = highest[rows, columns].argsort(descending=True, stable=True)[:MAX_DETECTIONS]
    rows, columns = rows[order], columns[order]
    sides = maps[NUM_DIGITS:, rows, columns].clamp(-2, 2).exp() * USUAL
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

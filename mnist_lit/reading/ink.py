"""`Ink`: the writing of a picture, separated from its paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_lit.reading.arrays import Array, Box, Mask, extent, quantile, rim_of, with_margin
from mnist_lit.reading.decode import Page, Picture, decode, pages_of
from mnist_lit.reading.digit_image import fit_into_frame
from mnist_lit.reading.paper import MIN_CONTRAST, contrast_to, denoise, paper_candidates

# Paper of one colour that leaves more than this is rejected.
MAX_NOISE = 0.06  # of the range from black to white
MAX_INK_SHARE = 0.75  # of a picture
FULL_INK = 0.85  # quantile of the ink's contrast that becomes 255
REACH = 0.2  # of a digit's size, by which its box may be too small
FAINT_INK = 64  # of 255, from which on ink is connected
MIN_SIZE_PX = 5  # of a stroke; smaller components are specks
EDGE_SHARE = 0.17  # of the shorter side: how far from the edge of a picture lines of a frame are
LINE_FROM = 8.0  # width over height of a component that is a line


@dataclass(frozen=True)
class Ink:
    """Ink of a page, as the networks see it.

    Attributes:
        pixels: ``(H, W)`` uint8, paper 0, most of the ink near 255.
        sizes: likely longer sides of digits in these pixels, the likeliest first; empty if there
            is no ink.
        downscale: pixels of the picture a pixel of these.
        note: which pages of the file are left out; "" for none.
    """

    pixels: NDArray[np.uint8]
    sizes: tuple[float, ...]
    downscale: float
    note: str = ""

    def digit_image(self, box: Box) -> Array | None:
        """Crop a digit and convert it to an MNIST-like image.

        Args:
            box: in pixels of the picture.

        Returns:
            ``(1, 28, 28)`` float32 in [0, 1], ink 1; None if the box has no ink or a blob.
        """
        edges = [edge / self.downscale for edge in box]
        left, top, right, bottom = _whole_pixels(edges, *self.pixels.shape)
        reach = 1 + round(REACH * max(right - left, bottom - top))
        x, y = max(0, left - reach), max(0, top - reach)
        full = np.float32(max(1, self.pixels[top:bottom, left:right].max()))  # also of faint ink
        window = np.minimum(1, self.pixels[y : bottom + reach, x : right + reach] / full)
        mask = _digit_mask(window, (left - x, top - y, right - x, bottom - y))
        left, top, right, bottom = extent(mask)
        if left == right:
            return None
        margin = 2 + max(right - left, bottom - top) // 20
        # The faint edges of strokes are not in the mask.
        drawn = cv2.dilate(mask.view(np.uint8), np.ones((3, 3)))
        digit = with_margin(np.where(drawn, window, 0), margin)
        digit = digit[top : bottom + 2 * margin, left : right + 2 * margin]
        frame = margin, margin, margin + right - left, margin + bottom - top
        return fit_into_frame(digit, frame)

    def picture_box(self, box: Sequence[float]) -> Box:
        """Convert a box to whole pixels of the picture, at least one, all inside."""
        height, width = (round(side * self.downscale) for side in self.pixels.shape)
        return _whole_pixels([edge * self.downscale for edge in box], height, width)


def _whole_pixels(box: Sequence[float], height: int, width: int) -> Box:
    """Round a box to whole pixels of a picture, at least one, all inside."""
    left, top, right, bottom = map(round, box)
    left, top = max(0, min(left, width - 1)), max(0, min(top, height - 1))
    return left, top, max(left + 1, min(right, width)), max(top + 1, min(bottom, height))


def _digit_mask(window: Array, box: Box) -> Mask:
    """Select the pixels of a digit in a window around its box.

    A component of ink belongs to it if most of it lies in the box: all of it if it ends inside the
    window, else, as a neighbour touches it, what lies in the box. If none belongs, as a line of a
    form runs through the digit, all ink in the box does.
    """
    left, top, right, bottom = box
    is_ink = window > FAINT_INK / 255
    _, labels, stats, _ = cv2.connectedComponentsWithStats(is_ink.view(np.uint8))
    num_inside = np.bincount(labels[top:bottom, left:right].ravel(), minlength=len(stats))
    belongs = num_inside > 0.5 * stats[:, cv2.CC_STAT_AREA]
    x, y, width, height = stats[:, :4].T
    ends_inside = (x > 0) & (y > 0) & (x + width < window.shape[1]) & (y + height < window.shape[0])
    belongs[0] = ends_inside[0] = False
    if not belongs.any():
        belongs[1:] = True
        ends_inside[:] = False
    mask = (belongs & ends_inside)[labels]
    mask[top:bottom, left:right] |= belongs[labels[top:bottom, left:right]]
    return np.asarray(mask)


def find_ink(picture: Picture | Page) -> Ink:
    """Separate the ink of a picture from its paper.

    The paper has one colour, if that leaves little noise and little ink; if not, one that varies,
    which is not checked.

    Args:
        picture: a path, the bytes of a file, a PIL image or an array, of any size, mode and
            polarity; of a file with several pages the first one is read, unless it is one of
            `pages_of`.

    Raises:
        PictureError: it cannot be read.
    """
    page = picture if isinstance(picture, Page) else pages_of(picture, most=1)[0]
    pixels, downscale = decode(page)
    pixels = denoise(pixels)
    for paper in paper_candidates(pixels):
        contrast, noise = contrast_to(pixels, paper)
        components = _ink_components(contrast, noise)
        ink_share = int(components[:, cv2.CC_STAT_AREA].sum()) / contrast.size
        if float(noise.mean()) < MAX_NOISE and ink_share < MAX_INK_SHARE:
            break
    ink = _without_edge_lines(_normalised(contrast, noise))
    return Ink(ink, _likely_sizes(components), downscale, page.note)


def _ink_components(contrast: Array, noise: Array) -> NDArray[np.int32]:
    """Find components of weak ink that contain strong ink (hysteresis thresholding).

    Args:
        contrast: ``(H, W)``, see `contrast_to`.
        noise: its standard deviation, the same shape.

    Returns:
        ``(N, 5)``, columns as of `cv2.connectedComponentsWithStats`.
    """
    is_sure = contrast > np.maximum(MIN_CONTRAST, 5 * noise)
    if not is_sure.any():
        return np.zeros((0, 5), np.int32)
    strongest = quantile(contrast[is_sure], 0.95)
    is_sure &= contrast > 0.5 * strongest
    may_be = contrast > np.maximum(max(0.05, 0.3 * strongest), 3 * noise)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(may_be.view(np.uint8))
    has_sure = np.zeros(len(stats), bool)
    has_sure[labels[is_sure]] = True
    has_sure[0] = False  # the paper
    return np.asarray(stats[has_sure], np.int32)


def _likely_sizes(components: NDArray[np.int32]) -> tuple[float, ...]:
    """Return likely longer sides of digits, in pixels, from the components of ink.

    The first three are medians: of the longer sides and of the heights, both weighted, so that
    digits in several strokes count as much as whole ones, and the plain median. Digits that touch
    are wider than high, broken ones smaller than they should be. Level lines do not count, unless
    there is nothing else. Where the boxes of a form and small print have such sizes, digits are
    between them: the last one is the geometric mean of the extremes.
    """
    sides = components[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].astype(float)
    width, height = sides.T
    longer = sides.max(axis=1)
    is_character = (longer >= MIN_SIZE_PX) & (width < LINE_FROM * height)
    if is_character.any():
        longer, height = longer[is_character], height[is_character]
    if not len(longer):
        return ()
    sizes = _weighted_median(longer), _weighted_median(height), float(np.median(longer))
    return *sizes, math.sqrt(min(sizes) * max(sizes))


def _weighted_median(values: Array) -> float:
    """Return the weighted median of values, ``(N,)``, N >= 1; each is its own weight."""
    values = np.sort(values)
    total = np.cumsum(values)
    return float(values[np.searchsorted(total, total[-1] / 2)])


def _normalised(contrast: Array, noise: Array) -> NDArray[np.uint8]:
    """Scale contrast without noise so that most of the ink is near 255."""
    clean = np.maximum(contrast - 2 * noise, 0)
    inked = clean[contrast > np.maximum(5 * noise, MIN_CONTRAST)]
    full = quantile(inked, FULL_INK) if len(inked) else 1.0
    return np.asarray(np.clip(clean * (255 / full), 0, 255), np.uint8)


def _without_edge_lines(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Remove leftovers of a frame around the picture, which the detector takes for 1s.

    It is a component that touches the picture's edge, is at least half as long as a side, and lies
    within `EDGE_SHARE` of the edges: the detector does not see where these are.
    """
    height, width = ink.shape
    depth = int(EDGE_SHARE * min(height, width))
    if not depth or not (rim_of(ink) > FAINT_INK).any():
        return ink
    _, labels, stats, _ = cv2.connectedComponentsWithStats((ink > FAINT_INK).view(np.uint8))
    x, y, across, down = stats[:, :4].T
    touches = (x == 0) | (y == 0) | (x + across == width) | (y + down == height)
    is_line = touches & ((2 * across >= width) | (2 * down >= height))
    is_line[0] = False
    is_line[labels[depth : height - depth, depth : width - depth]] = False
    lines = cv2.dilate(is_line[labels].view(np.uint8), np.ones((3, 3)))  # with their faint edges
    return np.where(lines, np.uint8(0), ink)

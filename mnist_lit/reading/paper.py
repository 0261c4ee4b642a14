"""Estimate the colour of the paper, and the contrast of each pixel to it."""

from collections.abc import Iterator

import cv2
import numpy as np

from mnist_lit.reading.arrays import Array, quantile, reduced, rim_of

COARSE_PX = 40  # longest side of the map of paper of one colour
OTSU_PX = 160  # longest side of the picture that is split into two colours
TWO_COLOURS = 0.8  # share of the variance between two colours, from which on there are no others
SAME_COLOUR = 0.015  # of the range from black to white; smaller differences are one paper
CLOSED_PX = 60  # longest side of the picture whose strokes are closed
STROKE = 0.18  # of the longer side; wider strokes stay in the paper
# Windows of the medians by which light ink is told from dark ink, as shares of the longer side. Of
# wide strokes the narrow one erases little: less than `WIDE_STROKES` of what the wide one erases.
NARROW, WIDE = 0.18, 0.4
WIDE_STROKES = 0.28
LIGHT_INK = -0.35  # asymmetry of the differences of light ink: their sum over that of their amounts
DARKEST_SHADOW = 0.3  # of full light; in less, ink and noise are too much alike
# A quantile of the contrast, by which its noise is estimated, and the same one of a half-normal
# distribution. The second one is for pictures of one colour of paper that are mostly ink.
NOISE_QUANTILE, NOISE_QUANTILE_OF_INK = (0.3, 0.385), (0.1, 0.126)
MOSTLY_INK = 0.4  # share of pixels
MIN_CONTRAST = 0.08  # of ink, of the range from black to white


def contrast_to(pixels: Array, paper: Array) -> tuple[Array, Array]:
    """Compute the contrast of each pixel to the paper around it.

    Args:
        pixels: ``(H, W)`` or ``(H, W, 3)`` in [0, 1].
        paper: one of `paper_candidates`.

    Returns:
        Contrast, ``(H, W)``, 0 or more, and the standard deviation of its noise, the same shape.
    """
    contrast = _distance(pixels, paper)
    has_one_colour = np.ptp(_mean_of_colours(paper)) == 0
    is_mostly_ink = has_one_colour and float((contrast > MIN_CONTRAST).mean()) > MOSTLY_INK
    free_of_ink = NOISE_QUANTILE_OF_INK if is_mostly_ink else NOISE_QUANTILE
    noise = _noise(contrast, *free_of_ink)
    if noise == 0 and has_one_colour:  # a canvas: there is nothing to mend
        return contrast, np.zeros_like(contrast)
    # Again, with a local estimate of the paper: the mean of everything that cannot be ink. A median
    # smooths it and keeps its edges.
    blank = (contrast < max(MIN_CONTRAST, 6 * noise)).astype(np.float32)
    size = paper.shape[1], paper.shape[0]
    weight = _for_each_colour(cv2.resize(blank, size, interpolation=cv2.INTER_AREA), pixels)
    blank_only = pixels * _for_each_colour(blank, pixels)
    colour = cv2.resize(blank_only, size, interpolation=cv2.INTER_AREA)
    paper = cv2.medianBlur((colour + 0.05 * paper) / (weight + 0.05), 5)
    contrast = _distance(pixels, paper)
    noise = _noise(contrast, *free_of_ink)
    light = _mean_of_colours(paper)
    strongest = np.unravel_index(int(contrast.argmax()), contrast.shape)
    if np.ptp(light) < SAME_COLOUR or pixels[strongest].mean() > light.mean():
        return contrast, np.broadcast_to(np.float32(noise), contrast.shape)
    # Ink absorbs a share of the light: divide by the light.
    light = np.maximum(light / light.max(), DARKEST_SHADOW)
    size = contrast.shape[1], contrast.shape[0]
    light = cv2.resize(light, size, interpolation=cv2.INTER_LINEAR)
    return contrast / light, noise / light


def denoise(pixels: Array) -> Array:
    """Blur a grainy picture in proportion to its grain.

    Source of the estimate: Immerkær, "Fast noise variance estimation" (1996), but with a median,
    which edges do not move.
    """
    if min(pixels.shape[:2]) < 100:
        return pixels
    grey = _mean_of_colours(pixels)
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
    grain = float(np.median(np.abs(_sample(cv2.filter2D(grey, -1, kernel))))) / 0.6745
    blur_px = min(2.0, 40 * grain)
    return pixels if blur_px < 0.5 else cv2.GaussianBlur(pixels, (0, 0), blur_px)


def paper_candidates(pixels: Array) -> Iterator[Array]:
    """Yield maps of the paper's colour, ``(h, w)`` or ``(h, w, 3)``, the likeliest first."""
    coarse = reduced(_without_strokes(pixels), COARSE_PX, cv2.INTER_AREA)
    rim = rim_of(coarse)
    colour = np.median(rim, axis=0)
    differs = np.abs(rim - colour).reshape(len(rim), -1).max(axis=1) > SAME_COLOUR
    if differs.mean() < 0.3:  # a canvas or a scan, however much of it is ink
        yield np.full_like(coarse, colour)
    elif (of_two := _paper_of_two_colours(pixels)) is not None:  # a digit that is cropped closely
        yield np.full_like(coarse, of_two)
    yield _closed_paper(pixels)


def _paper_of_two_colours(pixels: Array) -> Array | None:
    """Return the more common colour of the rim, if all is of two colours and ink is at each edge.

    Source: the threshold of Otsu, "A threshold selection method from gray-level histograms" (1979),
    and the criterion of the same paper.
    """
    small = reduced(pixels, OTSU_PX, cv2.INTER_NEAREST)
    grey = _mean_of_colours(small)
    levels = (grey * 255 + 0.5).astype(np.uint8)
    is_light = cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)[1].astype(bool)
    share = is_light.mean()
    if share in (0, 1):
        return None
    within = share * grey[is_light].var() + (1 - share) * grey[~is_light].var()
    if within > (1 - TWO_COLOURS) * grey.var():
        return None
    is_paper = is_light == (rim_of(is_light).mean() >= 0.5)
    near_each_edge = ~is_paper[:2], ~is_paper[-2:], ~is_paper[:, :2], ~is_paper[:, -2:]
    if not all(ink.any() for ink in near_each_edge):  # a shadow, or a sheet on a table
        return None
    return np.asarray(np.median(small[is_paper], axis=0))


def _without_strokes(pixels: Array) -> Array:
    """Shrink a picture without thin strokes, so that a frame at the rim is not taken for paper."""
    small = reduced(pixels, 4 * COARSE_PX, cv2.INTER_NEAREST)
    return cv2.medianBlur((small * 255 + 0.5).astype(np.uint8), 7) / np.float32(255)


def _closed_paper(pixels: Array) -> Array:
    """Close the strokes by the paper around them, in each colour by itself.

    A closing keeps the edges of shadows and of sheets sharp, as a mean would not. Light ink is
    removed by an opening.

    Source: Serra, "Image Analysis and Mathematical Morphology" (1982).
    """
    small = reduced(pixels, CLOSED_PX, cv2.INTER_AREA)
    width = _window_px(small, STROKE)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    closed = [
        cv2.morphologyEx(plane, cv2.MORPH_OPEN if _is_light(plane) else cv2.MORPH_CLOSE, disc)
        for plane in cv2.split(small)
    ]
    return np.asarray(cv2.merge(closed)).reshape(small.shape)


def _is_light(plane: Array) -> bool:
    """Tell light ink on dark paper, in one colour, ``(h, w)``.

    Dark strokes are darker than a median over a window of more than twice their width, and light
    ones lighter. The corners of a light sheet on a dark table are lighter, too, but by less.
    """
    levels = (plane * 255 + 0.5).astype(np.uint8)
    narrow, wide = (
        cv2.medianBlur(levels, _window_px(plane, share)) - levels.astype(np.float32)
        for share in (NARROW, WIDE)
    )
    is_wide = np.abs(narrow).sum() < WIDE_STROKES * np.abs(wide).sum()
    differs = wide if is_wide else narrow
    return bool(differs.sum() < LIGHT_INK * np.abs(differs).sum())


def _window_px(pixels: Array, share: float) -> int:
    """Return a share of the longer side, as an odd number of pixels."""
    return int(share * max(pixels.shape[:2])) | 1


def _distance(pixels: Array, paper: Array) -> Array:
    full = cv2.resize(paper, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_LINEAR)
    difference = cv2.subtract(pixels, full)
    return np.asarray(cv2.sqrt(_mean_of_colours(cv2.multiply(difference, difference))))


def _for_each_colour(map_: Array, pixels: Array) -> Array:
    """Add an axis to a map ``(H, W)`` if the pixels have colours."""
    return map_ if pixels.ndim == 2 else map_[..., None]


def _mean_of_colours(pixels: Array) -> Array:
    """Convert ``(H, W, 3)`` to ``(H, W)``, several times as fast as NumPy's mean."""
    if pixels.ndim == 2:
        return pixels
    return np.asarray(cv2.transform(pixels, np.full((1, 3), 1 / 3, np.float32)))


def _sample(values: Array) -> Array:
    """Return a few thousand pixels on a regular grid."""
    step = 1 + min(values.shape) // 50
    return values[::step, ::step]


def _noise(contrast: Array, share: float, of_half_normal: float) -> float:
    """Estimate the standard deviation of the paper's contrast by a quantile, free of ink."""
    return quantile(_sample(contrast), share) / of_half_normal

"""From any picture to the digits in it, each prepared exactly as the images of MNIST were."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from io import BytesIO
from itertools import combinations, compress
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mnist_lit.errors import UserError

Array: TypeAlias = NDArray[Any]
"""float32, where nothing else is said; OpenCV's own types say less."""
Mask: TypeAlias = NDArray[np.bool_]
Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""
Picture: TypeAlias = str | os.PathLike[str] | bytes | Image.Image

FRAME = 28  # an MNIST image, of which ...
FIT = 20  # ... a digit's longest side takes this much

# Only what decodes pixels and nothing more: Pillow would give an EPS to Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP", "TIFF")
MAX_PIXELS = 120_000_000  # what telephones take stays below; beyond, a picture is taken for a bomb
WORK_PX = 1600  # longest side of what is searched for digits: a page keeps 20 px a line


class PictureError(UserError):
    """A file or bytes that are no picture, or a damaged one."""


@dataclass(frozen=True)
class FoundDigit:
    """A digit as the network is to see it.

    Attributes:
        image: ``(1, 28, 28)`` float32 in [0, 1], ink 1, paper 0.
        box: where it is, in pixels of the picture as seen (EXIF orientation applied).
        ink: what the image was made of, ``(H, W)`` float32 in [0, 1].
        frame: where that is, in pixels of the picture as seen.
    """

    image: Array
    box: Box
    ink: Array
    frame: Box


@dataclass(frozen=True)
class Arc:
    """Some of the pieces of ink at a place, taken for one digit.

    Attributes:
        start: the first of them, counted from the left.
        end: the first one that is not among them.
        digit: what they are together; None: too little to be read.
    """

    start: int
    end: int
    digit: FoundDigit | None


Place: TypeAlias = tuple[Arc, ...]
"""A segmentation graph: which pieces of ink make a digit together, shape alone does not tell. Each
path of arcs from piece 0 to the last one is a way to read all of them."""


def find_digits(picture: Picture) -> list[Place]:
    """Find the places in a picture where digits are, in any order; none is an answer too.

    Args:
        picture: a path, the bytes of a file, or a PIL image; of any size, mode and polarity.

    Raises:
        PictureError: it cannot be read.
    """
    pixels, shrunk = _decode(picture)
    pixels = _denoise(pixels)
    best: list[Place] = []
    most = -1.0
    for paper in _papers(pixels):
        strength, noise = _strength(pixels, paper)
        components = _without_printed_lines(_ink(strength, noise))
        pieces = _join(_pieces(components, pixels, strength))
        usual = _usual_size(pieces)
        whole = _whole_size(pieces, usual)
        found = []
        explained = 0
        for ink in _near_each_other(pieces, whole):
            place = _ways(ink, usual, whole, strength, noise, shrunk)
            if any(arc.digit for arc in place):
                found.append(place)
                explained += ink.area
        num_ink = int(components.areas.sum())
        share = explained / max(1, num_ink)
        fits = float(noise.mean()) < NOISIEST
        if share + fits > most:  # whatever fits comes first
            best, most = found, share + fits
        if fits and (share > 0.5 or (found and num_ink < LITTLE_INK * strength.size)):
            break
    return best


# --- decoding -------------------------------------------------------------------------------------


def _decode(picture: Picture) -> tuple[Array, float]:
    """Read a picture, its longest side reduced to `WORK_PX`.

    Returns:
        Pixels in [0, 1], ``(H, W)`` of a grey picture or ``(H, W, 3)``, and how many pixels of the
        picture one of them stands for.
    """
    name = "the picture" if isinstance(picture, bytes | Image.Image) else str(picture)
    try:
        if isinstance(picture, Image.Image):
            return _pixels(picture, max(picture.size))
        source = BytesIO(picture) if isinstance(picture, bytes) else Path(picture)
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PictureError(_TOO_LARGE)
            longest = max(image.size)
            image.draft(None, (WORK_PX, WORK_PX))  # a JPEG is decoded at half the size, or less
            return _pixels(image, longest)
    except PictureError as error:
        raise PictureError(f"{name} {error}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name} {_TOO_LARGE}") from None
    except UnidentifiedImageError:
        raise PictureError(
            f"{name} is no picture that can be read (PNG, JPEG, WebP, BMP, TIFF, GIF)"
        ) from None
    except Exception as error:  # whatever bytes a file holds, decoders meet them their own way
        if isinstance(error, OSError) and error.strerror:
            raise PictureError(f"{name} cannot be read: {error.strerror}") from None
        raise PictureError(f"{name} is damaged or cut off") from error


_TOO_LARGE = f"is refused: more than {MAX_PIXELS / 1e6:.0f} million pixels"


def _pixels(image: Image.Image, longest: int) -> tuple[Array, float]:
    """As `_decode`; `longest` is the picture's longest side, before any reduction."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    pixels: Array = _colours(image)
    pixels = _reduced(pixels, WORK_PX, cv2.INTER_AREA)
    return pixels.astype(np.float32) / 255, longest / max(pixels.shape)


def _colours(image: Image.Image) -> NDArray[np.uint8]:
    """Colours of any mode, ``(H, W, 3)``, or ``(H, W)`` if all are grey, which costs a third.

    Whatever is transparent becomes paper.
    """
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image).astype(np.float32) / 257)
    if image.mode in ("I", "F"):  # no range is agreed on: the darkest is 0, the lightest 255
        values = np.nan_to_num(np.asarray(image).astype(np.float32))
        low, high = float(values.min()), float(values.max())
        return _grey((values - low) * (255 / max(high - low, 1e-6)))
    if image.mode == "L" and not image.has_transparency_data:
        return np.asarray(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        rgba.thumbnail((WORK_PX, WORK_PX), Image.Resampling.BOX)  # what follows takes much memory
        rgb = _on_paper(np.asarray(rgba))
    else:
        rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    red, green, blue = (rgb[..., colour] for colour in range(3))
    is_grey = np.array_equal(red, green) and np.array_equal(green, blue)
    return np.ascontiguousarray(green) if is_grey else rgb


def _grey(values: Array) -> NDArray[np.uint8]:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def _on_paper(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put something transparent on paper.

    Where most is transparent, what is not is ink, and the paper is what contrasts with it: white
    or black. Otherwise the paper is in the picture already, and holes take its colour.
    """
    colours = rgba[..., :3]
    if rgba[..., 3].min() == 255:
        return colours
    alpha = rgba[..., 3:].astype(np.float32) / 255
    opaque = colours[alpha[..., 0] > 0.5]
    paper = np.full(3, 255, np.float32)
    if len(opaque) and alpha.mean() < 0.5:
        paper[:] = 255 if opaque.mean() < 128 else 0
    elif len(opaque):
        paper[:] = np.median(opaque, axis=0)
    return (colours * alpha + paper * (1 - alpha) + 0.5).astype(np.uint8)


# --- ink ------------------------------------------------------------------------------------------

COARSE = 40  # longest side of the map of the paper's colour
FLAT = 0.015  # colours that differ by less, of the range from black to white, are the same paper
NOISIEST = 0.06  # of that range; what looks noisier has another paper than was guessed
# Over so much of a picture, as a share of the longest side, most is paper. If much is ink by this,
# but most of that no digit (a sheet on a table), the next is tried.
WINDOWS = (0.75, 0.3)
LITTLE_INK = 0.1  # of the picture; less is writing and what writing comes with
DARKEST_SHADOW = 0.3  # of full light; in less, ink and noise are too much alike
LEAST_CONTRAST = 0.08  # of the range from black to white; fainter is no ink


def _strength(pixels: Array, paper: Array) -> tuple[Array, Array]:
    """How far each pixel's colour is from the paper's around it.

    Args:
        pixels: ``(H, W)`` or ``(H, W, 3)`` in [0, 1].
        paper: one of `_papers`.

    Returns:
        ``(H, W)`` from 0 on, and the noise in it (a standard deviation), which is no ink, alike.
    """
    strength = _distance(pixels, paper)
    noise = _noise(strength)
    # Again, nearer to each place: the mean of everything that cannot be ink.
    blank = (strength < max(LEAST_CONTRAST, 6 * noise)).astype(np.float32)
    size = paper.shape[1], paper.shape[0]
    weight = cv2.resize(blank, size, interpolation=cv2.INTER_AREA)
    blank_only = pixels * _for_each_colour(blank, pixels)
    colour = cv2.resize(blank_only, size, interpolation=cv2.INTER_AREA)
    weight = _for_each_colour(cv2.GaussianBlur(weight, (0, 0), 1.5), pixels)
    colour = cv2.GaussianBlur(colour, (0, 0), 1.5)
    paper = (colour + 0.05 * paper) / (weight + 0.05)
    strength = _distance(pixels, paper)
    noise = _noise(strength)
    light = _mean_of_colours(paper)
    strongest = np.unravel_index(int(strength.argmax()), strength.shape)
    if np.ptp(light) < FLAT or pixels[strongest].mean() > light.mean():
        return strength, np.broadcast_to(np.float32(noise), strength.shape)
    # Ink takes its share of whatever light there is: all as in full light.
    light = np.maximum(light / light.max(), DARKEST_SHADOW)
    size = strength.shape[1], strength.shape[0]
    light = cv2.resize(light, size, interpolation=cv2.INTER_LINEAR)
    return strength / light, noise / light


def _denoise(pixels: Array) -> Array:
    """Blur a grainy picture just as much as its grain asks for.

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


def _papers(pixels: Array) -> Iterator[Array]:
    """What the paper's colour may be everywhere, as a coarse picture; the likeliest first."""
    coarse = _reduced(_without_strokes(pixels), COARSE, cv2.INTER_AREA)
    rim = np.concatenate([coarse[0], coarse[-1], coarse[:, 0], coarse[:, -1]])
    colour = np.median(rim, axis=0)
    differs = np.abs(rim - colour).reshape(len(rim), -1).max(axis=1) > FLAT
    if differs.mean() < 0.3:  # a canvas, or a scan, however much of it is ink
        yield np.full_like(coarse, colour)
    for window in WINDOWS:
        yield _local_paper(coarse, window)


def _without_strokes(pixels: Array) -> Array:
    """A small picture of whatever is wide, so that a frame along the rim is not taken for paper."""
    small = _reduced(pixels, 4 * COARSE, cv2.INTER_NEAREST)
    return cv2.medianBlur((small * 255 + 0.5).astype(np.uint8), 7) / np.float32(255)


def _reduced(pixels: Array, longest: int, how: int) -> Array:
    return _scaled(pixels, min(1.0, longest / max(pixels.shape)), how)


def _scaled(pixels: Array, scale: float, how: int) -> Array:
    """A factor as large, at least one pixel; `how` is OpenCV's name for the way."""
    height, width = pixels.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=how))


def _local_paper(coarse: Array, window: float) -> Array:
    """A median over windows wider than any stroke.

    A median follows slow changes of light and keeps the straight edge of a shadow. Beyond the
    picture, the paper goes on as it is at its rim, so that ink in a corner is not taken for it.
    """
    height, width = coarse.shape[:2]
    width_of_window = int(window * max(height, width)) | 1
    pad = width_of_window // 2
    rim = _with_clean_rim(coarse)
    padded = cv2.copyMakeBorder(rim, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    inside = slice(pad, pad + height), slice(pad, pad + width)
    padded[inside] = coarse
    median = cv2.medianBlur((padded * 255 + 0.5).astype(np.uint8), width_of_window)[inside]
    return median.astype(np.float32) / 255


def _with_clean_rim(coarse: Array) -> Array:
    """Replace each pixel of the rim by the median of a quarter of the rim around it."""
    height, width = coarse.shape[:2]
    rows = np.r_[np.zeros(width), np.arange(height), np.full(width, height - 1), np.arange(height)]
    columns = np.r_[np.arange(width), np.full(height, width - 1), np.arange(width)[::-1]]
    columns = np.r_[columns, np.zeros(height)]
    rows[-height:] = rows[-height:][::-1]
    where = rows.astype(int), columns.astype(int)
    rim = coarse[where]  # once around, (2H + 2W) or (2H + 2W, 3)
    half = len(rim) // 8
    around = np.concatenate([rim[-half:], rim, rim[:half]]) if half else rim
    windows = np.lib.stride_tricks.sliding_window_view(around, 2 * half + 1, axis=0)
    cleaned = coarse.copy()
    cleaned[where] = np.median(windows, axis=-1)
    return cleaned


def _distance(pixels: Array, paper: Array) -> Array:
    full = cv2.resize(paper, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_LINEAR)
    difference = cv2.subtract(pixels, full)
    return np.asarray(cv2.sqrt(_mean_of_colours(cv2.multiply(difference, difference))))


def _for_each_colour(map_: Array, pixels: Array) -> Array:
    """``(H, W)``, or ``(H, W, 1)`` to go with pixels that have colours."""
    return map_ if pixels.ndim == 2 else map_[..., None]


def _mean_of_colours(pixels: Array) -> Array:
    """``(H, W, 3)`` to ``(H, W)``, several times as fast as NumPy's mean; grey as it is."""
    if pixels.ndim == 2:
        return pixels
    return np.asarray(cv2.transform(pixels, np.full((1, 3), 1 / 3, np.float32)))


def _sample(values: Array) -> Array:
    """A few thousand of all pixels, evenly; they tell enough."""
    step = 1 + min(values.shape) // 50
    return values[::step, ::step]


def _quantile(values: Array, share: float) -> float:
    """The value that a share of all values does not exceed; faster than NumPy's for a few."""
    place = round(share * (values.size - 1))
    return float(np.partition(values, place, axis=None)[place])


def _noise(strength: Array) -> float:
    """Standard deviation of what is paper: its lower third, so that no ink is among it."""
    return _quantile(_sample(strength), 0.3) / 0.385  # for half of a bell curve


@dataclass(frozen=True)
class Components:
    """Connected ink.

    Attributes:
        labels: ``(H, W)`` int32, the number of the component that each pixel belongs to.
        boxes: of each number, ``(N, 4)``.
        areas: how many pixels each has, ``(N,)``; 0 for what is no ink.
        paper: where there is neither ink nor a printed line, ``(H, W)``.
    """

    labels: Array
    boxes: Array
    areas: Array
    paper: Mask

    @classmethod
    def of(cls, mask: Mask) -> "Components":
        # connectedComponentsWithStats takes ten times as long: it looks at the paper as well.
        count, labels = cv2.connectedComponents(mask.view(np.uint8))
        rows, columns = np.nonzero(mask)
        numbers: NDArray[np.int32] = labels[rows, columns].astype(np.int32, copy=False)
        boxes = np.zeros((count, 4), int)
        boxes[:, :2] = max(mask.shape)
        for axis, places in enumerate((columns, rows)):
            np.minimum.at(boxes[:, axis], numbers, places)
            np.maximum.at(boxes[:, axis + 2], numbers, places + 1)
        paper = cv2.erode((~mask).view(np.uint8), np.ones((3, 3))).view(bool)
        return cls(labels, boxes, np.bincount(numbers, minlength=count), paper)

    def only(self, mask: Mask) -> "Components":
        """What of this is in a mask; no more of it becomes paper."""
        return replace(Components.of(mask), paper=self.paper)

    @property
    def mask(self) -> Mask:
        """Where there is ink, ``(H, W)``."""
        return np.asarray((self.areas > 0)[self.labels])


def _ink(strength: Array, noise: Array) -> Components:
    """Tell ink from paper: what cannot be noise, and what is connected to it."""
    sure = np.maximum(LEAST_CONTRAST, 5 * noise)
    candidates = strength[strength > sure]
    if not len(candidates):
        return Components.of(np.zeros(strength.shape, bool))
    strongest = _quantile(candidates, 0.95)
    sure = np.maximum(sure, 0.5 * strongest)
    ink = Components.of(strength > np.maximum(max(0.05, 0.3 * strongest), 3 * noise))
    is_ink = np.zeros(len(ink.areas), bool)
    is_ink[ink.labels[strength > sure]] = True
    ink.areas[~is_ink] = 0
    return ink


@dataclass(frozen=True)
class Ink:
    """Connected ink, or several pieces of it that belong together.

    Attributes:
        box: around it, in pixels of what is searched.
        area: how many pixels it has.
        labels: ``(H, W)`` int32, the number of the piece that each pixel belongs to.
        numbers: the pieces' numbers.
        parts: what may also be digits of their own, from left to right; empty: it has none.
    """

    box: Box
    area: int
    labels: Array
    numbers: frozenset[int]
    parts: tuple["Ink", ...] = ()

    @property
    def width(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]

    @property
    def size(self) -> int:
        return max(self.width, self.height)


# --- printed lines --------------------------------------------------------------------------------

FORM_WIDTH = 1.25  # of what may be a form's lines, as a share of the usual piece of ink
FORM_SHARE = 0.6  # of its ink, which is straight and thin
LEVEL = 0.4  # length of what is a line and no stroke, as a share of the usual piece
THIN = 0.15  # thickness of what is a line in any form
LONG = 2.0  # length of what can only be a form's line, as a share of the usual piece
THICKER = 2.0  # than nearly all of those are, and still a line
PART = 0.08  # size of what is inside a form and more than a speck, as a share of the form


def _without_printed_lines(ink: Components) -> Components:
    """Remove forms and rules; strokes that cross them stay."""
    ink = _without_forms(ink)
    for axis in (0, 1):
        if _may_be_ruled(ink, axis):
            mask = ink.mask
            ink = ink.only(_without_rules(mask.T).T if axis else _without_rules(mask))
    return ink


def _without_forms(ink: Components) -> Components:
    """Remove cells, tables, combs and frames."""
    pieces = _largest(ink)
    may_be_form = [_may_be_form(piece, inside) for piece, inside in _with_insides(pieces)]
    usual = _usual_size([piece for piece, may in zip(pieces, may_be_form, strict=True) if not may])
    lines = np.zeros(ink.labels.shape, bool)
    for piece, may in zip(pieces, may_be_form, strict=True):
        if may or piece.width > FORM_WIDTH * usual:
            area, mine = _around(piece, 2)
            straight = _level_lines(mine, usual) | _level_lines(mine.T, usual).T
            if straight.sum() > FORM_SHARE * piece.area:
                lines[area] |= straight
    return ink.only(ink.mask & ~lines) if lines.any() else ink


def _may_be_form(piece: Ink, inside: list[Ink]) -> bool:
    inside = [other for other in inside if other.size > PART * piece.size]
    return len(inside) > 1 or _frames_any(piece, inside)


def _level_lines(mask: Array, usual: float) -> Mask:
    """What is too long and thin for a stroke; a little aslant is level too.

    Args:
        mask: ``(H, W)`` uint8, ink 1.
        usual: size of the usual piece of ink, in pixels.
    """
    near = cv2.dilate(mask, np.ones((5, 1), np.uint8))

    def runs(shares: float) -> Mask:
        row = np.ones((1, max(3, round(shares * usual))), np.uint8)
        return np.asarray((cv2.morphologyEx(near, cv2.MORPH_OPEN, row) > 0) & (mask > 0))

    thickest = THIN * usual
    depths = cv2.distanceTransform(mask, cv2.DIST_L2, 3)[runs(LONG)]
    if len(depths):
        thickest = max(thickest, THICKER * 2 * _quantile(depths, 0.9))
    column = np.ones((max(3, round(thickest)), 1), np.uint8)
    strokes = cv2.morphologyEx(mask, cv2.MORPH_OPEN, column)
    return np.asarray(runs(LEVEL) & (strokes == 0))


def _may_be_ruled(ink: Components, axis: int) -> bool:
    """Whether there is ink as long as rules are: along axis 0, level; 1, upright."""
    lengths = (ink.boxes[:, 2 + axis] - ink.boxes[:, axis])[ink.areas > 0]
    side = ink.labels.shape[1 - axis]
    return bool((lengths > 0.8 * side).any() or (lengths > 0.5 * side).sum() > 2)


def _without_rules(mask: Mask) -> Mask:
    """Remove the lines of ruled paper: level, straight, thin, and from edge to edge, or several.

    Where a stroke crosses one, the stroke stays.
    """
    height, width = mask.shape
    if min(height, width) < 60:
        return mask
    thickest = max(5, height // 60)
    strokes = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((thickest + 1, 1), np.uint8)
    )
    ys, xs = np.nonzero(mask & (strokes == 0))
    middle = width / 2
    slopes = np.linspace(-0.06, 0.06, 25)
    profiles = [
        np.bincount((ys - slope * (xs - middle) + height).astype(int), minlength=3 * height)
        for slope in slopes
    ]
    best = int(np.argmax([np.square(profile, dtype=np.float64).sum() for profile in profiles]))
    level = (ys - slopes[best] * (xs - middle) + height).astype(int)
    full = np.flatnonzero(profiles[best] > 0.3 * width)
    rules = []
    for rule in np.split(full, np.flatnonzero(np.diff(full) > 1) + 1) if len(full) else []:
        on_rule = (level >= rule[0] - 2) & (level <= rule[-1] + 2)
        rules.append((on_rule, len(np.unique(xs[on_rule]))))
    kept = mask.copy()
    for on_rule, length in rules:
        if length > 0.8 * width or (length > 0.5 * width and len(rules) > 2):
            kept[ys[on_rule], xs[on_rule]] = False
    return kept


# --- from pieces of ink to digits, in reading order -----------------------------------------------

FAINTEST_ELSEWHERE = 0.42  # ink, as a share of the strongest that is not at the picture's rim
FAINTEST_AT_THE_RIM = 0.65
# Gaps between strokes that may be one digit's, as a share of the usual digit's size.
NEAR_BESIDE, NEAR_BELOW = 0.25, 0.4
TALLEST, WIDEST = 1.6, 1.25  # a digit of several pieces, as a share of it
SMALLEST = 0.3  # height of a digit, as a share of it
BAR_FROM = 4.0  # width over height
MOST_STROKES = 3  # pieces of one digit
LARGEST_WHOLE = 2.2  # a digit all of whose strokes are apart, as a share of the usual one of them
MAX_PIECES = 500  # the largest ones; a picture with more is no writing


def _pieces(ink: Components, pixels: Array, strength: Array) -> list[Ink]:
    """Connected ink, without specks, frames, and edges of paper or shadows."""
    pieces = _largest(ink)
    usual = _usual_size(pieces)
    pieces = [piece for piece in pieces if piece.size > 0.12 * usual]
    pieces = [piece for piece in pieces if _is_on_one_paper(piece, ink, pixels)]
    pieces = _without_faint_ones(pieces, strength)
    return [piece for piece, inside in _with_insides(pieces) if not _frames_any(piece, inside)]


def _largest(ink: Components) -> list[Ink]:
    """All connected ink, from the largest on."""
    pieces = []
    for number in np.argsort(-ink.areas)[:MAX_PIECES].tolist():
        box, area = tuple(ink.boxes[number].tolist()), int(ink.areas[number])
        piece = Ink(box, area, ink.labels, frozenset([number]))
        if piece.size >= 5 and area >= 5:
            pieces.append(piece)
    return pieces


def _with_insides(pieces: list[Ink]) -> list[tuple[Ink, list[Ink]]]:
    """Each piece, and those that lie within its box."""
    boxes = np.array([piece.box for piece in pieces]).reshape(-1, 4)
    starts, ends = boxes[:, :2], boxes[:, 2:]
    inside: Mask = np.all((starts[:, None] < starts) & (ends < ends[:, None]), axis=2)
    return [(piece, list(compress(pieces, row))) for piece, row in zip(pieces, inside, strict=True)]


def _is_on_one_paper(piece: Ink, ink: Components, pixels: Array) -> bool:
    """Whether the colour around a piece is the same on all its sides, or changes evenly.

    The edge of a sheet or of a shadow has another colour on either side.
    """
    if piece.size < 2 * FIT:  # too little to tell by
        return True
    step = 1 + piece.size // 100  # of the pixels, some thousand tell enough
    reach = 2 + piece.size // 25
    area, mine = _around(piece, 2 * reach, step)
    reach = 1 + reach // step
    near, far = (cv2.dilate(mine, np.ones((2 * n + 1, 2 * n + 1))) for n in (reach, 2 * reach))
    rows, columns = np.nonzero((far > near) & ink.paper[area])
    if len(rows) < 10:
        return True
    pixels = np.atleast_3d(pixels[area])
    around = pixels[rows, columns]
    contrast = pixels[mine > 0].mean(axis=0) - around.mean(axis=0)
    shades = around @ contrast / max(float(contrast @ contrast), 1e-6)
    plane = np.stack([np.ones(len(rows)), rows, columns], axis=1).astype(np.float32)
    residual = shades - plane @ np.linalg.lstsq(plane, shades)[0]
    return _quantile(residual, 0.8) - _quantile(residual, 0.2) < 0.5


def _without_faint_ones(pieces: list[Ink], strength: Array) -> list[Ink]:
    """Drop what is far fainter than the writing: rules of the paper, corners in shadow.

    Of what reaches the picture's rim, too little is seen to tell by its form, so less is enough.
    """
    height, width = strength.shape

    def reaches_the_rim(piece: Ink) -> bool:
        left, top, right, bottom = piece.box
        return left == 0 or top == 0 or right == width or bottom == height

    def typical_strength(piece: Ink) -> float:
        area, mine = _around(piece, 0)
        return _quantile(strength[area][mine > 0], 0.85)

    at_the_rim = np.array([reaches_the_rim(piece) for piece in pieces], bool)
    if len(pieces) < 2 or at_the_rim.all():
        return pieces
    strengths = np.array([typical_strength(piece) for piece in pieces])
    least = np.where(at_the_rim, FAINTEST_AT_THE_RIM, FAINTEST_ELSEWHERE)
    return list(compress(pieces, strengths >= least * strengths[~at_the_rim].max()))


def _around(digit: Ink, margin: int, step: int = 1) -> tuple[tuple[slice, slice], Array]:
    """The place of a digit with a margin, and in it, what is its own ink, uint8.

    Args:
        digit: which.
        margin: in pixels.
        step: take each `step`-th row and column only.
    """
    left, top, right, bottom = digit.box
    rows = slice(max(0, top - margin), bottom + margin, step)
    columns = slice(max(0, left - margin), right + margin, step)
    labels = digit.labels[rows, columns]
    mine = np.zeros(labels.shape, bool)
    for number in digit.numbers:
        mine |= labels == number
    return (rows, columns), mine.view(np.uint8)


def _frames_any(piece: Ink, inside: Sequence[Ink]) -> bool:
    """Whether a piece is drawn around one within its box: a frame, a table, a ring."""
    return any(_frames(piece, other) for other in inside)


def _frames(piece: Ink, other: Ink) -> bool:
    if other.height <= 0.25 * piece.height:
        return False
    left, top, right, bottom = other.box
    x, y = (left + right) // 2, (top + bottom) // 2
    sides = piece.labels[y, :x], piece.labels[y, x:], piece.labels[:y, x], piece.labels[y:, x]
    return all(np.isin(side, list(piece.numbers)).any() for side in sides)


def _usual_size(pieces: Sequence[Ink]) -> float:
    """The longest side of the piece up to which, from low to high ones, half of all height is."""
    by_height = sorted(pieces, key=lambda piece: piece.height)
    total = np.cumsum([piece.height for piece in by_height])
    return by_height[np.searchsorted(total, total[-1] / 2)].size if pieces else 0.0


def _whole_size(pieces: Sequence[Ink], usual: float) -> float:
    """The usual size of digits: of pieces, unless they are so few that all may be one digit's."""
    if not 1 < len(pieces) <= MOST_STROKES:
        return usual
    return max(usual, min(LARGEST_WHOLE * usual, reduce(_union, pieces).size))


def _join(pieces: list[Ink]) -> list[Ink]:
    """Put together what can only be the strokes of one digit."""
    usual = _usual_size(pieces)
    joined = True
    while joined:
        joined = False
        for piece in sorted(pieces, key=lambda piece: piece.size):
            others = [other for other in pieces if other is not piece]
            partner = min(
                (other for other in others if _belong(piece, other, usual)),
                key=lambda other: sum(_gaps(piece.box, other.box)),
                default=None,
            )
            if partner is not None:
                both = _union(piece, partner)
                pieces = [other for other in others if other is not partner] + [both]
                joined = True
                break
    return [piece for piece in pieces if piece.width < 4 * usual]


def _near_each_other(pieces: list[Ink], whole: float) -> list[Ink]:
    """Put together what may be the strokes of one digit, or digits beside each other."""
    places: list[Ink] = []
    for piece in pieces:
        place, others = replace(piece, parts=(piece,)), []
        for other in places:
            if any(_may_belong(piece, part, whole) for part in other.parts) and (
                _union(place, other).height <= TALLEST * whole  # else it would be two lines
            ):
                parts = (*place.parts, *other.parts)
                place = replace(_union(place, other), parts=parts)
            else:
                others.append(other)
        places = [*others, place]
    return [
        replace(place, parts=tuple(sorted(place.parts, key=lambda part: sum(part.box[::2]))))
        for place in places
    ]


def _may_belong(a: Ink, b: Ink, whole: float) -> bool:
    across, down = _gaps(a.box, b.box)
    is_near = across <= NEAR_BESIDE * whole and down <= NEAR_BELOW * whole
    return is_near and _is_one_digit_at_most(_union(a, b), whole)


def _is_one_digit_at_most(ink: Ink, whole: float) -> bool:
    return ink.height <= TALLEST * whole and ink.width <= WIDEST * whole


def _gaps(a: Box, b: Box) -> tuple[int, int]:
    """How far two boxes are apart, across and down; 0 where they overlap."""
    across = max(a[0], b[0]) - min(a[2], b[2])
    down = max(a[1], b[1]) - min(a[3], b[3])
    return max(0, across), max(0, down)


def _belong(piece: Ink, other: Ink, usual: float) -> bool:
    """Whether two pieces are strokes of one digit."""
    a, b = piece.box, other.box
    across, down = _gaps(a, b)
    overlap = min(a[2], b[2]) - max(a[0], b[0])
    height = max(a[3], b[3]) - min(a[1], b[1])
    if overlap >= 0.5 * min(piece.width, other.width):  # one above the other, as the bar of a 5
        below = max(piece, other, key=lambda ink: ink.box[1])
        if below.width > BAR_FROM * below.height:  # the foot of a 2, or a line drawn under a digit
            return False
        # Digits of two lines would be twice the usual height, and a gap more.
        return height < (1.95 if down <= 0.15 * usual else 1.5) * usual and down <= 0.25 * usual
    lower = min(piece.height, other.height)
    beside = min(a[3], b[3]) - max(a[1], b[1]) > 0.5 * lower
    if lower < 0.6 * usual and (beside or down <= 0.1 * usual) and across <= 0.12 * usual:
        return True
    return lower < 0.8 * usual and beside and across <= 0.06 * usual


def _union(a: Ink, b: Ink) -> Ink:
    box = (
        min(a.box[0], b.box[0]),
        min(a.box[1], b.box[1]),
        max(a.box[2], b.box[2]),
        max(a.box[3], b.box[3]),
    )
    return Ink(box, a.area + b.area, a.labels, a.numbers | b.numbers)


def lines(boxes: Sequence[Box]) -> list[list[int]]:
    """Which digits stand in a line, lines from top to bottom, each from left to right.

    A digit stands in the line whose last digit is most beside it, so lines may slope.
    """

    def shared(line: list[int], box: Box) -> float:
        _, top, _, bottom = boxes[line[-1]]
        overlap = min(bottom, box[3]) - max(top, box[1])
        return overlap / min(bottom - top, box[3] - box[1])

    found: list[list[int]] = []
    for index in sorted(range(len(boxes)), key=lambda index: boxes[index][0]):
        box = boxes[index]
        line = max(found, key=lambda line: shared(line, box), default=None)
        if line is None or shared(line, box) < 0.2:
            found.append([index])
        else:
            line.append(index)
    return sorted(found, key=lambda line: np.mean([boxes[index][1::2] for index in line]))


def _grow(box: Box, factor: float) -> Box:
    """A box in pixels of the whole picture."""
    left, top, right, bottom = (round(edge * factor) for edge in box)
    return left, top, right, bottom


# --- one digit, as MNIST has it -------------------------------------------------------------------

THINNEST, THICKEST = 0.09, 0.22  # strokes, as a share of the longest side
FAINTEST = 0.4  # ink, as a share of what most of the same digit's ink has
CUT_FROM = 0.6  # width over height; what is wider may be two digits
CUT_SLANTS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # columns a row
CUTS_A_SLANT = 2
CUT_MARGIN = 0.2  # of the width, where no digit would be left
SPECK = 0.1  # of a half's ink; what is less and apart is the other half's
MAX_SIZE_TO_CUT = 100  # pixels along the longest side; cuts take no more
EDGE = 0.3  # ink that a digit's longest side reaches to; its faint ends are part of it
MIN_SIZE = 60  # pixels along the longest side; of less, strokes cannot be measured
MAX_SIZE = 320  # ... and a larger digit has no more to tell


def _prepare(ink: Array, box: Box) -> Array | None:
    """Fit a digit's ink into the frame; None for a blob, which no pen has drawn.

    Args:
        ink: ``(H, W)`` in [0, 1].
        box: around it, without the margin, in the same pixels.

    Source: the MNIST page, "size normalized to fit in a 20x20 pixel box while preserving their
    aspect ratio ... centered in a 28x28 image by computing the center of mass".
    """
    left, top, right, bottom = box
    # If it is as large as it should be, resampling would only blur it.
    if FIT - 2 <= max(right - left, bottom - top) <= FIT:
        return _centre(ink)
    ink = _sized(ink, MIN_SIZE, MAX_SIZE)
    solid = ink > 0.5
    if not solid.any():
        return None
    depth = cv2.distanceTransform(_pad(solid.view(np.uint8), 1), cv2.DIST_L2, 5)
    longest = max(np.ptp(axis) + 1 for axis in np.nonzero(solid))
    if 2 * depth.max() > 0.7 * longest:
        return None
    ink = _with_usual_strokes(ink, depth[1:-1, 1:-1], float(longest))
    rows, columns = (np.flatnonzero((ink > EDGE).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _centre(_sized(ink, FIT, FIT))


def _ways(
    ink: Ink, usual: float, whole: float, strength: Array, noise: Array, shrunk: float
) -> Place:
    """The ways to take what is written at one place."""
    arcs = []
    for start, end in combinations(range(len(ink.parts) + 1), 2):
        if end - start > MOST_STROKES:
            continue
        one = reduce(_union, ink.parts[start:end])
        several = end - start > 1
        if several and not _is_one_digit_at_most(one, whole):
            continue
        digit = None
        if one.height > SMALLEST * usual:
            crop, frame = _cut_out(one, strength, noise)
            digit = _digit(crop, one.box, frame, shrunk)
        if digit or not several:
            arcs.append(Arc(start, end, digit))
    return tuple(arcs)


def _digit(ink: Array, box: Box, frame: Box, shrunk: float) -> FoundDigit | None:
    """Prepare ink; boxes are in pixels of what is searched."""
    image = _prepare(ink, box)
    if image is None:
        return None
    kept = _reduced(ink, MAX_SIZE_TO_CUT, cv2.INTER_AREA)
    return FoundDigit(image, _grow(box, shrunk), kept, _grow(frame, shrunk))


def halves(digit: FoundDigit) -> list[tuple[FoundDigit, FoundDigit]]:
    """The ways to cut in two what may be two digits that touch.

    Cuts are straight, upright or aslant, where there is least ink in their way.
    """
    height, width = digit.ink.shape
    if width < CUT_FROM * height:
        return []
    rows, columns = np.indices(digit.ink.shape)
    ways = []
    for slant in CUT_SLANTS:
        across = columns + slant * (rows - height / 2)
        bins = np.clip(across, 0, width - 1).astype(int)
        profile = np.bincount(bins.ravel(), digit.ink.ravel(), minlength=width)
        for cut in _valleys(profile):
            sides = (across < cut), (across >= cut)
            left, right = (_half(digit, np.where(side, digit.ink, 0)) for side in sides)
            if left and right:
                ways.append((left, right))
    return ways


def _valleys(profile: Array) -> list[int]:
    """Where there is least, and where there is least apart from there; not near the ends."""
    margin = max(1, round(CUT_MARGIN * len(profile)))
    inner = profile[margin:-margin].astype(float)
    valleys: list[int] = []
    while len(valleys) < CUTS_A_SLANT and np.isfinite(inner).any():
        valley = int(np.argmin(inner))
        valleys.append(margin + valley)
        inner[max(0, valley - margin // 2) : valley + margin // 2 + 1] = np.inf
    return valleys


def _half(digit: FoundDigit, ink: Array) -> FoundDigit | None:
    pieces = Components.of(ink > 0.5)
    specks = np.flatnonzero(pieces.areas[1:] < SPECK * pieces.areas[1:].sum()) + 1
    ink = np.where(np.isin(pieces.labels, specks), 0, ink).astype(np.float32)
    rows, columns = (np.flatnonzero((ink > 0.5).any(axis=axis)) for axis in (1, 0))
    if len(rows) < 5:
        return None
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    image = _prepare(ink, box)
    if image is None:
        return None
    left, top, right, _ = digit.frame
    scale = (right - left) / ink.shape[1]
    corner = left, top, left, top
    whole = tuple(round(start + edge * scale) for start, edge in zip(corner, box, strict=True))
    return replace(digit, image=image, box=whole, ink=ink)


def _cut_out(digit: Ink, strength: Array, noise: Array) -> tuple[Array, Box]:
    """A digit's ink in [0, 1] with a margin, and where it is."""
    area, mine = _around(digit, 2 + digit.size // 20)
    crop = strength[area]
    full = max(_quantile(crop[mine > 0], 0.85), 1e-6)
    floor = np.minimum(2 * noise[area], 0.3 * full)
    peak: Array | float = full
    if digit.size > 2 * FIT:  # the edges of smaller ones are faint as they should be
        # What is thin is also faint in a blurred picture: ink is what is dark for its surroundings.
        reach = 1 + digit.size // 12
        peak = cv2.dilate(crop, np.ones((2 * reach + 1, 2 * reach + 1)))
        peak = np.clip(cv2.blur(peak, (2 * reach + 1, 2 * reach + 1)), FAINTEST * full, full)
    ink = np.clip((crop - floor) / (peak - floor), 0, 1)
    reach = 1 + digit.size // 40
    near = cv2.dilate(mine, np.ones((2 * reach + 1, 2 * reach + 1)))
    rows, columns = area
    left, top = columns.start, rows.start
    frame = left, top, left + crop.shape[1], top + crop.shape[0]
    return np.where(near > 0, ink, 0).astype(np.float32), frame


def _sized(ink: Array, least: int, most: int) -> Array:
    """Scale ink so that its longest side, in pixels, is `least` to `most`."""
    scale = min(max(max(ink.shape), least), most) / max(ink.shape)
    if scale == 1:
        return ink
    if scale < 1:
        return _scaled(ink, scale, cv2.INTER_AREA)
    return np.clip(_scaled(ink, scale, cv2.INTER_CUBIC), 0, 1)


def _with_usual_strokes(ink: Array, depth: Array, longest: float) -> Array:
    """Thicken what a hair has drawn and thin what a brush has, to strokes as MNIST has them.

    Args:
        ink: ``(H, W)`` in [0, 1].
        depth: how far inside the ink each pixel is, in pixels.
        longest: the digit's longest side, in pixels.
    """
    thickness = max(1.0, 4 * float(depth[depth > 0].mean()) - 2)
    # The longest side changes with the strokes: both are at their limit together.
    if thickness < THINNEST * longest:
        add = (THINNEST * longest - thickness) / (1 - THINNEST) / 2
        margin = int(add) + 2
        padded = _pad(ink, margin)
        outside = cv2.distanceTransform((padded <= 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        return np.asarray(np.clip(add + 1 - outside, 0, 1))
    if thickness > THICKEST * longest:
        remove = (thickness - THICKEST * longest) / (1 - THICKEST) / 2
        remove = min(remove, float(depth.max()) / 2)
        return np.asarray(np.clip(depth - remove, 0, 1))
    return ink


def _pad(ink: Array, margin: int) -> Array:
    """Paper around ink, several times as fast as NumPy's pad."""
    return np.asarray(
        cv2.copyMakeBorder(ink, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    )


def _centre(ink: Array) -> Array:
    """Put ink into the frame, its centre of mass as near to pixel 14, 14 as whole pixels allow.

    There MNIST has it, half a pixel beyond the middle: 13.99, 14.00 on average.
    """
    height, width = ink.shape
    total = max(float(ink.sum()), 1e-6)
    down = float(ink.sum(axis=1) @ np.arange(height)) / total
    right = float(ink.sum(axis=0) @ np.arange(width)) / total
    pad = FRAME  # enough for any shift
    top, left = (round(pad + place - FRAME / 2) for place in (down, right))
    padded = _pad(ink, pad)
    return padded[None, top : top + FRAME, left : left + FRAME].astype(np.float32)

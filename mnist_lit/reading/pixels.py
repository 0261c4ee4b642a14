"""Convert images and arrays of any mode, depth and transparency to 8-bit pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from mnist_lit.reading.arrays import Array
from mnist_lit.reading.limits import SIXTEEN_BITS, PictureError

MAX_UNREDUCED = 16_000_000  # pixels of a picture that is reduced before anything else is done to it
WORK_PX = 1600  # longest side of the searched picture: a page keeps 20 px a line
# Levels of 255: if opaque colours differ by less, only the transparency draws something.
SAME_COLOUR_LEVELS = 16

Range = tuple[float, float]
"""The values that become 0 and 255."""


def from_array(array: NDArray[Any]) -> Image.Image:
    """Make an image of a grey or RGB(A) array, channels last or first.

    Values other than uint8 are scaled by `usual_range`: floats from 0 to 1, say.

    Raises:
        PictureError: it has another shape, or no numbers.
    """
    shape = array.shape
    if array.ndim == 3 and shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not is_picture or not array.size or array.dtype.kind not in "buif":
        raise PictureError(
            f"is an array {shape} of {array.dtype}: (H, W), (H, W, 3) or (3, H, W) is needed"
        )
    if array.dtype != np.uint8:
        values = array.astype(np.float64)
        array = _scaled(values, usual_range(*_extremes(values)))
    return Image.fromarray(np.ascontiguousarray(array))


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; reduce a picture of more than `MAX_UNREDUCED` pixels."""
    image.load()  # only then a GIF knows the mode of a later frame
    turned = _exif(image).get(ExifTags.Base.Orientation, 1) != 1
    if image.width * image.height > MAX_UNREDUCED:
        image = _in_bands(image)
    return ImageOps.exif_transpose(image) if turned else image


def has_wide_range(mode: str) -> bool:
    """Tell modes of more than 8 bits, whose values need a `Range`."""
    return mode in ("I", "F", *SIXTEEN_BITS)


def extremes(image: Image.Image) -> Range:
    """Return the darkest and the lightest value of a grey image, of those that are finite."""
    return _extremes(np.asarray(image).astype(np.float64))


def usual_range(low: float, high: float) -> Range:
    """Return the range that values are usually meant in: 0 to 1, or all values of 8 to 16 bits.

    Many scanners and cameras fill 10, 12 or 14 of 16 bits. Other values have their own range.
    """
    if low >= 0:
        for top in (1, *(2**bits - 1 for bits in range(8, 17))):
            if high <= top:
                return 0, top
    return low, high


def to_uint8(image: Image.Image, value_range: Range | None = None) -> NDArray[np.uint8]:
    """Convert any mode to ``(H, W, 3)``, or to ``(H, W)`` if all is grey, which costs a third.

    Args:
        image: its transparent pixels become paper.
        value_range: of a mode with more than 8 bits; None: the usual one of 16 bits, and for what
            has no usual one, from the darkest to the lightest value.
    """
    if has_wide_range(image.mode):
        values = np.asarray(image).astype(np.float64)
        if value_range is None:
            low, high = _extremes(values)
            is_deep = image.mode in SIXTEEN_BITS
            value_range = usual_range(low, high) if is_deep else (low, high)
        return _scaled(values, value_range)
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


def _exif(image: Image.Image) -> Image.Exif:
    """Read the EXIF data; empty if it is damaged."""
    try:
        return image.getexif()
    except Exception:  # damaged EXIF raises many kinds of exceptions
        return Image.Exif()


def _in_bands(image: Image.Image) -> Image.Image:
    """Reduce a picture to less than twice `WORK_PX`, with no large copy made on the way."""
    factor = max(1, max(image.size) // WORK_PX)
    if image.mode == "P" or image.has_transparency_data:
        mode = "RGBA" if image.has_transparency_data else "RGB"
    elif image.mode in SIXTEEN_BITS:
        mode = "I"
    else:
        mode = "L" if image.mode == "1" else image.mode
    height = factor * max(1, MAX_UNREDUCED // 8 // image.width // factor)
    bands = []
    for top in range(0, image.height, height):
        band = image.crop((0, top, image.width, min(top + height, image.height)))
        bands.append(band.convert(mode).reduce(factor))
    reduced = Image.new(mode, (bands[0].width, sum(band.height for band in bands)))
    top = 0
    for band in bands:
        reduced.paste(band, (0, top))
        top += band.height
    reduced.info["exif"] = _exif(image).tobytes()
    return reduced.convert("I;16") if image.mode in SIXTEEN_BITS else reduced


def _extremes(values: Array) -> Range:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _scaled(values: Array, value_range: Range) -> NDArray[np.uint8]:
    """Scale a range to 0 to 255, in place, as copies take memory; NaN becomes the darkest value."""
    low, high = value_range
    np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
    values -= low
    values *= 255 / max(high - low, 1e-6)
    values += 0.5
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def _on_paper(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put something transparent on paper.

    If most pixels are transparent, or all opaque ones have one colour, the opaque pixels are ink,
    and paper is white or black, whichever contrasts. Otherwise holes take the median colour.
    """
    colours = rgba[..., :3]
    if rgba[..., 3].min() == 255:
        return colours
    alpha = rgba[..., 3:].astype(np.float32) / 255
    opaque = colours[alpha[..., 0] > 0.5]
    paper = np.full(3, 255, np.float32)
    if len(opaque) and (alpha.mean() < 0.5 or np.ptp(opaque, axis=0).max() < SAME_COLOUR_LEVELS):
        paper[:] = 255 if opaque.mean() < 128 else 0
    elif len(opaque):
        paper[:] = np.median(opaque, axis=0)
    return (colours * alpha + paper * (1 - alpha) + 0.5).astype(np.uint8)

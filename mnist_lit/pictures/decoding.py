"""From a file, bytes or an image to pixels: any format, mode and transparency."""

import os
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mnist_lit.errors import UserError
from mnist_lit.pictures.arrays import Array, reduced

Picture: TypeAlias = str | os.PathLike[str] | bytes | Image.Image
# Only what decodes pixels and nothing more: Pillow would give an EPS to Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP", "TIFF")
# What telephones take stays below; beyond, a picture is taken for a bomb.
MAX_PIXELS = 120_000_000
# Of a picture all of whose pixels are in memory at once, at four bytes each and more for a while.
MAX_PIXELS_AT_ONCE = 55_000_000
MAX_PIXELS_OF_WEBP = 30_000_000  # whose decoder takes twelve bytes
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
LARGE = 16_000_000  # pixels of a picture that is reduced before anything else is done to it
WORK_PX = 1600  # longest side of what is searched for digits: a page keeps 20 px a line


class PictureError(UserError):
    """A file or bytes that are no picture, or a damaged one."""


def decode(picture: Picture) -> tuple[Array, float]:
    """Read a picture, its longest side reduced to `WORK_PX`.

    Returns:
        Pixels in [0, 1], ``(H, W)`` of a grey picture or ``(H, W, 3)``, and how many pixels of the
        picture one of them stands for.
    """
    if not isinstance(picture, str | os.PathLike | bytes | Image.Image):
        raise TypeError(f"a picture is a path, bytes or a PIL image, not {type(picture).__name__}")
    name = "the picture" if isinstance(picture, bytes | Image.Image) else str(picture)
    try:
        if isinstance(picture, Image.Image):
            return _pixels(picture, max(picture.size))
        source = BytesIO(picture) if isinstance(picture, bytes) else Path(picture)
        if isinstance(source, Path) and not (source.is_file() or source.is_dir()):
            source.stat()  # it may not be there at all
            raise PictureError("is a pipe or a device, and no picture")
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > (most := _most_pixels(image)):
                raise PictureError(_too_large(most))
            longest = max(image.size)
            image.draft(None, (WORK_PX, WORK_PX))  # a JPEG is decoded at half the size, or less
            return _pixels(image, longest)
    except PictureError as error:
        raise PictureError(f"{name} {error}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name} {_too_large(MAX_PIXELS)}") from None
    except UnidentifiedImageError:
        raise PictureError(
            f"{name} is no picture that can be read (PNG, JPEG, WebP, BMP, TIFF, GIF)"
        ) from None
    except Exception as error:  # whatever bytes a file holds, decoders meet them their own way
        if isinstance(error, OSError) and error.strerror:
            raise PictureError(f"{name} cannot be read: {error.strerror}") from None
        raise PictureError(f"{name} is damaged or cut off") from error


def _most_pixels(image: Image.Image) -> int:
    """How many pixels a picture may have, so that decoding it takes less than 500 MB."""
    if image.format == "WEBP":
        return MAX_PIXELS_OF_WEBP
    in_parts = image.format == "JPEG" and "progressive" not in image.info
    is_light = in_parts or image.mode in ("1", "L", "P", *SIXTEEN_BITS)
    return MAX_PIXELS if is_light else MAX_PIXELS_AT_ONCE


def _too_large(most: int) -> str:
    return f"is refused: more than {most / 1e6:.0f} million pixels"


def _pixels(image: Image.Image, longest: int) -> tuple[Array, float]:
    """As `decode`; `longest` is the picture's longest side, before any reduction."""
    turned = _exif(image).get(ExifTags.Base.Orientation, 1) != 1
    if image.width * image.height > LARGE:
        image = _in_bands(image)
    if turned:
        image = ImageOps.exif_transpose(image)
    pixels: Array = _colours(image)
    pixels = reduced(pixels, WORK_PX, cv2.INTER_AREA)
    return pixels.astype(np.float32) / 255, longest / max(pixels.shape)


def _exif(image: Image.Image) -> Image.Exif:
    """What a camera has written; nothing, if that is damaged."""
    try:
        return image.getexif()
    except Exception:  # whatever bytes it has, Pillow meets them its own way
        return Image.Exif()


def _in_bands(image: Image.Image) -> Image.Image:
    """A picture reduced to less than twice `WORK_PX`, with no large copy made on the way."""
    factor = max(1, max(image.size) // WORK_PX)
    if image.mode == "P" or image.has_transparency_data:
        mode = "RGBA" if image.has_transparency_data else "RGB"
    elif image.mode in SIXTEEN_BITS:
        mode = "I"
    else:
        mode = "L" if image.mode == "1" else image.mode
    height = factor * max(1, LARGE // 8 // image.width // factor)
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


def _colours(image: Image.Image) -> NDArray[np.uint8]:
    """Colours of any mode, ``(H, W, 3)``, or ``(H, W)`` if all are grey, which costs a third.

    Whatever is transparent becomes paper.
    """
    if image.mode in SIXTEEN_BITS:  # of which many scanners and cameras fill 10, 12 or 14 bits
        values = np.asarray(image).astype(np.float32)
        num_bits = max(8, int(values.max()).bit_length())
        return _grey(values * 255 / (2**num_bits - 1))
    if image.mode in ("I", "F"):  # no range is agreed on: the darkest is 0, the lightest 255
        values = np.asarray(image).astype(np.float64)
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
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

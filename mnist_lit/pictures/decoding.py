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
MAX_PIXELS = 120_000_000  # what telephones take stays below; beyond, a picture is taken for a bomb
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
    """As `decode`; `longest` is the picture's longest side, before any reduction."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    pixels: Array = _colours(image)
    pixels = reduced(pixels, WORK_PX, cv2.INTER_AREA)
    return pixels.astype(np.float32) / 255, longest / max(pixels.shape)


def _colours(image: Image.Image) -> NDArray[np.uint8]:
    """Colours of any mode, ``(H, W, 3)``, or ``(H, W)`` if all are grey, which costs a third.

    Whatever is transparent becomes paper.
    """
    if image.mode.startswith("I;16"):  # of which many scanners and cameras fill 10, 12 or 14 bits
        values = np.asarray(image).astype(np.float32)
        num_bits = max(8, int(values.max()).bit_length())
        return _grey(values * 255 / (2**num_bits - 1))
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

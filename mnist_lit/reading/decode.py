"""Read pictures (files, bytes, PIL images, arrays) as pixels, page by page."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mnist_lit.reading import pdf
from mnist_lit.reading.arrays import Array, reduced
from mnist_lit.reading.limits import (
    MAX_PAGES,
    MAX_PIXELS,
    PictureError,
    check_size,
    max_pages,
    too_large,
)
from mnist_lit.reading.pixels import WORK_PX, from_array, to_uint8, upright

try:
    from pillow_heif import register_heif_opener
except ImportError:
    HEIF: tuple[str, ...] = ()
else:
    register_heif_opener()
    HEIF = ("HEIF",)

Picture: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
# Only what decodes pixels and nothing more: Pillow would give an EPS to Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP", "TIFF", *HEIF)
# Ends of the names of files that are pictures, whether or not the extra for them is installed.
SUFFIXES = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff",
    ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".pfm", ".heic", ".heics", ".heif", ".heifs", ".hif",
}  # fmt: skip
# Their frames are pages, as a TIFF's are. JPEG and HEIC hold a picture with previews of it.
ANIMATED = ("GIF", "PNG", "WEBP")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
NEW_SUBFILE_TYPE = 254  # a tag of TIFF ...
REDUCED_OR_MASK = 0b101  # ... with these bits where an image is a smaller copy, or a mask


@dataclass(frozen=True)
class Page:
    """One page of a picture file.

    Attributes:
        picture: the file, or anything else that has one page only.
        frame: its place in the file.
        number: the page, counted from 1; None where there is only one.
        note: which pages are left out, if it is the last one that is read; else "".
    """

    picture: Picture
    frame: int = 0
    number: int | None = None
    note: str = ""


def pages_of(picture: Picture, most: int = MAX_PAGES) -> list[Page]:
    """List the pages of a PDF, a TIFF or an animation, at most ``most`` of them; others have one.

    An unreadable file counts as one page; decoding it raises the reason.
    """
    try:
        frames, most = _frames_and_limit(picture, most)
    except PictureError:
        return [Page(picture)]
    if len(frames) == 1:
        return [Page(picture)]
    pages = [Page(picture, frame, number) for number, frame in enumerate(frames[:most], start=1)]
    if len(frames) > most:
        those = "page was" if most == 1 else f"{most} pages were"
        pages[-1] = replace(pages[-1], note=f"only the first {those} read")
    return pages


def has_several_pages(image: Image.Image) -> bool:
    """Return whether an open file has a second page; it may stay positioned at that page."""
    return len(list(islice(_frames(image), 2))) > 1


def decode(page: Page) -> tuple[Array, float]:
    """Read a page, its longest side reduced to `WORK_PX`.

    Returns:
        Pixels in [0, 1], ``(H, W)`` of a grey picture or ``(H, W, 3)``, and how many pixels of the
        picture one of them stands for.

    Raises:
        PictureError: it cannot be read.
    """
    with open_picture(page.picture, page.frame) as image:
        longest = max(image.size)
        if image is not page.picture:
            image.draft(None, (WORK_PX, WORK_PX))  # a JPEG is decoded at half the size, or less
        pixels: Array = to_uint8(upright(image))
        pixels = reduced(pixels, WORK_PX, cv2.INTER_AREA)
        return pixels.astype(np.float32) / 255, longest / max(pixels.shape)


@contextmanager
def open_picture(picture: Picture, frame: int = 0) -> Iterator[Image.Image]:
    """Open a picture whose size is within the limits; its pixels are decoded when they are used.

    Args:
        picture: what to open.
        frame: the place of a page in a file.

    Raises:
        PictureError: it cannot be read, now or when its pixels are used.
        TypeError: it is something else.
    """
    with _errors_of(picture):
        if isinstance(picture, Image.Image):
            yield picture
        elif isinstance(picture, np.ndarray):
            yield from_array(picture)
        else:
            with _file(picture) as file:
                head = _head(file)
                if pdf.is_pdf(head):
                    yield pdf.render(file, frame)
                    return
                if not HEIF and head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
                    raise PictureError("is HEIC: pip install 'mnist-lit[heic]' to read it")
                with Image.open(file, formats=FORMATS) as image:
                    check_size(image)
                    if frame:
                        image.seek(frame)
                        check_size(image)
                    yield image


def _frames_and_limit(picture: Picture, most: int) -> tuple[list[int], int]:
    """Return frame indices of the pages, at most one more than are read; and how many are read."""
    if not isinstance(picture, str | os.PathLike | bytes):
        return [0], 1
    with _errors_of(picture), _file(picture) as file:
        if pdf.is_pdf(_head(file)):
            num = pdf.num_pages(file)
            return list(range(min(num, most + 1))), most
        with Image.open(file, formats=FORMATS) as image:
            most = min(most, max_pages(image))
            return list(islice(_frames(image), most + 1)), most


def _frames(image: Image.Image) -> Iterator[int]:
    """Yield the frames of an open file that are pages; not a TIFF's thumbnails and masks."""
    yield 0
    is_tiff = image.format == "TIFF"
    if not is_tiff:
        if image.format not in ANIMATED or not getattr(image, "is_animated", False):
            return
        yield 1  # without going there, for which the first one would be decoded
    for frame in count(1 if is_tiff else 2):
        try:
            image.seek(frame)
            tags = getattr(image, "tag_v2", {})
            is_page = not tags.get(NEW_SUBFILE_TYPE, 0) & REDUCED_OR_MASK
        except EOFError:
            return
        except Exception:  # it is damaged, which decoding this page says
            yield frame
            return
        if is_page:
            yield frame


@contextmanager
def _file(source: str | os.PathLike[str] | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield BytesIO(source)
        return
    path = Path(source)
    if not (path.is_file() or path.is_dir()):
        path.stat()  # it may not be there at all
        raise PictureError("is a pipe or a device, not a picture")
    with path.open("rb") as file:
        yield file


def _head(file: BinaryIO) -> bytes:
    head = file.read(1024)
    file.seek(0)
    return head


@contextmanager
def _errors_of(picture: Picture) -> Iterator[None]:
    """Turn whatever decoders raise into a `PictureError` that begins with the picture's name."""
    if not isinstance(picture, str | os.PathLike | bytes | Image.Image | np.ndarray):
        raise TypeError(
            f"a picture is a path, bytes, a PIL image or an array, not {type(picture).__name__}"
        )
    name = str(picture) if isinstance(picture, str | os.PathLike) else "the picture"
    try:
        yield
    except PictureError as error:
        raise PictureError(f"{name} {error}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name} {too_large(MAX_PIXELS)}") from None
    except UnidentifiedImageError:
        raise PictureError(
            f"{name} is not a picture that can be read (PNG, JPEG, WebP, BMP, TIFF, GIF, HEIC, PDF)"
        ) from None
    except Exception as error:  # damaged files raise many kinds of exceptions
        if isinstance(error, OSError) and error.strerror:
            raise PictureError(f"{name} cannot be read: {error.strerror}") from None
        raise PictureError(f"{name} is damaged or cut off") from error

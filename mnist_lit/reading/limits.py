"""Limits of what one picture may cost, and the error that refuses it."""

from PIL import Image

from mnist_lit.errors import UserError

# What telephones take stays below; beyond, a picture is taken for a decompression bomb.
MAX_PIXELS = 120_000_000
# Of a picture all of whose pixels are in memory at once, at four bytes each and more for a while.
MAX_PIXELS_AT_ONCE = 55_000_000
MAX_PIXELS_OF_WEBP = 30_000_000  # whose decoder takes twelve bytes
MAX_PAGES = 100  # of a file
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


class PictureError(UserError):
    """A file or bytes that are not a picture, or a damaged one."""


def check_size(image: Image.Image) -> None:
    """Refuse a picture that would take 500 MB or more to decode.

    Raises:
        PictureError: it has too many pixels.
    """
    if image.format == "WEBP":
        most = MAX_PIXELS_OF_WEBP
    else:
        in_parts = image.format == "JPEG" and "progressive" not in image.info
        is_light = in_parts or image.mode in ("1", "L", "P", *SIXTEEN_BITS)
        most = MAX_PIXELS if is_light and image.format != "HEIF" else MAX_PIXELS_AT_ONCE
    if image.width * image.height > most:
        raise too_large(most)


def too_large(most: int) -> PictureError:
    """Make the error for a picture of more than ``most`` pixels."""
    return PictureError(f"is refused: more than {most / 1e6:.0f} million pixels")


def max_pages(image: Image.Image) -> int:
    """Return how many pages of a file are read at most.

    The frames of an animation are decoded one after the other up to the one that is read, so all of
    them together may have as many pixels as one picture.
    """
    if image.format == "TIFF":
        return MAX_PAGES
    return max(1, min(MAX_PAGES, MAX_PIXELS_AT_ONCE // max(1, image.width * image.height)))

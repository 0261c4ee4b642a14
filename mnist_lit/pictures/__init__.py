"""From any picture to the digits in it, each prepared exactly as the images of MNIST were."""

from dataclasses import replace

from mnist_lit.pictures.arrays import Box
from mnist_lit.pictures.decoding import FORMATS, SUFFIXES, Page, Picture, decode, pages_of
from mnist_lit.pictures.digits import Arc, Found, FoundDigit, Place, halves, lines, ways_to_read
from mnist_lit.pictures.ink import find_ink, usual_size
from mnist_lit.pictures.limits import PictureError
from mnist_lit.pictures.paper import denoise, papers, strength_on
from mnist_lit.pictures.pieces import find_pieces, join_strokes, near_each_other, whole_size
from mnist_lit.pictures.preparation import FRAME
from mnist_lit.pictures.printed import without_printed_lines
from mnist_lit.pictures.sheet import Sheet

__all__ = [
    "FORMATS",
    "FRAME",
    "SUFFIXES",
    "Arc",
    "Box",
    "Found",
    "FoundDigit",
    "Page",
    "Picture",
    "PictureError",
    "Place",
    "Sheet",
    "find_digits",
    "halves",
    "lines",
    "pages_of",
]

NOISIEST = 0.06  # of the range from black to white; what looks noisier has another paper
LITTLE_INK = 0.1  # of the picture; less is writing and what writing comes with


def find_digits(picture: Picture | Page) -> Found:
    """Find the places in a picture where digits are; none is an answer too.

    Args:
        picture: a path, the bytes of a file, a PIL image or an array; of any size, mode and
            polarity. Of a file with several pages the first one is read, unless it is one of
            `pages_of`. Of more than 2,000 pieces of ink, the largest are searched.

    Raises:
        PictureError: it cannot be read.
    """
    page = picture if isinstance(picture, Page) else pages_of(picture, most=1)[0]
    pixels, shrunk = decode(page)
    pixels = denoise(pixels)
    best = Found([], note=page.note)
    most = -1.0
    for paper in papers(pixels):
        strength, noise = strength_on(pixels, paper)
        components = without_printed_lines(find_ink(strength, noise))
        pieces = join_strokes(find_pieces(components, pixels, strength))
        usual = usual_size(pieces)
        whole = whole_size(pieces, usual)
        found = []
        explained = 0
        for ink in near_each_other(pieces, whole):
            place = ways_to_read(ink, usual, whole, strength, noise, shrunk)
            if any(arc.digit for arc in place):
                found.append(place)
                explained += ink.area
        num_ink = int(components.largest_areas.sum())
        share = explained / max(1, num_ink)
        fits = float(noise.mean()) < NOISIEST
        if share + fits > most:  # whatever fits comes first
            best, most = Found(found, components.are_few, note=page.note), share + fits
            searched = strength, noise, (whole, usual, components.largest_size)
        if fits and (share > 0.5 or (found and num_ink < LITTLE_INK * strength.size)):
            break
    if not best.places:
        return best
    return replace(best, sheet=Sheet.of(*searched, shrunk))

"""Which pieces of ink are strokes, and which strokes may be one digit's."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import compress

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_lit.pictures.arrays import Array, Box, Mask, quantile
from mnist_lit.pictures.ink import (
    Components,
    Ink,
    boxes_of,
    largest_pieces,
    usual_size,
    with_insides,
)
from mnist_lit.pictures.paper import LEAST_CONTRAST

FAINTEST_ELSEWHERE = 0.42  # ink, as a share of the strongest that is not at the picture's rim
FAINTEST_AT_THE_RIM = 0.65
# Gaps between strokes that may be one digit's, as a share of the usual digit's size.
NEAR_BESIDE, NEAR_BELOW = 0.25, 0.4
JOINED_BESIDE, JOINED_BELOW = 0.12, 0.25  # ... and are, if they can be nothing else
TALLEST, WIDEST = 1.6, 1.25  # a digit of several pieces, as a share of it
SMALLEST = 0.3  # height of a digit, as a share of it
BAR_FROM = 4.0  # width over height
MOST_STROKES = 3  # pieces of one digit
LEAST_TO_TELL = 40  # size of a piece, in pixels; around a smaller one is too little paper
RIM = 0.02  # of a picture, where what is seen may go on beyond it, as a share of its shorter side
ALIKE = 0.985  # cosine of 10 degrees: hues of one pen differ by 5 at most, print and pens by 13
LEAST_PAPER = 10  # pixels around a piece, to know the paper's colour
LARGEST_WHOLE = 2.2  # a digit all of whose strokes are apart, as a share of the usual one of them


def find_pieces(ink: Components, pixels: Array, strength: Array) -> list[Ink]:
    """Connected ink, without specks, frames, and edges of paper or shadows."""
    pieces = largest_pieces(ink)
    usual = usual_size(pieces)
    pieces = [piece for piece in pieces if piece.size > 0.12 * usual]
    pieces = [piece for piece in pieces if _is_on_one_paper(piece, ink, pixels)]
    pieces = _without_faint_ones(pieces, strength)
    pieces = _without_other_pens_at_the_rim(pieces, ink, pixels)
    return [piece for piece, inside in with_insides(pieces) if not piece.frames_any(inside)]


def _is_on_one_paper(piece: Ink, ink: Components, pixels: Array) -> bool:
    """Whether the colour around a piece is the same on all its sides, or changes evenly.

    The edge of a sheet or of a shadow has another colour on either side.
    """
    if piece.size < LEAST_TO_TELL:
        return True
    step = 1 + piece.size // 100  # of the pixels, some thousand tell enough
    reach = 2 + piece.size // 25
    area, mine = piece.around(2 * reach, step)
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
    return quantile(residual, 0.8) - quantile(residual, 0.2) < 0.5


def _reach_the_rim(pieces: list[Ink], shape: tuple[int, ...], margin: int) -> NDArray[np.bool_]:
    """Which pieces are so near the edge of a picture, in pixels, that they may go on beyond it."""
    height, width = shape[:2]
    left, top, right, bottom = boxes_of(pieces).T
    return np.asarray(
        (np.minimum(left, top) <= margin) | (right >= width - margin) | (bottom >= height - margin)
    )


def _without_other_pens_at_the_rim(pieces: list[Ink], ink: Components, pixels: Array) -> list[Ink]:
    """Drop what goes on beyond the picture and has another colour than what is in it: print.

    The light that ink takes from the paper is compared by its hue, however much of it there is.
    """
    if pixels.ndim == 2 or len(pieces) < 2:
        return pieces
    margin = max(1, round(RIM * min(pixels.shape[:2])))
    at_the_rim = _reach_the_rim(pieces, pixels.shape, margin)
    if not at_the_rim.any() or at_the_rim.all():
        return pieces
    inside = [piece for piece, is_there in zip(pieces, at_the_rim, strict=True) if not is_there]
    pen = _light_taken(max(inside, key=lambda piece: piece.area), ink, pixels)
    if pen is None:
        return pieces

    def is_another(piece: Ink) -> bool:
        light = _light_taken(piece, ink, pixels)
        return light is not None and float(light @ pen) < ALIKE

    return [
        piece
        for piece, is_there in zip(pieces, at_the_rim, strict=True)
        if not (is_there and is_another(piece))
    ]


def _light_taken(piece: Ink, ink: Components, pixels: Array) -> Array | None:
    """The colour of the light that a piece takes, ``(3,)`` of length 1; None: too little paper."""
    area, mine = piece.around(4 + piece.size // 10)
    around, on = pixels[area][ink.paper[area]], pixels[area][mine > 0]
    if len(around) < LEAST_PAPER:
        return None
    light = np.median(around, axis=0) - np.median(on, axis=0)
    length = float(np.linalg.norm(light))
    return light / length if length > LEAST_CONTRAST else None


def _without_faint_ones(pieces: list[Ink], strength: Array) -> list[Ink]:
    """Drop what is far fainter than the writing: rules of the paper, corners in shadow.

    Of what reaches the picture's rim, too little is seen to tell by its form, so less is enough.
    """

    def typical_strength(piece: Ink) -> float:
        area, mine = piece.around(0)
        return quantile(strength[area][mine > 0], 0.85)

    if len(pieces) < 2:
        return pieces
    at_the_rim = _reach_the_rim(pieces, strength.shape, 0)
    if at_the_rim.all():
        return pieces
    strengths = np.array([typical_strength(piece) for piece in pieces])
    least = np.where(at_the_rim, FAINTEST_AT_THE_RIM, FAINTEST_ELSEWHERE)
    return list(compress(pieces, strengths >= least * strengths[~at_the_rim].max()))


def whole_size(pieces: Sequence[Ink], usual: float) -> float:
    """The usual size of digits: of pieces, unless they are so few that all may be one digit's."""
    if not 1 < len(pieces) <= MOST_STROKES:
        return usual
    return max(usual, min(LARGEST_WHOLE * usual, reduce(Ink.union, pieces).size))


def join_strokes(pieces: list[Ink]) -> list[Ink]:
    """Put together what can only be the strokes of one digit, the smallest piece first."""
    usual = usual_size(pieces)
    reach = JOINED_BESIDE * usual, JOINED_BELOW * usual
    boxes = boxes_of(pieces)
    # What was asked before two were joined belongs to none, unless to the newest piece, the last.
    alone = np.zeros(len(pieces), bool)
    joined = True
    while joined:
        joined = False
        near_newest = _are_within(reach, boxes, boxes[-1:])
        by_size = np.argsort((boxes[:, 2:] - boxes[:, :2]).max(axis=1), kind="stable")
        for index in by_size[(near_newest | ~alone)[by_size]].tolist():
            piece = pieces[index]
            if alone[index]:
                near = [len(pieces) - 1]
            else:
                near = np.flatnonzero(_are_within(reach, boxes, boxes[index])).tolist()
            partner = min(
                (n for n in near if n != index and _belong(piece, pieces[n], usual)),
                key=lambda n: sum(_gaps(piece.box, pieces[n].box)),
                default=None,
            )
            if partner is not None:
                both = piece.union(pieces[partner])
                pieces = [other for n, other in enumerate(pieces) if n not in (index, partner)]
                pieces.append(both)
                boxes = np.vstack([np.delete(boxes, (index, partner), axis=0), both.box])
                alone = np.append(np.delete(alone, (index, partner)), False)
                joined = True
                break
            alone[index] = True
    return [piece for piece in pieces if piece.width < 4 * usual]


def _are_within(reach: tuple[float, float], a: Array, b: Array) -> Mask:
    """Whether boxes, ``(..., 4)``, are at most so far apart, across and down; each of a with b."""
    across, down = (
        np.maximum(a[..., axis], b[..., axis]) - np.minimum(a[..., axis + 2], b[..., axis + 2])
        for axis in (0, 1)
    )
    return np.asarray((across <= reach[0]) & (down <= reach[1]))


def near_each_other(pieces: list[Ink], whole: float) -> list[Ink]:
    """Put together what may be the strokes of one digit, or digits beside each other."""
    boxes = boxes_of(pieces)
    near = _are_within((NEAR_BESIDE * whole, NEAR_BELOW * whole), boxes[:, None], boxes)
    places: dict[int, Ink] = {}  # by the number of the last piece in each
    place_of = np.arange(len(pieces))
    for number, piece in enumerate(pieces):
        place = replace(piece, parts=(piece,))
        before = [
            other
            for other in np.flatnonzero(near[number, :number]).tolist()
            if is_one_digit_at_most(piece.union(pieces[other]), whole)
        ]
        for other in np.unique(place_of[before]).tolist():
            both = place.union(places[other])
            if both.height <= TALLEST * whole:  # else it would be two lines
                place = replace(both, parts=(*place.parts, *places.pop(other).parts))
                place_of[place_of == other] = number
        places[number] = place
    return [
        replace(place, parts=tuple(sorted(place.parts, key=lambda part: sum(part.box[::2]))))
        for place in places.values()
    ]


def is_one_digit_at_most(ink: Ink, whole: float) -> bool:
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
        highest = (1.95 if down <= 0.15 * usual else 1.5) * usual
        return height < highest and down <= JOINED_BELOW * usual
    lower = min(piece.height, other.height)
    beside = min(a[3], b[3]) - max(a[1], b[1]) > 0.5 * lower
    if lower < 0.6 * usual and (beside or down <= 0.1 * usual) and across <= JOINED_BESIDE * usual:
        return True
    return lower < 0.8 * usual and beside and across <= 0.06 * usual

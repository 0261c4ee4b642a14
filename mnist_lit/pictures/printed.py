"""Printed lines, which are ink but nobody's writing: forms and ruled paper."""

import cv2
import numpy as np

from mnist_lit.pictures.arrays import Array, Mask, quantile
from mnist_lit.pictures.ink import Components, Ink, largest_pieces, usual_size, with_insides

FORM_WIDTH = 1.25  # of what may be a form's lines, as a share of the usual piece of ink
FORM_SHARE = 0.6  # of its ink, which is straight and thin
LEVEL = 0.4  # length of what is a line and no stroke, as a share of the usual piece
THIN = 0.15  # thickness of what is a line in any form
HIGHER = 1.2  # length of what is longer than strokes are straight, as a share of the usual piece
LONG_SHARE = 0.5  # of a form's lines, which is as long as that
LONG = 2.0  # length of what can only be a form's line, as a share of the usual piece
THICKER = 2.0  # than nearly all of those are, and still a line
PART = 0.08  # size of what is inside a form and more than a speck, as a share of the form


def without_printed_lines(ink: Components) -> Components:
    """Remove forms and rules; strokes that cross them stay."""
    ink = _without_forms(ink)
    for axis in (0, 1):
        if _may_be_ruled(ink, axis):
            mask = ink.mask
            ink = ink.only(_without_rules(mask.T).T if axis else _without_rules(mask))
    return ink


def _without_forms(ink: Components) -> Components:
    """Remove cells, tables, combs and frames."""
    pieces = largest_pieces(ink)
    may_be_form = [_may_be_form(piece, inside) for piece, inside in with_insides(pieces)]
    usual = usual_size([piece for piece, may in zip(pieces, may_be_form, strict=True) if not may])
    lines = np.zeros(ink.labels.shape, bool)
    for piece, may in zip(pieces, may_be_form, strict=True):
        if may or piece.width > FORM_WIDTH * usual:
            area, mine = piece.around(2)
            depth = cv2.distanceTransform(mine, cv2.DIST_L2, 3)
            level, long_level = _level_lines(mine, depth, usual)
            upright, long_upright = _level_lines(mine.T, depth.T, usual)
            straight, long = level | upright.T, long_level | long_upright.T
            is_form = straight.sum() > FORM_SHARE * piece.area
            if is_form and long.sum() > LONG_SHARE * straight.sum():
                lines[area] |= straight
    return ink.only(ink.mask & ~lines) if lines.any() else ink


def _may_be_form(piece: Ink, inside: list[Ink]) -> bool:
    inside = [other for other in inside if other.size > PART * piece.size]
    return len(inside) > 1 or piece.frames_any(inside)


def _level_lines(mask: Array, depth: Array, usual: float) -> tuple[Mask, Mask]:
    """What is too long and thin for a stroke, and what of it is as long as a digit.

    A little aslant is level too.

    Args:
        mask: ``(H, W)`` uint8, ink 1.
        depth: how far inside the ink each pixel is, in pixels.
        usual: size of the usual piece of ink, in pixels.
    """
    near = cv2.dilate(mask, np.ones((5, 1), np.uint8))

    def runs(shares: float) -> Mask:
        row = np.ones((1, max(3, round(shares * usual))), np.uint8)
        return np.asarray((cv2.morphologyEx(near, cv2.MORPH_OPEN, row) > 0) & (mask > 0))

    thickest = THIN * usual
    depths = depth[runs(LONG)]
    if len(depths):
        thickest = max(thickest, THICKER * 2 * quantile(depths, 0.9))
    column = np.ones((max(3, round(thickest)), 1), np.uint8)
    strokes = cv2.morphologyEx(mask, cv2.MORPH_OPEN, column)
    thin = strokes == 0
    return np.asarray(runs(LEVEL) & thin), np.asarray(runs(HIGHER) & thin)


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

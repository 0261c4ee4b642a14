"""Combine two readings of a picture: rules with the classifier, and the detector."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mnist_lit.finder.detector import Detections
from mnist_lit.pictures import Box
from mnist_lit.pictures.sheet import Sheet
from mnist_lit.reading import Digit

MIN_DETECTION_PROB = 0.35  # of a digit that is kept, ...
MIN_AGREED_PROB = 0.15  # ... and if the classifier reads the same digit in the same place
MIN_OVERLAP = 0.6  # Tversky overlap of two boxes of the same digit
DETECTOR_EXCESS = 0.5  # weight in it of the part of the detector's box that the other lacks
MAX_CONTAINED = 0.9  # of a box that lies in another one: the less probable of the two is left out
# Exponents of the two probabilities in their product, which maximise the likelihood of the digits
# in drawn validation pictures: the detector is less confident than it should be.
DETECTOR_EXPONENT, CLASSIFIER_EXPONENT = 1.2, 0.5
MIN_PROB = 1e-4  # probabilities are clamped to this distance from 0 and 1


def merged(sheet: Sheet, read: Sequence[Digit], detections: Detections) -> list[Digit]:
    """Keep the detected digits; which digit each one is, both networks decide.

    Args:
        sheet: the ink in which both have searched.
        read: digits found by rules and read by the classifier, in pixels of the picture.
        detections: of the detector, in pixels of the sheet.

    Returns:
        Digits, the surest first. Of two of which one lies in the other, as a stroke in its digit,
        only the surer one.
    """
    boxes = torch.tensor([digit.box for digit in read]).reshape(-1, 4) / sheet.shrunk
    overlaps = tversky_overlap(detections.boxes, boxes)
    kept: list[tuple[float, int, Digit | None]] = []
    for number, overlap in enumerate(overlaps):
        nearest = int(overlap.argmax()) if len(overlap) else None
        same = read[nearest] if nearest is not None and overlap[nearest] >= MIN_OVERLAP else None
        probs = detections.probs[number]
        agree = same is not None and same.digit == int(probs.argmax())
        score = float(probs.max()) / (MIN_AGREED_PROB if agree else MIN_DETECTION_PROB)
        if score > 1:
            kept.append((score, number, same))
    kept.sort(key=lambda one: -one[0])
    is_outermost = not_contained(detections.boxes[[number for _, number, _ in kept]])
    return [
        _combined(sheet, same, detections.boxes[number], detections.probs[number])
        for (_, number, same), keep in zip(kept, is_outermost, strict=True)
        if keep
    ]


def tversky_overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Compute the intersection of boxes over a union that counts the excess of ``boxes`` by half.

    Args:
        boxes: ``(N, 4)``.
        others: ``(M, 4)``.

    Returns:
        ``(N, M)`` in [0, 1].

    Source: the ratio model of Tversky, "Features of similarity" (1977).
    """
    common = _intersections(boxes, others)
    excess = _areas(boxes)[:, None] - common
    return common / (_areas(others) + DETECTOR_EXCESS * excess).clamp(min=1e-6)


def not_contained(boxes: Tensor) -> Tensor:
    """Greedily choose boxes of which no two contain one another.

    Args:
        boxes: ``(N, 4)``, the most important first.

    Returns:
        ``(N,)`` bool: True for boxes to keep. Two boxes contain one another if `MAX_CONTAINED` of
        the smaller one lies in the larger one, which need not have a high IoU.
    """
    areas = _areas(boxes)
    smaller = torch.minimum(areas[:, None], areas).clamp(min=1e-6)
    contained = _intersections(boxes, boxes) / smaller > MAX_CONTAINED
    keep = torch.ones(len(boxes), dtype=torch.bool)
    for number in range(len(boxes)):
        if keep[number]:
            keep[number + 1 :] &= ~contained[number, number + 1 :]
    return keep


def _intersections(boxes: Tensor, others: Tensor) -> Tensor:
    top_left = torch.maximum(boxes[:, None, :2], others[:, :2])
    bottom_right = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    return (bottom_right - top_left).clamp(min=0).prod(dim=2)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def _combined(sheet: Sheet, same: Digit | None, box: Tensor, probs: Tensor) -> Digit:
    """Multiply the probabilities of detector and classifier, each raised to its exponent.

    Args:
        sheet: the ink.
        same: the digit that the classifier read in this place, if any.
        box: of the detection, in pixels of the sheet, ``(4,)``.
        probs: of the detection, ``(10,)``.
    """
    logits = probs.clamp(MIN_PROB, 1 - MIN_PROB).logit()
    log_probs = DETECTOR_EXPONENT * logits.log_softmax(dim=0)
    if same is None:
        place = _in_picture(box, sheet)
        image = torch.from_numpy(sheet.cut_out(place))
    else:
        classified = same.probabilities.clamp(min=MIN_PROB).log()
        log_probs = log_probs + CLASSIFIER_EXPONENT * classified
        place, image = same.box, same.image
    combined = log_probs.softmax(dim=0)
    return Digit(int(combined.argmax()), float(combined.max()), place, combined, image)


def _in_picture(box: Tensor, sheet: Sheet) -> Box:
    """Convert a box of the sheet to whole pixels of the picture, one at least."""
    left, top, right, bottom = (round(edge * sheet.shrunk) for edge in box.tolist())
    height, width = (round(side * sheet.shrunk) for side in sheet.ink.shape)
    left, top = max(0, min(left, width - 1)), max(0, min(top, height - 1))
    return left, top, max(left + 1, min(right, width)), max(top + 1, min(bottom, height))

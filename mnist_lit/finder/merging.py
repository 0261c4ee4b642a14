"""Two opinions made one: what rules cut out and a classifier read, and what the finder sees."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mnist_lit.finder.looking import Seen, shared
from mnist_lit.pictures import Box
from mnist_lit.pictures.sheet import Sheet
from mnist_lit.reading import Digit

THERE = 0.35  # how probable a digit is that is there, ...
THERE_FOR_BOTH = 0.15  # ... and if the classifier says that it is the same digit
SAME = 0.5  # what two boxes of the same digit share at least, as a part of their union
WEIGHT = 0.65  # of what the finder says, beside the classifier
LEAST = 1e-4  # no digit is less probable, whoever says so


def merged(sheet: Sheet, read: Sequence[Digit], seen: Seen) -> list[Digit]:
    """What is there is for the finder to say; which digit it is, for both.

    Args:
        sheet: what both have searched.
        read: what may be a digit by the rules, and which one the classifier says it is.
        seen: what the finder sees.
    """
    boxes = torch.tensor([digit.box for digit in read]).reshape(-1, 4) / sheet.shrunk
    digits = []
    for edges, probs, alike in zip(seen.boxes, seen.probs, shared(seen.boxes, boxes), strict=True):
        nearest = int(alike.argmax()) if len(alike) else None
        same = read[nearest] if nearest is not None and alike[nearest] >= SAME else None
        agree = same is not None and same.digit == int(probs.argmax())
        if float(probs.max()) > (THERE_FOR_BOTH if agree else THERE):
            digits.append(_digit(sheet, same, edges, probs))
    return digits


def _digit(sheet: Sheet, same: Digit | None, edges: Tensor, probs: Tensor) -> Digit:
    """A digit that the finder sees, and maybe the rules have found."""
    shares = probs.clamp(LEAST, 1 - LEAST).logit().softmax(dim=0)
    if same is None:
        box = _in_picture(edges, sheet)
        image = torch.from_numpy(sheet.cut_out(box))
    else:
        logs = shares.clamp(min=LEAST).log(), same.probabilities.clamp(min=LEAST).log()
        shares = (WEIGHT * logs[0] + (1 - WEIGHT) * logs[1]).softmax(dim=0)
        box, image = same.box, same.image
    return Digit(int(shares.argmax()), float(shares.max()), box, shares, image)


def _in_picture(edges: Tensor, sheet: Sheet) -> Box:
    left, top, right, bottom = (round(edge * sheet.shrunk) for edge in edges.tolist())
    height, width = (round(side * sheet.shrunk) for side in sheet.ink.shape)
    return max(0, left), max(0, top), min(right, width), min(bottom, height)

"""Two opinions made one: what rules cut out and a classifier read, and what the finder sees."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mnist_lit.finder.looking import Seen, firsts, shared, within
from mnist_lit.pictures import Box
from mnist_lit.pictures.sheet import Sheet
from mnist_lit.reading import Digit

THERE = 0.35  # how probable a digit is that is there, ...
THERE_FOR_BOTH = 0.15  # ... and if the classifier says that it is the same digit
SAME = 0.6  # what two boxes of the same digit share at least, as a part of their union, ...
BEYOND = 0.5  # ... in which what the finder's has beyond the rules' counts so much: it may be large
WITHIN = 0.9  # of a box that lies in another one: the less clear of both is a part, or a mistake
# Powers of what either holds probable. With these, or nearly, the true digits of drawn validation
# pictures are most probable: the finder's loss makes it less sure than it may be.
FINDER, CLASSIFIER = 1.2, 0.5
LEAST = 1e-4  # nearer to 0, or to 1, nothing is taken that either holds probable


def merged(sheet: Sheet, read: Sequence[Digit], seen: Seen) -> list[Digit]:
    """What is there is for the finder to say; which digit it is, for both.

    Args:
        sheet: what both have searched.
        read: what may be a digit by the rules, and which one the classifier says it is.
        seen: what the finder sees.

    Returns:
        What is clearly there, the clearest first; but of two of which one lies in the other, as a
        stroke in its digit, only the clearer one.
    """
    boxes = torch.tensor([digit.box for digit in read]).reshape(-1, 4) / sheet.shrunk
    there = []
    for number, alike in enumerate(shared(seen.boxes, boxes, BEYOND)):
        nearest = int(alike.argmax()) if len(alike) else None
        same = read[nearest] if nearest is not None and alike[nearest] >= SAME else None
        probs = seen.probs[number]
        agree = same is not None and same.digit == int(probs.argmax())
        clearness = float(probs.max()) / (THERE_FOR_BOTH if agree else THERE)
        if clearness > 1:
            there.append((clearness, number, same))
    there.sort(key=lambda one: -one[0])
    is_free = firsts(within(seen.boxes[[number for _, number, _ in there]]) > WITHIN)
    return [
        _digit(sheet, same, seen.boxes[number], seen.probs[number])
        for (_, number, same), free in zip(there, is_free, strict=True)
        if free
    ]


def _digit(sheet: Sheet, same: Digit | None, edges: Tensor, probs: Tensor) -> Digit:
    """A digit that the finder sees, and maybe the rules have found."""
    logs = FINDER * probs.clamp(LEAST, 1 - LEAST).logit().log_softmax(dim=0)
    if same is None:
        box = _in_picture(edges, sheet)
        image = torch.from_numpy(sheet.cut_out(box))
    else:
        logs = logs + CLASSIFIER * same.probabilities.clamp(min=LEAST).log()
        box, image = same.box, same.image
    shares = logs.softmax(dim=0)
    return Digit(int(shares.argmax()), float(shares.max()), box, shares, image)


def _in_picture(edges: Tensor, sheet: Sheet) -> Box:
    """A box in pixels of the picture, of which it has one at least."""
    left, top, right, bottom = (round(edge * sheet.shrunk) for edge in edges.tolist())
    height, width = (round(side * sheet.shrunk) for side in sheet.ink.shape)
    left, top = max(0, min(left, width - 1)), max(0, min(top, height - 1))
    return left, top, max(left + 1, min(right, width)), max(top + 1, min(bottom, height))

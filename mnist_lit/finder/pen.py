"""One shape as it gets onto a page: its size, its slant, its pen."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_lit.finder.shapes import FRAME, MARGIN, SIZE, STEPS, ZERO, Shapes
from mnist_lit.pictures.arrays import Array, extent

EDGE = 0.3  # ink, as a share of the pen's, that belongs to a digit's box
CELLS = 3  # of noise, across a shape, that bends it
OPEN = 0.15  # share of the digits with a loop whose stroke has a gap, ...
GAP = 0.04, 0.14  # ... and how wide to either side, as a share of the digit
LOOPED = (0, 6, 8, 9)


@dataclass(frozen=True)
class Hand:
    """How somebody writes.

    Attributes:
        by_pen: whether strokes are drawn by one pen, or shapes left as wide as they are.
        pen: half of its stroke's width, in pixels of the page.
        soft: over how many pixels the edge of a stroke fades.
        strength: of the ink, in [0, 1].
        slant: columns a row.
        bend: how far strokes are bent, as a share of the digit.
    """

    by_pen: bool
    pen: float
    soft: float
    strength: float
    slant: float
    bend: float

    @classmethod
    def any(cls, random: np.random.Generator) -> "Hand":
        return cls(
            by_pen=random.random() < 0.65,
            pen=float(np.exp(random.uniform(np.log(0.35), np.log(2.5)))),
            soft=random.uniform(0.8, 2.2),
            strength=random.uniform(0.45, 1.0),
            slant=random.normal(0, 0.12),
            bend=abs(random.normal(0, 0.04)),
        )

    def draw(self, shapes: Shapes, index: int, size: float, random: np.random.Generator) -> Array:
        """Draw a shape, cropped to its ink.

        Args:
            shapes: of any kind.
            index: which of them.
            size: of its longest side, in pixels, before it is turned and bent.
            random: for what is never twice the same.

        Returns:
            ``(H, W)`` float32, from 0, paper, to the pen's strength.
        """
        scale = size / SIZE
        angle = random.normal(0, 0.08)
        wide, high = np.exp(random.normal(0, (0.12, 0.06)))
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, self.slant], [0, 1]])
        back = np.linalg.inv(turn @ np.diag([wide, high]) * scale)
        side = int(FRAME * scale * 1.35) + 4
        across = np.arange(side, dtype=np.float32) - side / 2
        columns = back[0, 0] * across[None] + back[0, 1] * across[:, None] + FRAME / 2
        rows = back[1, 0] * across[None] + back[1, 1] * across[:, None] + FRAME / 2
        coarse = random.normal(0, self.bend * SIZE, (CELLS, CELLS, 2)).astype(np.float32)
        bends = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        shape = shapes.field(index)
        if shapes.labels[index] in LOOPED and random.random() < OPEN:
            shape = _opened(shape, random)
        field = cv2.remap(
            shape,
            columns.astype(np.float32) + bends[..., 0],
            rows.astype(np.float32) + bends[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=255,
        )
        distance = (field.astype(np.float32) - ZERO) * (scale / STEPS)
        reach = self.pen if shapes.by_pen else 0.3 * (self.pen - 1)
        most = (MARGIN - 1) * scale  # beyond that, no distance is known
        ink = np.clip((min(reach, most) - distance) / self.soft + 0.5, 0, 1)
        return self.strength * _cropped(ink)


def _opened(field: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A shape's distances with a gap somewhere in its stroke, as of a loop that was not closed."""
    row, column = random.choice(np.argwhere(field <= ZERO))
    across = np.arange(FRAME)
    away = np.hypot(across - column, (across - row)[:, None])
    within = SIZE * random.uniform(*GAP) - away
    return np.asarray(np.maximum(field, np.clip(ZERO + STEPS * within, 0, 255)), np.uint8)


def _cropped(ink: Array) -> Array:
    left, top, right, bottom = extent(ink > EDGE)
    return ink[top:bottom, left:right] if left < right else ink[:1, :1]

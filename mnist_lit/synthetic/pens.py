"""`PenStyle`: how one writer's pen draws a glyph."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_lit.reading.arrays import Array, extent
from mnist_lit.synthetic.glyphs import GLYPH_PX, LEVELS_A_PX, MARGIN, SIZE, ZERO_LEVEL, Glyphs

EDGE = 0.3  # ink, as a share of the pen's, that belongs to a character's box
BEND_GRID = 3  # control points of the bending, along each side
OPEN_SHARE = 0.15  # share of the digits with a loop whose stroke gets a gap, ...
GAP = 0.04, 0.14  # ... and its radius, as a share of the digit
LOOPED = (0, 6, 8, 9)


@dataclass(frozen=True)
class PenStyle:
    """A writer's pen and hand.

    Attributes:
        skeleton: True: draw along the middle of strokes with this pen; False: keep their widths.
        radius_px: of the pen's stroke.
        soft_px: width over which the edge of a stroke fades.
        contrast: of the ink, in [0, 1].
        slant: columns a row.
        bend: standard deviation of the bending, as a share of the character.
    """

    skeleton: bool
    radius_px: float
    soft_px: float
    contrast: float
    slant: float
    bend: float

    @classmethod
    def sample(cls, random: np.random.Generator) -> "PenStyle":
        """Draw a style at random."""
        return cls(
            skeleton=random.random() < 0.65,
            radius_px=float(np.exp(random.uniform(np.log(0.35), np.log(3.2)))),
            soft_px=random.uniform(0.8, 2.2),
            contrast=random.uniform(0.3, 1.0),
            slant=random.normal(0, 0.12),
            bend=abs(random.normal(0, 0.04)),
        )

    def draw(self, glyphs: Glyphs, index: int, size: float, random: np.random.Generator) -> Array:
        """Draw a glyph, cropped to its ink.

        Args:
            glyphs: the set it belongs to.
            index: its number in the set.
            size: height of a digit in pixels, before it is rotated and bent.
            random: source of what differs each time.

        Returns:
            ``(H, W)`` float32 from 0, paper, to `contrast`.
        """
        scale = size / SIZE
        angle = random.normal(0, 0.08)
        wide, high = np.exp(random.normal(0, (0.12, 0.06)))
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, self.slant], [0, 1]])
        inverse = np.linalg.inv(turn @ np.diag([wide, high]) * scale)
        side = int(GLYPH_PX * scale * 1.35) + 4
        across = np.arange(side, dtype=np.float32) - side / 2
        columns = inverse[0, 0] * across[None] + inverse[0, 1] * across[:, None] + GLYPH_PX / 2
        rows = inverse[1, 0] * across[None] + inverse[1, 1] * across[:, None] + GLYPH_PX / 2
        coarse = random.normal(0, self.bend * SIZE, (BEND_GRID, BEND_GRID, 2)).astype(np.float32)
        bends = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        levels = glyphs.distance_levels(index)
        if glyphs.labels[index] in LOOPED and random.random() < OPEN_SHARE:
            levels = _with_gap(levels, random)
        bent = cv2.remap(
            levels,
            columns.astype(np.float32) + bends[..., 0],
            rows.astype(np.float32) + bends[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=255,
        )
        distance = (bent.astype(np.float32) - ZERO_LEVEL) * (scale / LEVELS_A_PX)
        radius = self.radius_px if glyphs.skeleton else 0.3 * (self.radius_px - 1)
        max_radius = (MARGIN - 1) * scale  # beyond it, distances are not stored
        ink = np.clip((min(radius, max_radius) - distance) / self.soft_px + 0.5, 0, 1)
        return self.contrast * _cropped(ink)


def _with_gap(levels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Interrupt a stroke somewhere, as in a loop that was not closed."""
    row, column = random.choice(np.argwhere(levels <= ZERO_LEVEL))
    across = np.arange(GLYPH_PX)
    away = np.hypot(across - column, (across - row)[:, None])
    within = SIZE * random.uniform(*GAP) - away
    gap = np.clip(ZERO_LEVEL + LEVELS_A_PX * within, 0, 255)
    return np.asarray(np.maximum(levels, gap), np.uint8)


def _cropped(ink: Array) -> Array:
    left, top, right, bottom = extent(ink > EDGE)
    return ink[top:bottom, left:right] if left < right else ink[:1, :1]

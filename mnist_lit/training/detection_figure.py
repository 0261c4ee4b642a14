"""The figure of a trained detector: sheets with its detections."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mnist_lit.models.detector import DIGIT_PX
from mnist_lit.reading.detector import Detections, Detector
from mnist_lit.reports.figures import RIGHT, WRONG, NotebookFigure, styled
from mnist_lit.synthetic.data import SheetDataModule
from mnist_lit.synthetic.sheet import Sheet
from mnist_lit.training.detection import MIN_PROB, LitDetector

NUM_SHOWN = 18


def plot_sheets(model: LitDetector, data: SheetDataModule) -> Figure:
    """Draw the first test sheets with the digits that the detector finds."""
    sheets = [data.sheet("test", number) for number in range(NUM_SHOWN)]
    detector = Detector(model.network)
    detected = [
        detector.detect_at((255 * sheet.ink).astype(np.uint8), DIGIT_PX).digits for sheet in sheets
    ]
    return drawing(sheets, detected)


@styled
def drawing(sheets: Sequence[Sheet], detected: Sequence[Detections]) -> Figure:
    """Draw sheets with the digits that are detected: blue if right, orange and dashed if not."""
    figure = NotebookFigure(figsize=(12, 2.2 * len(sheets) / 3), layout="constrained")
    figure.suptitle(f"Synthetic sheets: digits detected with more than {MIN_PROB:.0%}")
    axes = figure.subplots(len(sheets) // 3, 3).flatten()
    for axis, sheet, found in zip(axes, sheets, detected, strict=True):
        axis.axis("off")
        axis.imshow(1 - sheet.ink, cmap="gray", vmin=0, vmax=1)
        probs, digits = found.probs.max(dim=1)
        for number in (probs > MIN_PROB).nonzero().flatten().tolist():
            digit, (left, top, right, bottom) = int(digits[number]), found.boxes[number].tolist()
            x, y = (left + right) / 2, (top + bottom) / 2
            is_right = any(
                label == digit and x0 <= x < x1 and y0 <= y < y1
                for label, (x0, y0, x1, y1) in sheet.digits
            )
            _draw_box(axis, (left, top, right, bottom), digit, is_right)
    return figure


def _draw_box(
    axis: Axes, box: tuple[float, float, float, float], digit: int, is_right: bool
) -> None:
    left, top, right, bottom = box
    colour, line = (RIGHT, "-") if is_right else (WRONG, "--")
    axis.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, color=colour, ls=line, lw=2)
    )
    axis.text(
        left + 1,
        top - 1,
        str(digit),
        va="bottom",
        color="white",
        fontsize=13,
        fontweight="bold",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
    )

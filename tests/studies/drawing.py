"""Digits as people draw them with a mouse, in a real browser."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

Stroke = Sequence[tuple[int, int]]
# As people write them, on a sheet of 100x140.
STROKES: dict[str, list[Stroke]] = {
    "0": [[(50, 5), (20, 25), (10, 70), (25, 120), (55, 132), (85, 105), (90, 55), (50, 5)]],
    "1": [[(55, 5), (48, 132)]],
    "2": [[(15, 40), (30, 12), (65, 8), (82, 38), (62, 80), (15, 128), (90, 126)]],
    "3": [[(18, 18), (50, 5), (80, 25), (42, 64), (78, 76), (86, 108), (55, 132), (12, 118)]],
    "4": [[(50, 5), (10, 80), (92, 78)], [(66, 42), (60, 134)]],
    "5": [[(28, 8), (22, 60), (58, 54), (84, 78), (76, 116), (12, 118)], [(28, 8), (84, 6)]],
    "6": [[(70, 5), (32, 48), (16, 98), (38, 130), (70, 122), (76, 92), (50, 76), (20, 100)]],
    "7": [[(12, 12), (86, 10), (44, 134)]],
    "8": [[(76, 20), (46, 6), (22, 28), (76, 98), (52, 132), (22, 106), (74, 36), (76, 20)]],
    "9": [[(78, 28), (46, 8), (20, 38), (46, 64), (76, 40), (78, 28), (72, 82), (58, 134)]],
}


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that the system has; without one, what needs it is skipped."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=path,
            args=["--disable-gpu", "--disable-quic", "--disable-background-networking"],
        )
        yield launched
        launched.close()


def press_along(page: Page, stroke: Stroke, left: float = 90, top: float = 60) -> None:
    """Draw a stroke with the mouse, whose button stays pressed.

    Args:
        page: the one to draw on.
        stroke: points.
        left: what is added to each x, in 280ths of the paper's side.
        top: what is added to each y.
    """
    paper = page.locator("#paper").bounding_box()
    assert paper is not None
    scale = paper["width"] / 280
    for number, (x, y) in enumerate(stroke):
        to = paper["x"] + (left + x) * scale, paper["y"] + (top + y) * scale
        page.mouse.move(*to, steps=1 if number == 0 else 3)
        if number == 0:
            page.mouse.down()


def draw(page: Page, digit: str, left: float = 90, top: float = 60) -> None:
    for stroke in STROKES[digit]:
        press_along(page, stroke, left, top)
        page.mouse.up()


def expect_number(page: Page, number: str) -> None:
    expect(page.locator("#number")).to_have_text(number)


def expect_read_while_drawn(page: Page, digit: str) -> None:
    """The answer is there before the mouse's button is released, and is said once it is."""
    *before, last = STROKES[digit]
    for stroke in before:
        press_along(page, stroke)
        page.mouse.up()
    press_along(page, last)

    expect_number(page, digit)
    expect(page.locator("#bars .most")).to_contain_text(digit)
    page.mouse.up()
    expect(page.locator("#spoken")).to_contain_text(f"{digit} ")


def expect_undo_and_clear(page: Page) -> None:
    """A stroke is taken back, everything is, and that is taken back; a 1 is left."""
    draw(page, "1", left=20)
    draw(page, "7", left=150)
    expect_number(page, "17")
    page.get_by_role("button", name="Undo").click()
    expect_number(page, "1")
    page.get_by_role("button", name="Clear").click()
    expect_number(page, "")
    expect(page.get_by_role("button", name="Clear")).to_be_disabled()
    page.keyboard.press("Control+z")
    expect_number(page, "1")


def expect_pen_for_a_finger(page: Page) -> None:
    """On a phone, the width of the pen can be chosen by dragging."""
    slider = page.locator("#width")
    for width in (320, 375, 430):
        page.set_viewport_size({"width": width, "height": 667})
        box = slider.bounding_box()
        assert box is not None
        assert box["width"] >= 140
        assert box["height"] >= 44
        assert page.evaluate("document.documentElement.scrollWidth") == width
        slider.click(position={"x": box["width"] - 10, "y": 4})
        assert slider.input_value() == "32"
        slider.click(position={"x": 10, "y": 40})
        assert slider.input_value() == "4"

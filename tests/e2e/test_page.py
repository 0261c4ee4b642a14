"""The page in a real browser: what somebody who draws sees."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
import stress
from drawing import (
    draw,
    expect_number,
    expect_pen_for_a_finger,
    expect_read_while_drawn,
    expect_undo_and_clear,
    press_along,
)
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, Route, expect
from server import Server, running

from mnist_lit.serve.app import MAX_BYTES, MAX_PIXELS

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The page, at whose end nothing was complained about in the console."""
    complaints: list[str] = []
    with browser.new_page(viewport={"width": 1280, "height": 900}) as opened:
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto(server.url)
        yield opened
    assert complaints == []


@pytest.mark.parametrize("digit", ["4", "7"])  # of two strokes, and of one
def test_digit_is_read_before_the_button_is_released(page: Page, digit: str) -> None:
    expect_read_while_drawn(page, digit)


def test_undo_takes_back_a_stroke_and_clear_everything(page: Page) -> None:
    expect_undo_and_clear(page)
    page.keyboard.press("Delete")
    expect_number(page, "")


def test_each_digit_can_be_looked_at(page: Page) -> None:
    draw(page, "4", left=20)
    draw(page, "2", left=150)
    expect_number(page, "42")
    seen = "document.getElementById('seen').toDataURL()"
    maps = "[...document.querySelectorAll('#maps canvas')].map((map) => map.toDataURL())"
    two = page.evaluate(seen), page.evaluate(maps)
    assert len(set(two[1])) >= 10
    expect(page.locator("#bars .most")).to_contain_text("2")

    page.get_by_role("button", name="4").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#bars .most")).to_contain_text("4")
    expect(page.get_by_role("button", name="4")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate(seen) != two[0]


def test_scribble_is_no_digit(page: Page) -> None:
    press_along(page, [(0, 0), (1, 1)])
    page.mouse.up()
    expect(page.locator("#verdict")).to_have_text("no digit found")


def test_colours_of_the_page_change_nothing(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    draw(page, "3")
    expect_number(page, "3")


def test_finger_draws_and_the_page_stays(browser: Browser, server: Server) -> None:
    with browser.new_page(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    ) as page:
        page.goto(server.url)
        paper = page.locator("#paper").bounding_box()
        assert paper is not None
        touch = page.context.new_cdp_session(page)
        for number, (x, y) in enumerate([(140, 240), (140, 180), (140, 120), (140, 60)]):
            points = [{"x": paper["x"] + x, "y": paper["y"] + y}]
            event = "touchMove" if number else "touchStart"
            touch.send("Input.dispatchTouchEvent", {"type": event, "touchPoints": points})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        expect_number(page, "1")
        assert page.evaluate("[scrollY, document.documentElement.scrollWidth]") == [0, 390]


def test_pen_can_be_chosen_on_a_phone(page: Page) -> None:
    expect_pen_for_a_finger(page)


# --- pictures -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> tuple[Path, str]:
    """A file, and the number in it."""
    picture = next(stress.make("photographed", "val", 1))
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    path.write_bytes(picture.file)
    return path, picture.number


def test_chosen_picture_is_read(page: Page, photo: tuple[Path, str]) -> None:
    draw(page, "4")
    expect_number(page, "4")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Picture").click()
    chooser.value.set_files(photo[0])
    expect_number(page, photo[1])
    page.get_by_role("button", name="Undo").click()
    expect_number(page, "4")


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_or_pasted_picture_is_read(page: Page, photo: tuple[Path, str], event: str) -> None:
    page.evaluate(
        """([event, content]) => {
            const data = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
            data.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
            const options = { bubbles: true, dataTransfer: data, clipboardData: data };
            const type = event === "drop" ? DragEvent : ClipboardEvent;
            document.body.dispatchEvent(new type(event, options));
        }""",
        [event, base64.b64encode(photo[0].read_bytes()).decode()],
    )
    expect_number(page, photo[1])


def test_picture_larger_than_the_server_takes_is_read_too(
    page: Page, photo: tuple[Path, str], tmp_path: Path
) -> None:
    large = tmp_path / "large.bmp"
    with Image.open(photo[0]) as image:
        scale = 2500 / max(image.size)
        image.resize((round(image.width * scale), round(image.height * scale))).save(large)
    assert large.stat().st_size > MAX_BYTES
    page.locator("#file").set_input_files(large)
    expect_number(page, photo[1])


def test_large_picture_may_be_transparent(page: Page, tmp_path: Path) -> None:
    image = Image.new("RGBA", (MAX_PIXELS // 4000, 4200))
    width, height = image.size
    ImageDraw.Draw(image).line([(width // 2, 800), (width // 2, 3400)], "black", 300)
    assert width * height > MAX_PIXELS
    image.save(tmp_path / "ink.png")
    page.locator("#file").set_input_files(tmp_path / "ink.png")
    expect_number(page, "1")


def test_picture_that_only_the_browser_reads_is_read_too(
    page: Page, photo: tuple[Path, str], tmp_path: Path
) -> None:
    with Image.open(photo[0]) as image:
        image.save(tmp_path / "photo.avif")
    page.locator("#file").set_input_files(tmp_path / "photo.avif")
    expect_number(page, photo[1])


def test_ink_on_nothing_can_be_seen_in_the_dark_too(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    image = Image.new("RGBA", (280, 280))
    ImageDraw.Draw(image).line([(140, 60), (140, 220)], "black", 20)
    image.save(tmp_path / "ink.png")
    with browser.new_page(color_scheme="dark") as page:
        page.goto(server.url)
        page.locator("#file").set_input_files(tmp_path / "ink.png")
        expect_number(page, "1")
        corner = page.locator("#paper").evaluate(
            "(paper) => paper.getContext('2d').getImageData(9, 9, 1, 1).data[0]"
        )

    assert corner == 255


# --- the server, late or gone ---------------------------------------------------------------------


def test_late_answer_does_not_come_back(page: Page) -> None:
    late: list[Route] = []
    page.route("**/predict*", lambda route: late.append(route), times=1)
    draw(page, "8")
    page.wait_for_timeout(300)
    assert len(late) == 1
    page.get_by_role("button", name="Clear").click()
    draw(page, "1")
    expect_number(page, "1")
    late[0].continue_()
    page.wait_for_timeout(300)
    expect_number(page, "1")


def test_page_says_that_the_server_is_gone_and_goes_on_when_it_is_back(browser: Browser) -> None:
    with browser.new_page() as page:
        with running() as first:
            page.goto(first.url)
            draw(page, "2")
            expect_number(page, "2")
        expect(page.get_by_role("status")).to_contain_text("does not answer")
        page.get_by_role("button", name="Clear").click()
        draw(page, "7")
        with running(f"--port={first.port}"):
            expect(page.locator("#number")).to_have_text("7", timeout=20_000)
            expect(page.get_by_role("status")).to_have_text("")

"""Corrections on the page, in a real browser, and what may not be sent."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from drawing import draw, expect_number
from playwright.sync_api import Browser, Page, expect
from server import Server, running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "corrections"


@pytest.fixture(scope="module")
def collecting(folder: Path) -> Iterator[Server]:
    with running(f"--collect={folder}") as server:
        yield server


@pytest.fixture(params=[(1280, 900), (375, 740)], ids=["desktop", "phone"])
def page(
    request: pytest.FixtureRequest, browser: Browser, collecting: Server, folder: Path
) -> Iterator[Page]:
    for path in folder.rglob("*.png"):
        path.unlink()
    complaints: list[str] = []
    width, height = request.param
    with browser.new_page(viewport={"width": width, "height": height}) as opened:
        opened.on("console", lambda message: complaints.append(message.text))
        opened.goto(collecting.url)
        yield opened
    assert complaints == []


def _kept(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.rglob("*.png"))


def test_digit_is_corrected_and_taken_back(page: Page, folder: Path) -> None:
    expect(page.locator("#teach")).to_contain_text(str(folder))
    draw(page, "4", left=20)
    draw(page, "2", left=150)
    expect_number(page, "42")
    page.locator("#number button").nth(0).click()
    page.get_by_role("button", name="It is a 9").click()
    expect(page.locator("#teach")).to_contain_text("Kept as 9.")
    expect_number(page, "92")
    assert _kept(folder) == ["9"]
    page.screenshot(path=folder.parent / f"collect-{page.viewport_size['width']}.png")  # type: ignore[index]

    page.get_by_role("button", name="It is a 7").press("Enter")
    expect(page.locator("#teach")).to_contain_text("Kept as 7.")
    assert _kept(folder) == ["7"], "one truth for a crop"
    page.get_by_role("button", name="Take back").click()
    expect(page.locator("#teach")).to_contain_text("Taken back.")
    assert _kept(folder) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_only_crops_of_the_own_page_are_kept(collecting: Server, folder: Path) -> None:
    crop = bytes(784)
    foreign = {"Origin": "http://elsewhere.example"}
    assert collecting.request("POST", "/corrections/1", crop, foreign)[0] == 403
    assert collecting.request("POST", "/corrections/1", b"123")[0] == 400
    assert collecting.request("POST", "/corrections/10", crop)[0] == 400
    assert collecting.request("POST", "/corrections/x", crop)[0] == 422
    assert collecting.request("DELETE", "/corrections/..%2F1", crop)[0] in (200, 404)
    assert _kept(folder) == []


def test_correction_that_cannot_be_written_is_said(collecting: Server, folder: Path) -> None:
    (folder / "3").write_text("where the folder of the threes would be")
    status, _, answer = collecting.request("POST", "/corrections/3", bytes(784))
    (folder / "3").unlink()

    assert status == 507
    assert "the correction is not kept" in answer.decode()


def test_without_the_option_nothing_is_kept(browser: Browser, server: Server) -> None:
    assert server.request("POST", "/corrections/1", bytes(784))[0] in (404, 405)
    with browser.new_page() as page:
        page.goto(server.url)
        draw(page, "4", left=20)
        expect_number(page, "4")
        expect(page.locator("#teach")).to_be_hidden()

"""From any picture to ink, and to digits as MNIST has them."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import cv2
import hostile
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import AppendingTiffWriter, TiffImageFile
from stress import Array, place, stroke

from mnist_lit import Classifier
from mnist_lit.data.module import MNISTDataModule
from mnist_lit.reading.arrays import Box, extent
from mnist_lit.reading.decode import FORMATS, SUFFIXES, Picture, pages_of
from mnist_lit.reading.ink import find_ink
from mnist_lit.reading.limits import PictureError
from mnist_lit.reading.result import Reading, text_lines


@pytest.fixture(scope="module")
def digits(data_dir: object) -> NDArray[np.uint8]:
    """The first 2,000 training images, ``(2000, 28, 28)``, ink 255."""
    data = MNISTDataModule()
    data.setup()
    return data.images("train").pixels[:2000, 0].numpy()


@pytest.fixture(scope="module")
def five(digits: NDArray[np.uint8]) -> Array:
    """A 5 of one piece, 200 pixels large."""
    return stroke((digits[65] / 255).astype(np.float32), 200, 0.02)


def sheet(ink: Array, size: int = 300) -> NDArray[np.uint8]:
    """Black ink on white, somewhere on a square, ``(size, size)``."""
    placed = place(ink, size, size, np.random.default_rng(0))
    return (255 * (1 - placed)).astype(np.uint8)


def cut_out(picture: Picture) -> tuple[Array, Box]:
    """Return the image and the box of all ink in a picture, which a pen has drawn."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    ink = find_ink(picture)
    box = ink.picture_box(extent(ink.pixels > 76))
    image = ink.digit_image(box)
    assert image is not None
    return image, box


def seen(picture: Picture) -> Array:
    """Return the image that the classifier gets of the one digit in a picture."""
    return cut_out(picture)[0]


@cache
def classifier() -> Classifier:
    return Classifier.load()


def read(picture: Picture) -> Reading:
    """Read a picture with the packaged networks."""
    return classifier().read(picture)


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    file = BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def difference(a: Array, b: Array) -> float:
    """Mean over the ink, not over the mostly empty frame."""
    return float(np.abs(a - b).sum() / b.sum())


def test_mnist_comes_out_as_it_went_in(digits: NDArray[np.uint8]) -> None:
    differences = [difference(seen(digit)[0], digit / 255) for digit in digits[:500]]

    assert np.median(differences) < 0.02
    assert np.quantile(differences, 0.9) < 0.05


def test_digit_is_fitted_and_centred_as_mnist_is(five: Array) -> None:
    image = seen(sheet(five))[0]
    rows, columns = (np.flatnonzero((image > 0).any(axis=axis)) for axis in (1, 0))
    place = np.arange(28)

    assert image.dtype == np.float32
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    assert image.sum(axis=1) @ place / image.sum() == pytest.approx(14, abs=0.5)
    assert image.sum(axis=0) @ place / image.sum() == pytest.approx(14, abs=0.5)
    assert ((image > 0.1) & (image < 0.9)).sum() > 30  # smooth edges


@pytest.mark.parametrize("size", [210, 300, 1000, 3000])
def test_size_and_place_do_not_matter(five: Array, size: int) -> None:
    assert difference(seen(sheet(five, size)), seen(sheet(five))) < 0.1


@pytest.mark.parametrize("size", [20, 40, 1500])
def test_tiny_and_huge_digits_are_the_same(digits: NDArray[np.uint8], size: int) -> None:
    digit = (digits[65] / 255).astype(np.float32)
    picture = sheet(stroke(digit, size, 0.02), size * 3 // 2)

    assert difference(seen(picture), seen(sheet(stroke(digit, 200, 0.02)))) < 0.25


ON = {
    "white": ((0, 0, 0), (255, 255, 255)),
    "black": ((255, 255, 255), (0, 0, 0)),
    "yellow paper": ((20, 30, 120), (250, 230, 120)),
    "light on grey": ((240, 240, 240), (120, 120, 120)),
    "same brightness": ((230, 30, 30), (20, 125, 20)),
    "pencil": ((170, 170, 170), (215, 215, 215)),
}


@pytest.mark.parametrize("colours", ON.values(), ids=ON)
def test_colours_do_not_matter(five: Array, colours: tuple[object, object]) -> None:
    grey = sheet(five)
    ink, paper = (np.array(colour, np.float32) for colour in colours)
    share = grey[..., None] / 255
    picture = (share * paper + (1 - share) * ink).astype(np.uint8)

    assert difference(seen(picture), seen(grey)) < 0.1


MODES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "RGB": lambda grey: grey.convert("RGB"),
    "palette": lambda grey: grey.convert("P"),
    "CMYK": lambda grey: grey.convert("CMYK"),
    "16 bit": lambda grey: Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
    "12 of 16 bit": lambda grey: Image.fromarray(np.asarray(grey).astype(np.uint16) * 16),
    "float": lambda grey: Image.fromarray(np.asarray(grey).astype(np.float32) / 255),
    "grey and opaque": lambda grey: grey.convert("LA"),
    "black, transparent": lambda grey: _transparent(grey, 0),
    "white, transparent": lambda grey: _transparent(grey, 255),
    "16 bit, of which 1": lambda grey: Image.fromarray((np.asarray(grey) > 127).astype(np.uint16)),
}


def _transparent(grey: Image.Image, ink: int) -> Image.Image:
    image = Image.new("RGBA", grey.size, (ink, ink, ink, 0))
    image.putalpha(Image.fromarray(255 - np.asarray(grey)))
    return image


@pytest.mark.parametrize("mode", MODES)
def test_modes_do_not_matter(five: Array, mode: str) -> None:
    grey = Image.fromarray(sheet(five))

    assert difference(seen(MODES[mode](grey)), seen(grey)) < 0.1


FORMS = {
    "PNG": {},
    "JPEG": {"quality": 50},
    "WEBP": {"quality": 50},
    "BMP": {},
    "TIFF": {},
    "GIF": {},
}


@pytest.mark.parametrize("form", FORMS)
def test_formats_do_not_matter(five: Array, form: str) -> None:
    grey = Image.fromarray(sheet(five))

    assert difference(seen(encoded(grey, form, **FORMS[form])), seen(grey)) < 0.1


def test_orientation_is_applied_and_boxes_are_of_the_picture_as_seen(five: Array) -> None:
    upright = Image.fromarray(sheet(five)[:, :250])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it a quarter to the right to see it
    turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)

    assert difference(seen(turned), seen(upright)) < 0.1
    assert np.allclose(cut_out(turned)[1], cut_out(upright)[1], atol=2)


def test_box_of_a_large_picture_is_in_its_own_pixels(five: Array) -> None:
    picture = np.full((3000, 4000), 255, np.uint8)
    height, width = five.shape
    picture[2000 : 2000 + height, 3000 : 3000 + width] = 255 * (1 - five)
    _, box = cut_out(picture)

    assert np.allclose(box, (3000, 2000, 3000 + width, 2000 + height), atol=4)


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_digit_at_the_edge_is_found(five: Array, corner: tuple[int, int]) -> None:
    picture = np.zeros((300, 300), np.float32)
    top, left = (0 if end == 0 else 300 - length for end, length in zip(corner, five.shape))  # noqa: B905
    picture[top : top + five.shape[0], left : left + five.shape[1]] = five

    assert difference(seen((255 * (1 - picture)).astype(np.uint8)), seen(sheet(five))) < 0.1


@pytest.mark.parametrize("size", [25, 200])
@pytest.mark.parametrize("colours", [(0, 255), (255, 0), (90, 140)])
def test_closely_cropped_digits_are_read(
    size: int, colours: tuple[int, int], digits: NDArray[np.uint8]
) -> None:
    """Also if most of the picture, or of its rim, is ink."""
    ink, paper = colours
    for index, number in ((65, "5"), (75, "0"), (86, "3"), (97, "8")):
        digit = stroke((digits[index] / 255).astype(np.float32), size, 0.08)
        assert read((paper + digit * (ink - paper)).round().astype(np.uint8)).number == number


def _cell(*lines: tuple[slice, slice]) -> Array:
    cell = np.zeros((100, 80), np.float32)
    for rows, columns in lines:
        cell[rows, columns] = 0.8
    return cell


EVERYTHING = slice(None)
LEFT, TOP = (EVERYTHING, slice(0, 5)), (slice(1, 4), EVERYTHING)
RIGHT = (slice(30, None), slice(-6, -2))
INNER = (EVERYTHING, slice(-12, -6))


@pytest.mark.parametrize(
    "lines", [[LEFT], [RIGHT], [INNER], [LEFT, RIGHT], [TOP, LEFT], [LEFT, TOP, RIGHT]]
)
def test_leftovers_of_a_frame_are_no_digits(lines: list[tuple[slice, slice]], five: Array) -> None:
    cell = _cell(*lines)
    assert read((255 * (1 - cell)).astype(np.uint8)).number == ""
    small = cv2.resize(five, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    height, width = small.shape
    cell[20 : 20 + height, 20 : 20 + width] = small
    assert read((255 * (1 - cell)).astype(np.uint8)).number == "5"


def test_one_at_the_edge_is_no_frame() -> None:
    """Unless it goes beyond the edge, as lines of a frame do."""
    canvas = _cell((slice(10, 90), slice(2, 8)))
    assert read((255 * (1 - canvas)).astype(np.uint8)).number == "1"


def test_digit_is_cut_out_of_the_lines_that_cross_it(digits: NDArray[np.uint8]) -> None:
    digit = stroke((digits[65] / 255).astype(np.float32), 200, -0.03)
    height, width = digit.shape
    box = (350, 50, 350 + width, 50 + height)
    picture = np.zeros((300, 900), np.float32)
    picture[50 : 50 + height, 350 : 350 + width] = digit
    for start in (320, 336, box[2] + 10, box[2] + 26):
        picture[:, start : start + 6] = 1
    picture[140:146] = 1
    image = find_ink(255 * (1 - picture)).digit_image(box)

    assert image is not None
    assert int(classifier().probabilities(torch.from_numpy(image)[None]).argmax()) == 5


def test_faint_digit_is_cut_out_beside_dark_lines(five: Array) -> None:
    height, width = five.shape
    picture = np.zeros((300, 900), np.float32)
    picture[50 : 50 + height, 350 : 350 + width] = 0.35 * five
    picture[280:284] = 1
    image = find_ink(255 * (1 - picture)).digit_image((350, 50, 350 + width, 50 + height))

    assert image is not None
    assert difference(image, seen(sheet(five))) < 0.1


@pytest.mark.parametrize("thicken", [-0.08, 0.08])
def test_thickness_of_the_pen_comes_near_to_mnists(
    digits: NDArray[np.uint8], thicken: float
) -> None:
    """A pen of one or two pixels, and one of about 40, on a canvas of 280."""
    ink = [seen(sheet(stroke((d / 255).astype(np.float32), 200, thicken))) for d in digits[:50:5]]
    usual = np.mean([digit.sum() / 255 for digit in digits[:50:5]])

    assert 0.6 < np.mean([image.sum() for image in ink]) / usual < 1.5


def test_uneven_light_and_shadow_do_not_matter(five: Array) -> None:
    grey = sheet(five).astype(np.float32)
    light = np.linspace(0.5, 1, 300)[:, None] * np.where(np.arange(300) < 140, 0.65, 1)
    shadowed = cv2.GaussianBlur((grey * 0.8 + 40) * light, (0, 0), 2)

    assert read(Image.fromarray(shadowed.astype(np.uint8))).number == "5"


@pytest.mark.parametrize(("edge", "softness"), [(200, 20), (420, 8), (520, 8)])
def test_corner_in_shadow_is_no_digit(five: Array, edge: int, softness: int) -> None:
    away = np.add.outer(np.arange(640), np.arange(640))
    shadow = 1 / (1 + np.exp((away - edge) / softness))
    ink = np.zeros((640, 640))
    ink[400 : 400 + five.shape[0], 300 : 300 + five.shape[1]] = five
    picture = Image.fromarray((255 * (0.9 - 0.35 * shadow - 0.55 * ink)).astype(np.uint8))

    assert read(picture).number == "5"


@pytest.mark.parametrize("angle", [0, 30, 70])
def test_sharp_edge_of_a_shadow_through_a_digit_is_no_ink(five: Array, angle: int) -> None:
    y, x = np.mgrid[-320:320, -320:320]
    across = np.cos(np.radians(angle)) * x + np.sin(np.radians(angle)) * y
    light = 1 - 0.45 * np.clip(across / 12 + 0.5, 0, 1)
    ink = np.pad(five, [(320 - side // 2, 320 - (side + 1) // 2) for side in five.shape])
    picture = Image.fromarray((255 * light * (0.9 - 0.6 * ink)).astype(np.uint8))

    around = np.pad(five, 20)
    top, left = (320 - side // 2 for side in around.shape)
    found = find_ink(picture).pixels
    found[top : top + around.shape[0], left : left + around.shape[1]] = 0

    assert read(picture).number == "5"
    assert (found > 64).mean() < 0.01


@pytest.mark.parametrize("table", [(60, 35, 20), (20, 45, 35)])
def test_sheet_on_a_dark_table_is_read(five: Array, table: tuple[int, int, int]) -> None:
    random = np.random.default_rng(0)
    grain = cv2.GaussianBlur(random.normal(0, 60, (700, 900)), (0, 0), 8, sigmaY=1)
    picture = np.linspace(0.6, 1.4, 900)[None, :, None] * np.array(table) + grain[..., None]
    paper = 225 - 160 * np.pad(five, ((80, 60), (200, 140)))
    picture[150 : 150 + paper.shape[0], 180 : 180 + paper.shape[1]] = paper[..., None]

    assert read(Image.fromarray(picture.clip(0, 255).astype(np.uint8))).number == "5"


@pytest.mark.parametrize("margin", [40, 120])
def test_chalk_on_a_board_in_uneven_light_is_read(five: Array, margin: int) -> None:
    board = 60 + 150 * np.pad(five, margin)
    light = np.linspace(0.5, 1, board.shape[1])
    grain = np.random.default_rng(0).normal(0, 4, board.shape)
    picture = (board * light + grain).clip(0, 255).astype(np.uint8)

    assert read(Image.fromarray(picture)).number == "5"


@pytest.mark.parametrize("squared", [False, True])
def test_lines_of_the_paper_are_no_digits(five: Array, squared: bool) -> None:
    picture = np.full((300, 300), 255, np.uint8)
    for start in range(20, 300, 50):
        picture[start : start + 2] = 90
        if squared:
            picture[:, start : start + 2] = 90

    assert read(Image.fromarray(picture)).number == ""
    assert read(Image.fromarray(np.minimum(picture, sheet(five)))).number == "5"


def test_digits_in_a_table_are_read(digits: NDArray[np.uint8]) -> None:
    """As in a newspaper's sudoku, photographed aslant, and dark towards the corners."""
    side, num_cells = 80, 6
    size = num_cells * side + 120
    ink, table = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    for line in range(num_cells + 1):
        at, thickness = 60 + line * side, 7 if line % 3 == 0 else 2
        cv2.line(table, (60, at), (size - 60, at), 1, thickness)
        cv2.line(table, (at, 60), (at, size - 60), 1, thickness)
    for cell in range(0, num_cells**2, 3):
        digit = stroke(digits[cell] / np.float32(255), 48, 0.0)
        top, left = (80 + side * n for n in divmod(cell, num_cells))
        ink[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    moved = corners + np.array([[25, 10], [-10, -15], [-25, -20], [5, 0]], np.float32)
    aslant = cv2.getPerspectiveTransform(corners, moved)
    darkness = cv2.warpPerspective(np.maximum(ink, 0.8 * table), aslant, (size, size))
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    light = 0.8 - 1.2 * (y**2 + x**2)
    picture = (255 * light * (1 - 0.85 * darkness)).astype(np.uint8)
    reading = read(Image.fromarray(picture))

    assert len(reading.number.split()) == num_cells
    assert len(reading.digits) == num_cells**2 / 3


def test_nothing_is_found_on_empty_paper() -> None:
    random = np.random.default_rng(0)
    height = width = 500
    light = np.linspace(120, 230, width)[None, :]
    for grain in (0, 3, 10, 25):
        noisy = np.clip(light + random.normal(0, grain, (height, width)), 0, 255)
        picture = Image.fromarray(noisy.astype(np.uint8))
        assert read(picture).number == ""
        assert read(encoded(picture, "JPEG", quality=30)).number == ""
    for size in ((1, 1), (20, 20), (3, 500)):
        for colour in (0, 128, 255):
            assert read(Image.new("L", size, colour)).number == ""


def test_specks_are_no_digits(five: Array) -> None:
    picture = sheet(five, 600)
    random = np.random.default_rng(1)
    for _ in range(30):
        y, x = random.integers(0, 590, 2)
        picture[y : y + random.integers(1, 8), x : x + random.integers(1, 8)] = 0

    assert read(Image.fromarray(picture)).number == "5"


def test_page_full_of_digits_is_found_whole(digits: NDArray[np.uint8]) -> None:
    page = np.pad(digits[:600], ((0, 0), (4, 4), (4, 4))).reshape(30, 20, 36, 36)
    ink = page.swapaxes(1, 2).reshape(30 * 36, 20 * 36)
    boxes = [digit.box for digit in read(Image.fromarray(255 - ink)).digits]
    cells = {(top // 36, left // 36) for left, top, _, _ in boxes}

    assert len(cells) > 585


def test_digits_come_in_reading_order(digits: NDArray[np.uint8]) -> None:
    whole = np.zeros((120, 200), np.uint8)
    chosen = digits[[2, 3, 5, 7, 8, 12]]
    for index, digit in enumerate(chosen):
        row, column = divmod(index, 3)
        top, left = 10 + 50 * row + 5 * column, 10 + 60 * column
        whole[top : top + 28, left : left + 28] = digit
    reading = read(Image.fromarray(whole))

    assert [digit.line for digit in reading.digits] == [0, 0, 0, 1, 1, 1]
    for digit, original in zip(reading.digits, chosen, strict=True):
        assert difference(digit.image[0].numpy(), original / 255) < 0.2


def test_lines_are_told_though_they_slope() -> None:
    boxes = [
        (10 + 60 * column, 10 + 50 * row + 5 * column) for row in (0, 1) for column in range(4)
    ]
    shuffled = np.random.default_rng(0).permutation(len(boxes)).tolist()
    found = text_lines(
        [(left, top, left + 20, top + 28) for left, top in (boxes[i] for i in shuffled)]
    )

    assert [[shuffled[index] for index in line] for line in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert text_lines([]) == []


def test_what_is_no_picture_is_said_in_one_line(tmp_path: Path, five: Array) -> None:
    whole = encoded(Image.fromarray(sheet(five)), "PNG")
    for name, content, said in (
        ("text.png", b"no picture", "is not a picture"),
        ("empty.png", b"", "is not a picture"),
        ("cut.png", whole[: len(whole) // 2], "is damaged or cut off"),
        ("drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(PictureError, match=f"^{path} {said}"):
            find_ink(path)
    with pytest.raises(PictureError, match="No such file"):
        find_ink(tmp_path / "missing.png")
    with pytest.raises(PictureError, match=r"^the picture is not a picture"):
        find_ink(b"no picture")


def test_decompression_bomb_is_refused_before_it_goes_off() -> None:
    bomb = encoded(Image.new("1", (14_000, 14_000)), "PNG")

    with pytest.raises(PictureError, match="million pixels"):
        find_ink(bomb)


@pytest.mark.parametrize(
    ("mode", "orientation"),
    [("L", 1), *((mode, 6) for mode in ("L", "I", "F", "I;16", "RGB", "P", "LA"))],
)
def test_large_pictures_are_read_as_small_ones(mode: str, orientation: int, five: Array) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    large = Image.fromarray(sheet(five)).resize((4100, 4100))
    if mode == "I;16":
        large = Image.fromarray(np.asarray(large).astype(np.uint16) * 16)
    form = "PNG" if mode in ("P", "LA") else "TIFF"
    file = encoded(large.convert(mode), form, exif=exif, compress_level=1)  # of PNG: 6 is slow
    image, box = cut_out(file)
    expected, small_box = cut_out(np.rot90(sheet(five), -1 if orientation == 6 else 0))

    assert difference(image, expected) < 0.1
    np.testing.assert_allclose(box, np.array(small_box) * 4100 / 300, atol=30)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_paper_or_ink(odd: float, five: Array) -> None:
    values = sheet(five).astype(np.float32)
    values[5, 5] = odd

    assert read(encoded(Image.fromarray(values), "TIFF")).number == "5"
    assert read(Image.fromarray(np.full_like(values, odd))).number == ""


@pytest.mark.slow  # a new process for each
@pytest.mark.parametrize("name", hostile.PICTURES)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much it was")
def test_no_picture_takes_much_memory(name: str) -> None:
    cost = hostile.cost(hostile.PICTURES[name]())

    assert cost.memory_mb < 500


def test_writing_too_small_to_look_at_closely_is_noted(digits: NDArray[np.uint8]) -> None:
    page = np.pad(digits[:1600], ((0, 0), (1, 1), (1, 1))).reshape(40, 40, 30, 30)
    ink = page.swapaxes(1, 2).reshape(40 * 30, 40 * 30)

    assert "too small" in read(Image.fromarray(255 - ink)).note
    assert read(Image.fromarray(255 - ink[:300, :300])).note == ""


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_damaged_exif_does_not_matter(form: str, five: Array) -> None:
    picture = Image.fromarray(sheet(five))

    assert difference(seen(encoded(picture, form, exif=b"Exif\0\0junk")), seen(picture)) < 0.1


def test_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match="is a pipe or a device"):
        find_ink(tmp_path / "pipe.png")


# --- pages ----------------------------------------------------------------------------------------


def numbers_and_digits(picture: Picture) -> list[tuple[int | None, int]]:
    """Return each page's index and number of digits."""
    return [
        (page.number, len(classifier().read_ink(find_ink(page)).digits))
        for page in pages_of(picture)
    ]


@pytest.fixture
def pages(five: Array) -> list[Image.Image]:
    """Pages with one, no, and two digits."""
    one, none = sheet(five), np.full((300, 300), 255, np.uint8)
    two = none.copy()
    two[100:200] = np.concatenate([one, none, one], axis=1)[::3, ::3]
    return [Image.fromarray(page) for page in (one, none, two)]


@pytest.mark.parametrize("form", ["TIFF", "GIF", "WEBP", "PNG", "PDF"])
def test_all_pages_are_found(form: str, pages: list[Image.Image]) -> None:
    several = encoded(pages[0], form, save_all=True, append_images=pages[1:], duration=100)

    assert numbers_and_digits(several) == [(1, 1), (2, 0), (3, 2)]
    assert numbers_and_digits(encoded(pages[2], form)) == [(None, 2)]
    assert find_ink(several).note == "only the first page was read"
    assert find_ink(encoded(pages[0], form)).note == ""


def test_thumbnails_and_masks_are_no_pages(pages: list[Image.Image]) -> None:
    for kind, num_pages in ((1, 1), (4, 1), (2, 2)):
        tiff = BytesIO()
        with AppendingTiffWriter(tiff, new=True) as writer:
            for page, subfile_type in zip(pages, (0, kind), strict=False):
                page.save(writer, "TIFF", tiffinfo={254: subfile_type})
                writer.newFrame()
            assert len(pages_of(tiff.getvalue())) == num_pages
    preview = encoded(pages[0], "MPO", save_all=True, append_images=[pages[1]])
    assert len(pages_of(preview)) == 1, "as telephones add one to a photograph"


def test_damaged_page_does_not_hide_the_others(pages: list[Image.Image]) -> None:
    tiff = bytearray(
        encoded(
            pages[0],
            "TIFF",
            save_all=True,
            append_images=[pages[1], pages[2]],
            compression="tiff_lzw",
        )
    )
    with Image.open(BytesIO(tiff)) as image:
        image.seek(1)
        assert isinstance(image, TiffImageFile)
        at, *_ = image.tag_v2[273]  # StripOffsets
    tiff[at : at + 20] = bytes(20)
    first, damaged, third = pages_of(bytes(tiff))

    assert [len(classifier().read_ink(find_ink(page)).digits) for page in (first, third)] == [1, 2]
    with pytest.raises(PictureError, match="is damaged or cut off"):
        find_ink(damaged)


@pytest.mark.parametrize("form", ["TIFF", "PDF", "GIF"])
def test_pages_are_bounded(form: str) -> None:
    """Frames of an animation together may have as many pixels as one picture."""
    size, expected = ((1000, 1000), 55) if form == "GIF" else ((8, 8), 100)
    frames = [Image.new("L", size, n) for n in range(expected + 5)]
    file = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    listed = pages_of(file)

    assert len(listed) == expected
    assert listed[-1].note == f"only the first {expected} pages were read"
    assert {page.note for page in listed[:-1]} == {""}


# --- what extras read -----------------------------------------------------------------------------


def test_heic_is_read_upright(five: Array) -> None:
    upright = Image.fromarray(sheet(five)[:, :250])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    quarter = upright.transpose(Image.Transpose.ROTATE_90)
    turned = encoded(quarter, "HEIF", exif=exif.tobytes())

    assert difference(seen(turned), seen(upright)) < 0.1
    assert np.allclose(cut_out(turned)[1], cut_out(upright)[1], atol=2)


FIELD = b"""%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[4 0 R]>>>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]/Annots[4 0 R]>> endobj
4 0 obj <</Type/Annot/Subtype/Widget/FT/Tx/T(a)/F 4/Rect[10 10 90 90]/AP<</N 5 0 R>>>> endobj
5 0 obj <</Type/XObject/Subtype/Form/BBox[0 0 80 80]/Length 28>>
stream
9 w 45 5 m 38 75 l S
endstream endobj
trailer <</Root 1 0 R>>
"""
LOCKED = FIELD.replace(
    b"trailer <<",
    b"trailer <</ID[(a)(a)]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>"
    % (2 * (b"0" * 64,)),
)


def test_pdf_is_seen_as_a_viewer_shows_it() -> None:
    (page,) = pages_of(FIELD)
    _, box = cut_out(FIELD)

    assert page.number is None
    left, top, right, bottom = (edge / 32 for edge in box)  # of 3,200 pixels
    assert (left, top, right, bottom) == pytest.approx((43, 15, 60, 85), abs=2)


def test_pdf_with_an_image_too_large_is_refused() -> None:
    with pytest.raises(PictureError, match="is refused: more than 55 million pixels"):
        find_ink(encoded(Image.new("1", (8_000, 8_000)), "PDF"))


def test_pdf_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    locked = tmp_path / "locked.pdf"
    locked.write_bytes(LOCKED)
    with pytest.raises(PictureError, match=r"locked.pdf is protected by a password: remove it"):
        find_ink(locked)
    with pytest.raises(PictureError, match="is damaged or cut off"):
        find_ink(b"%PDF-1.4 and nothing else")


@pytest.mark.parametrize(("extra", "package"), [("heic", "pillow_heif"), ("pdf", "pypdfium2")])
def test_error_names_the_extra_that_is_missing(extra: str, package: str, tmp_path: Path) -> None:
    form = {"heic": "HEIF"}.get(extra, "PDF")
    path = tmp_path / f"form.{extra}"
    path.write_bytes(encoded(Image.new("L", (64, 64), 255), form))
    code = (
        f"import sys; sys.modules[{package!r}] = None; from mnist_lit.reading.ink import find_ink;"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code} find_ink({str(path)!r})"], capture_output=True, text=True
    )

    assert f"form.{extra} is " in done.stderr
    assert f"pip install 'mnist-lit[{extra}]' to read it" in done.stderr


def test_suffixes_are_all_that_formats_have() -> None:
    Image.init()
    known = {end for end, form in Image.registered_extensions().items() if form in FORMATS}

    assert known <= SUFFIXES


def test_threads_find_the_same(digits: NDArray[np.uint8]) -> None:
    files = [encoded(Image.fromarray(digit), "PNG") for digit in digits[:50]]
    alone = [seen(file) for file in files]
    together: dict[int, list[Array]] = {}

    def find(number: int) -> None:
        together[number] = [seen(file) for file in files]

    threads = [threading.Thread(target=find, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone, images) for images in together.values())
    assert len(together) == 3

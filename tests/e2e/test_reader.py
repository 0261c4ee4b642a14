"""The page with the networks inside, in a real browser: it reads as Python does."""

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import stress
import torch
from canvas import SIDE, numbers
from drawing import (
    draw,
    expect_number,
    expect_read_while_drawn,
    expect_undo_and_clear,
    press_along,
)
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect

from mnist_lit import Classifier
from mnist_lit.__main__ import main
from mnist_lit.export import reader

pytestmark = pytest.mark.slow

NUM_NUMBERS = 40


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """The file that `export` wrote, alone in a folder."""
    path = tmp_path_factory.mktemp("mail") / "reader.html"
    assert main(["export", f"--output={path}"]) == 0
    return path


def test_file_can_be_mailed(file: Path) -> None:
    assert file.stat().st_size <= 2_000_000


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    """The file; at the end it has requested nothing, and complained about nothing."""
    complaints: list[str] = []
    asked_for: list[str] = []
    with browser.new_page(viewport={"width": 1280, "height": 900}) as opened:
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("request", lambda request: asked_for.append(request.url))
        opened.add_init_script(PAINTING)
        opened.goto(file.as_uri())
        yield opened
    assert complaints == []
    assert [url for url in asked_for if not url.startswith(("data:", "blob:"))] == [file.as_uri()]


# Paints what a test has drawn on the canvas that the page is about to read.
PAINTING = """
const read = CanvasRenderingContext2D.prototype.getImageData;
CanvasRenderingContext2D.prototype.getImageData = function (...area) {
  if (window.painted && this.canvas.width === 280) this.putImageData(window.painted, 0, 0);
  return read.apply(this, area);
};
"""


def paint(page: Page, canvas: NDArray[np.uint8]) -> str:
    """Draw ``(280, 280)``, ink 0, on the empty page; return the number that it reads."""
    page.keyboard.press("Delete")
    page.evaluate(
        """(bytes) => {
            const grey = Uint8Array.from(atob(bytes), (character) => character.charCodeAt(0));
            const pixels = new Uint8ClampedArray(4 * grey.length).fill(255);
            grey.forEach((value, i) => pixels.fill(value, 4 * i, 4 * i + 3));
            window.painted = new ImageData(pixels, 280);
        }""",
        b64encode(canvas.tobytes()).decode(),
    )
    press_along(page, [(0, 0)])
    page.mouse.up()
    page.wait_for_function("() => document.getElementById('spoken').textContent")
    return page.locator("#number").text_content() or ""


def test_numbers_are_read_as_python_reads_them(page: Page) -> None:
    classifier = Classifier.load()
    pictures = list(numbers(NUM_NUMBERS))
    expected = [classifier.read(Image.fromarray(picture)).number for picture in pictures]
    read = [paint(page, picture) for picture in pictures]

    assert sum(map(len, expected)) > 2 * NUM_NUMBERS, "most were found"
    differing = [both for both in zip(read, expected, strict=True) if both[0] != both[1]]
    assert len(differing) <= 1, differing


def test_touching_digits_and_two_lines_are_read_as_python_reads_them(page: Page) -> None:
    images, _ = stress.digits("val")
    random = np.random.default_rng(0)
    classifier = Classifier.load()
    num_same = num_lines = 0
    for chosen in random.integers(len(images), size=(10, 4)):
        pairs = [
            stress.write([images[index] for index in pair], 70, 0.02, random, touching=True)
            for pair in chosen.reshape(2, 2)
        ]
        sheet = np.vstack([stress.place(pair, SIDE // 2, SIDE, random) for pair in pairs])
        picture = (255 * (1 - sheet)).round().astype(np.uint8)
        expected = classifier.read(Image.fromarray(picture)).number
        num_lines += [len(line) for line in expected.split()] == [2, 2]
        num_same += paint(page, picture) == expected

    assert num_lines >= 7
    assert num_same >= 9


def test_all_that_is_shown_of_a_digit_is_what_python_says(page: Page) -> None:
    classifier = Classifier.load()
    picture = next(numbers(1))
    paint(page, picture)
    reading = classifier.read(Image.fromarray(picture))
    last = reading.digits[-1]
    seen, *shown = page.evaluate(
        """() => [...document.querySelectorAll("#seen, #maps canvas")].map((canvas) => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            return Array.from({ length: width * height }, (_, i) => data[4 * i]);
        })"""
    )
    shares = page.evaluate(
        """() => [...document.querySelectorAll("#bars li")].map(
            (bar) => bar.style.getPropertyValue("--share"),
        )"""
    )

    assert page.locator("#number button").count() == len(reading.digits)
    np.testing.assert_allclose([float(share) for share in shares], last.probabilities, atol=0.01)
    ink = torch.tensor((np.array(seen) - 20) / (255 - 20)).float().view(1, 28, 28)
    assert (ink - last.image).abs().mean() < 0.02, "the detector's box may be a pixel larger"
    maps = classifier.feature_maps(ink[None])[0]
    assert len(shown) == len(maps) == 10
    for colour, activations in zip(shown, maps / maps.max(), strict=True):
        glow = np.interp(activations.flatten(), np.linspace(0, 1, 5), [20, 86, 205, 250, 253])
        np.testing.assert_allclose(colour, glow, atol=5)


@pytest.mark.parametrize("digit", ["4", "7"])  # of two strokes, and of one
def test_digit_is_read_before_the_button_is_released(page: Page, digit: str) -> None:
    expect_read_while_drawn(page, digit)


def test_undo_takes_back_a_stroke_and_clear_everything(page: Page) -> None:
    expect_undo_and_clear(page)


def test_dash_is_no_digit(page: Page) -> None:
    press_along(page, [(0, 80), (130, 85)])
    page.mouse.up()
    expect(page.locator("#verdict")).to_have_text("no digit found")


# --- pictures -------------------------------------------------------------------------------------


def test_photograph_is_read_as_python_reads_it(page: Page, tmp_path: Path) -> None:
    photo = next(stress.make("photographed", "val", 1))
    (tmp_path / "photo.jpg").write_bytes(photo.file)
    page.locator("#file").set_input_files(tmp_path / "photo.jpg")

    assert Classifier.load().read(tmp_path / "photo.jpg").number == photo.number
    expect(page.locator("#number")).to_have_text(photo.number, timeout=20_000)


@pytest.mark.parametrize("kind", ["cropped closely", "frame leftovers", "in hard light"])
def test_pictures_are_read_as_python_reads_them(kind: str, page: Page, tmp_path: Path) -> None:
    classifier = Classifier.load()
    for number, picture in enumerate(stress.make(kind, "val", 8)):
        path = tmp_path / f"{number}.png"
        path.write_bytes(picture.file)
        page.evaluate("() => { document.getElementById('spoken').textContent = ''; }")
        page.locator("#file").set_input_files(path)
        page.wait_for_function("() => document.getElementById('spoken').textContent")
        expect(page.locator("#number")).to_have_text(classifier.read(path).number, timeout=20_000)


def test_ink_on_nothing_is_read(page: Page, tmp_path: Path) -> None:
    image = Image.new("RGBA", (280, 280))
    ImageDraw.Draw(image).line([(150, 60), (140, 220)], "white", 20)
    image.save(tmp_path / "ink.png")
    page.locator("#file").set_input_files(tmp_path / "ink.png")
    expect_number(page, "1")


def test_picture_that_the_browser_cannot_show_is_refused(page: Page, tmp_path: Path) -> None:
    Image.new("L", (100, 100), 255).save(tmp_path / "scan.tif")
    page.locator("#file").set_input_files(tmp_path / "scan.tif")
    expect(page.locator("#verdict")).to_contain_text("mnist-lit predict")


def test_picture_that_is_cleared_delays_no_drawing(page: Page, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(256, size=(1500, 1600), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "slow.png")
    page.locator("#file").set_input_files(tmp_path / "slow.png")
    page.get_by_role("button", name="Clear").click()
    draw(page, "7")
    expect_number(page, "7")


# --- operations -----------------------------------------------------------------------------------

A, B = (2, 3, 8, 8), (3, 1, 1)
RANDOM = np.random.default_rng(0)
# Operation, the shape of what it is done to, the values of its other inputs, attributes.
CASES: list[tuple[str, tuple[int, ...], list[Any], dict[str, Any]]] = [
    *((name, A, [], {}) for name in ("Identity", "Relu", "Sigmoid", "Tanh", "Exp", "Erf")),
    ("LeakyRelu", A, [], {"alpha": 0.2}),
    ("Sqrt", A, [], {}),
    *((name, A, [B], {}) for name in ("Add", "Sub", "Mul", "Div")),
    ("Add", (8, 1), [(2, 3, 1, 8)], {}),
    ("Pow", A, [np.float32(2)], {}),
    ("Conv", A, [(4, 3, 3, 3), (4,)], {"kernel_shape": [3, 3]}),
    (
        "Conv",
        (2, 4, 9, 7),
        [(6, 2, 3, 2)],
        {
            "kernel_shape": [3, 2],
            "group": 2,
            "pads": [1, 0, 2, 1],
            "strides": [2, 3],
            "dilations": [1, 2],
        },
    ),
    ("MaxPool", A, [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("MaxPool", A, [], {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [1, 0, 1, 1]}),
    ("AveragePool", A, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", A, [], {"kernel_shape": [2, 2], "pads": [0] * 4, "count_include_pad": 1}),
    ("BatchNormalization", A, [(3,), (3,), (3,), np.full(3, 0.5)], {"epsilon": 0.01}),
    ("Gemm", (4, 6), [(6, 5)], {"alpha": 0.5}),
    ("Gemm", (4, 6), [(5, 6), (5,)], {"transB": 1, "beta": 2.0}),
    ("Gemm", (6, 4), [(6, 5), (4, 1)], {"transA": 1}),
    ("MatMul", (4, 6), [(6, 5)], {}),
    ("MatMul", (2, 1, 4, 6), [(3, 6, 5)], {}),
    ("Softmax", A, [], {"axis": 1}),
    ("LogSoftmax", A, [], {}),
    ("ReduceMean", A, [np.array([2, -1])], {"keepdims": 0}),
    ("ReduceMean", A, [np.array([1])], {}),
    ("ReduceMax", A, [np.array([2, 3])], {"keepdims": 0}),
    ("Clip", A, [np.float32(-0.5), np.float32(0.7)], {}),
    ("Clip", A, [np.float32(0.1)], {}),
    ("Shape", A, [], {"start": 1, "end": -1}),
    ("Reshape", A, [np.array([0, -1, 4])], {}),
    ("Flatten", A, [], {"axis": 2}),
    ("Squeeze", (2, 1, 3, 1), [np.array([-1])], {}),
    ("Squeeze", (2, 1, 3, 1), [], {}),
    ("Unsqueeze", (2, 3), [np.array([-1, 1])], {}),
    ("Transpose", A, [], {"perm": [2, 0, 3, 1]}),
    ("Concat", A, [(2, 5, 8, 8)], {"axis": 1}),
    ("DepthToSpace", (2, 8, 3, 5), [], {"blocksize": 2, "mode": "CRD"}),
    ("Slice", A, [np.array([1, 0]), np.array([-1, 9]), np.array([2, 1])], {}),
    ("Slice", A, [np.array([-1]), np.array([-(2**62)]), np.array([-1]), np.array([-2])], {}),
]


@pytest.fixture(scope="module")
def calculator(browser: Browser) -> Iterator[Page]:
    """The page's arithmetic alone."""
    code = reader.bundle(reader.SCRIPTS / "network.js")
    with browser.new_page() as opened:
        opened.add_script_tag(content=f"{code}\nwindow.Network = Network;", type="module")
        opened.wait_for_function("() => 'Network' in window")
        yield opened


def test_every_operation_is_tried() -> None:
    assert {operation for operation, *_ in CASES} == set(reader.OPERATIONS)


@pytest.mark.parametrize(
    ("operation", "shape", "others", "attributes"), CASES, ids=[case[0] for case in CASES]
)
def test_operation_computes_what_onnx_says(
    calculator: Page,
    operation: str,
    shape: tuple[int, ...],
    others: Sequence[Any],
    attributes: dict[str, Any],
) -> None:
    images = RANDOM.normal(size=shape).astype(np.float32)
    if operation == "Sqrt":
        images = np.abs(images)
    constants = []
    for number, other in enumerate(others):
        values = RANDOM.normal(size=other) if isinstance(other, tuple) else np.asarray(other)
        if values.dtype != np.int64:
            values = values.astype(np.float32)
        constants.append(numpy_helper.from_array(values, f"constant {number}"))
    node = helper.make_node(
        operation, ["images", *(constant.name for constant in constants)], ["out"], **attributes
    )
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    kind = TensorProto.INT64 if operation == "Shape" else TensorProto.FLOAT
    out = helper.make_tensor_value_info("out", kind, None)
    model = helper.make_model(
        helper.make_graph([node], "one", [given], [out], constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(
        None, {"images": images}
    )
    shape_there, there = calculator.evaluate(
        """([graph, shape, data]) => {
            const images = { shape, data: Float32Array.from(data) };
            const out = new Network(JSON.parse(graph)).run(images, "out");
            return [out.shape, [...out.data]];
        }""",
        [json.dumps(reader.as_json(model)), shape, images.ravel().tolist()],
    )

    assert tuple(shape_there) == expected.shape
    np.testing.assert_allclose(np.reshape(there, expected.shape), expected, rtol=1e-4, atol=1e-5)

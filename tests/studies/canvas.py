"""Numbers drawn on the page's canvas, and whether the page reads them as Python does.

    python tests/studies/canvas.py [--num 500] [--seed 1] [--ckpt_path PATH]

prints how many of them the page that `export` writes reads as `Classifier.read` does, and how long
its worker's script takes in Chromium.
"""

import argparse
from base64 import b64encode
from collections.abc import Iterator

import numpy as np
import stress
from drawing import chromium
from numpy.typing import NDArray
from PIL import Image

from mnist_lit.export import reader
from mnist_lit.export.graph import as_onnx, detector_as_onnx
from mnist_lit.reading.classifier import Classifier
from mnist_lit.reading.detector import Detector

SIDE = 280  # of the canvas, in pixels


def numbers(num: int, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Digits that are held out, one to five side by side, by pens of all widths, in all sizes.

    Args:
        num: how many.
        seed: of everything random.

    Yields:
        Canvases, ``(280, 280)``, ink 0, paper 255.
    """
    images, _ = stress.digits("val")
    random = np.random.default_rng(seed)
    while num:
        chosen = random.integers(len(images), size=random.integers(1, 6))
        size = random.uniform(30, 240 / len(chosen))
        pen = random.uniform(-0.08, 0.1)
        ink = stress.write([images[index] for index in chosen], size, pen, random)
        if max(ink.shape) <= SIDE:
            yield (255 * (1 - stress.place(ink, SIDE, SIDE, random))).round().astype(np.uint8)
            num -= 1


READ = """(bytes) => {
    const data = new Uint8ClampedArray(4 * 280 * 280).fill(255);
    [...atob(bytes)].forEach((value, i) => data.fill(value.charCodeAt(0), 4 * i, 4 * i + 3));
    const start = performance.now();
    const { number } = read(networks, { width: 280, height: 280, data });
    return [number, performance.now() - start];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ckpt_path", help="default: the packaged network")
    given = parser.parse_args()
    classifier = Classifier.load(given.ckpt_path)
    canvases = list(numbers(given.num, given.seed))
    expected = [classifier.read(Image.fromarray(canvas)).number for canvas in canvases]
    networks = reader.networks(
        as_onnx(classifier, with_maps=True), detector_as_onnx(Detector.packaged())
    )
    with chromium() as browser, browser.new_page() as page:
        page.add_script_tag(content=reader.worker())  # its names can be reached
        page.evaluate("(json) => { networks = loadNetworks(json); }", networks)
        pairs = [page.evaluate(READ, b64encode(canvas.tobytes()).decode()) for canvas in canvases]
    num_same = sum(number == other for (number, _), other in zip(pairs, expected, strict=True))
    middle, late = np.quantile([taken_ms for _, taken_ms in pairs], (0.5, 0.95))
    print(
        f"{num_same} of {given.num} read as in Python; median {middle:.1f} ms, 95 % {late:.1f} ms"
    )


if __name__ == "__main__":
    main()

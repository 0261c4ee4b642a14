"""Numbers drawn on the page's canvas, and whether the page reads them as Python does.

    python tests/canvas.py [--num 500] [--seed 1] [--ckpt_path PATH]

prints how many of them the page that `export` writes reads as `Classifier.read` does without the
finder, and how long its arithmetic takes in Chromium, with what it shows of a digit.
"""

import argparse
import json
from collections.abc import Iterator

import numpy as np
import stress
from drawing import chromium
from numpy.typing import NDArray
from PIL import Image

from mnist_lit.data.module import MNISTDataModule
from mnist_lit.export import reader
from mnist_lit.export.graph import as_onnx
from mnist_lit.reading.classifier import Classifier

SIDE = 280  # of the canvas, in pixels


def held_out_digits() -> NDArray[np.float32]:
    """MNIST's validation images, ``(N, 28, 28)`` in [0, 1]."""
    data = MNISTDataModule()
    data.setup()
    held_out = data.images("val")
    pixels = held_out.pixels[held_out.indices][:, 0]
    return np.asarray(pixels.float().numpy() / 255, np.float32)


def numbers(num: int, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Digits that are held out, one to five side by side, by pens of all widths, in all sizes.

    Args:
        num: how many.
        seed: of everything random.

    Yields:
        Canvases, ``(280, 280)``, ink 0, paper 255.
    """
    images = held_out_digits()
    random = np.random.default_rng(seed)
    while num:
        chosen = random.integers(len(images), size=random.integers(1, 6))
        size = random.uniform(30, 240 / len(chosen))
        pen = random.uniform(-0.08, 0.1)
        ink = stress.write([images[index] for index in chosen], size, pen, random)
        if max(ink.shape) <= SIDE:
            yield (255 * (1 - stress.place(ink, SIDE, SIDE, random))).round().astype(np.uint8)
            num -= 1


READ = """(canvas) => {
    const strength = grey(280, 280, Float32Array.from(canvas, (value) => 1 - value / 255));
    const start = performance.now();
    const { number, digits } = readCanvas(network, strength);
    digits.at(-1)?.feature_maps;
    return [number, performance.now() - start];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ckpt_path", help="default: the packaged network")
    given = parser.parse_args()
    classifier = Classifier.load(given.ckpt_path, finder=False)
    canvases = list(numbers(given.num, given.seed))
    expected = [classifier.read(Image.fromarray(canvas)).number for canvas in canvases]
    graph = reader.as_json(as_onnx(classifier, with_maps=True))
    code = "".join(
        reader.bundle(reader.READER.with_name(name)) for name in ("classifier.js", "network.js")
    )
    with chromium() as browser, browser.new_page() as page:
        code += f"const network = new Network({json.dumps(graph)});"
        page.add_script_tag(content=code)  # as no module, so that its names can be reached
        pairs = [page.evaluate(READ, canvas.ravel().tolist()) for canvas in canvases]
    num_same = sum(number == other for (number, _), other in zip(pairs, expected, strict=True))
    middle, late = np.quantile([taken_ms for _, taken_ms in pairs], (0.5, 0.95))
    print(
        f"{num_same} of {given.num} read as in Python; median {middle:.1f} ms, 95 % {late:.1f} ms"
    )


if __name__ == "__main__":
    main()

"""`export`: a trained network as ONNX, or as a page that reads digits without any server."""

from collections.abc import Sequence
from importlib.util import find_spec

from mnist_lit.commands.arguments import ArgumentParser, add_network_arguments, checkpoint_path
from mnist_lit.errors import UserError
from mnist_lit.files import user_path, write_output


def main(args: Sequence[str]) -> int:
    """Export a network, after comparing its outputs; `args` begins with the command's name."""
    parser = ArgumentParser(
        "export",
        "Writes a trained network as ONNX, or as a web page that reads digits without a server.",
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--output",
        metavar="FILE",
        default="model.onnx",
        help="what to write: ONNX, or a page, reader.html; default: %(default)s",
    )
    given = parser.parse_args(args[1:])
    output = user_path(given.output)
    if output.suffix not in (".onnx", ".html"):
        raise UserError(f"--output {output}: its name has to end in .onnx or .html")
    if not all(find_spec(package) for package in ("onnx", "onnxscript", "onnxruntime")):
        raise UserError(
            "export needs onnx, onnxscript and onnxruntime: pip install 'mnist-lit[export]'"
        )
    from mnist_lit.export import graph, reader
    from mnist_lit.export.comparison import NUM_IMAGES, compare
    from mnist_lit.models import named_class
    from mnist_lit.reading.classifier import Classifier
    from mnist_lit.reading.detector import Detector

    path = checkpoint_path(given.ckpt_path)
    classifier = Classifier.load(path, named_class(given.network))
    if output.suffix == ".onnx":
        model = graph.as_onnx(classifier)
        content = model.SerializeToString()
    else:
        classifier.check_reads_digits()
        model = graph.as_onnx(classifier, with_maps=True)
        detector = graph.detector_as_onnx(Detector.packaged())
        content = reader.as_html(model, detector).encode()
    largest = compare(model, classifier)
    write_output(output, content, "--output")
    print(
        f"{output}: {len(content) / 1000:,.0f} kB; probabilities of {NUM_IMAGES:,} random images"
        f" within {largest:.0e} of PyTorch's"
    )
    return 0

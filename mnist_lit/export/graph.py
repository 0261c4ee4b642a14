"""Convert networks to ONNX graphs."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn

from mnist_lit import __version__
from mnist_lit.errors import UserError, one_line
from mnist_lit.models import probe_images
from mnist_lit.reading.classifier import Classifier
from mnist_lit.reading.detector import Detector

OPSET = 18  # what torch's exporter writes by itself; later ones it makes from that


class _Outputs(nn.Module):
    """Compute all outputs of the exported file.

    Args:
        classifier: a trained network.
        with_maps: also compute the feature maps of the first convolution.
    """

    def __init__(self, classifier: Classifier, with_maps: bool) -> None:
        super().__init__()
        self.network = classifier.network
        self.classifier, self.with_maps = classifier, with_maps
        self.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.network(images) / self.classifier.temperature
        outputs = {"logits": logits, "probabilities": logits.softmax(dim=1)}
        if self.with_maps:
            outputs["feature_maps"] = self.classifier.feature_maps(images)
        return outputs


def as_onnx(classifier: Classifier, with_maps: bool = False) -> ModelProto:
    """Convert a classifier to a graph that includes normalisation and temperature.

    It takes ``images``, ``(batch, C, H, W)`` float32 in [0, 1], and gives ``logits`` and
    ``probabilities``, ``(batch, K)``. Its metadata, as JSON: ``classes``, their names, and
    ``preprocessing``, how a picture becomes an image, see `Preprocessing`.

    Args:
        classifier: a trained network.
        with_maps: give ``feature_maps`` too, as `Classifier.feature_maps` does.

    Raises:
        UserError: the network does something that ONNX cannot express.
    """
    images = probe_images(classifier.shape)
    has_maps = with_maps and classifier.feature_maps(images).numel() > 0
    outputs = _Outputs(classifier, has_maps)
    sizes = {0: torch.export.Dim("batch")}
    model = _converted(outputs, images, sizes, list(outputs(images)))
    return _labelled(model, classifier)


def detector_as_onnx(detector: Detector) -> ModelProto:
    """Convert a detector's network to a graph.

    It takes ``images``, ``(1, 1, H, W)`` float32 in [0, 1], H and W multiples of 4, and gives
    ``maps``, see `DetectorNetwork.forward`.
    """
    images = torch.zeros(1, 1, 64, 96)  # unequal sides, so that the exporter keeps both apart
    sizes = {axis: 4 * torch.export.Dim(name) for axis, name in ((2, "height"), (3, "width"))}
    return _converted(detector.network, images, sizes, ["maps"])


def _converted(
    network: nn.Module, images: Tensor, sizes: dict[int, Any], names: list[str]
) -> ModelProto:
    """Export a network to an ONNX model; the exporter's output is suppressed.

    Args:
        network: the module.
        images: an example of its input, which is called ``images``.
        sizes: dynamic axes of the images.
        names: of the outputs.

    Raises:
        UserError: the network does something that ONNX cannot express.
    """
    # torch.export and then ONNX: the other way, TorchScript, is deprecated, and follows only what
    # a network did with one image. `torch.onnx.export` alone would try several ways to capture the
    # network, print what each of them met, and fix the size of the batch where it cannot follow it.
    try:
        with _silence():
            program = torch.export.export(network, (images,), dynamic_shapes=(sizes,))
            exported = torch.onnx.export(
                program,
                opset_version=OPSET,
                input_names=["images"],
                output_names=names,
                verbose=False,
            )
    except Exception as error:  # of whatever the network is made of
        raise UserError(f"this network cannot be written as ONNX: {_reason(error)}") from error
    assert exported is not None
    return exported.model_proto


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silence the exporter."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.disable(disabled)


def _reason(error: Exception) -> str:
    """Return the first sentence of the first error; the others tell how torch works."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    first, *_ = str(cause).strip().split("\n\n")
    return one_line(first) or type(cause).__name__


def _labelled(model: ModelProto, classifier: Classifier) -> ModelProto:
    """Name the graph, and remove paths of this machine."""
    values = (*model.graph.input, *model.graph.output)
    for part in (*model.graph.node, *values, model.graph):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for value in values:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = "batch"
    del model.graph.value_info[:]
    model.graph.name = "mnist_lit"
    model.producer_name, model.producer_version = "mnist_lit", __version__
    del model.metadata_props[:]
    facts = {
        "classes": classifier.classes,
        "preprocessing": asdict(classifier.preprocessing),
    }
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    return model

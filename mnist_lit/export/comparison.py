"""Compare the outputs of an exported network with those of the original."""

import math

import onnxruntime
import torch
from onnx import ModelProto

from mnist_lit.errors import UserError, one_line
from mnist_lit.reading.classifier import Classifier

NUM_IMAGES = 1000
MAX_DIFFERENCE = 1e-4  # of two probabilities


def compare(model: ModelProto, classifier: Classifier) -> float:
    """Classify random images of all contrasts with both networks.

    Returns:
        The largest difference of two probabilities.

    Raises:
        UserError: it is above `MAX_DIFFERENCE`, or ONNX Runtime cannot run the exported network.
    """
    _, num_channels, side = classifier.shape
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(NUM_IMAGES, num_channels, side, side, generator=generator)
    images *= torch.rand(NUM_IMAGES, 1, 1, 1, generator=generator)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    content, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
        (probs,) = session.run(["probabilities"], {"images": images.numpy()})
    except Exception as error:  # ONNX Runtime has exceptions of its own
        raise UserError(f"ONNX Runtime cannot run this network: {one_line(error)}") from error
    differences = (classifier.probabilities(images) - torch.from_numpy(probs)).abs()
    largest = float(differences.nan_to_num(math.inf).max())
    if largest > MAX_DIFFERENCE:
        raise UserError(
            f"as ONNX, this network gives other probabilities, by up to {largest:.1e}:"
            " nothing was written"
        )
    return largest

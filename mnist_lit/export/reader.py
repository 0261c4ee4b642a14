"""One HTML file: the page of `serve`, with the networks inside it instead of a server."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Set
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mnist_lit.errors import UserError
from mnist_lit.models import characters
from mnist_lit.models import detector as detector_network
from mnist_lit.reading import classifier, detector, digit_image, ink, paper, pixels, result
from mnist_lit.serve import PAGE

SCRIPTS = Path(__file__).parent / "page"
# Modules whose constants the scripts share, by the same names.
MODULES: tuple[ModuleType, ...] = (
    characters, classifier, detector, detector_network, digit_image, ink, paper, pixels, result,
)  # fmt: skip

# What page/network.js runs, each with the attributes that it looks at.
OPERATIONS: Mapping[str, Set[str]] = {
    **dict.fromkeys(("Identity", "Add", "Sub", "Mul", "Div", "Pow"), frozenset()),
    **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "Exp", "Sqrt", "Erf"), frozenset()),
    **dict.fromkeys(("MatMul", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Clip"), frozenset()),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Flatten", "Concat"), frozenset({"axis"})),
    "LeakyRelu": {"alpha"},
    "Conv": {"kernel_shape", "pads", "strides", "dilations", "group"},
    "MaxPool": {"kernel_shape", "pads", "strides"},
    "AveragePool": {"kernel_shape", "pads", "strides"},
    "BatchNormalization": {"epsilon", "momentum"},
    "Gemm": {"alpha", "beta", "transA", "transB"},
    **dict.fromkeys(("ReduceMean", "ReduceMax"), frozenset({"keepdims"})),
    "Shape": {"start", "end"},
    "Transpose": {"perm"},
    "DepthToSpace": {"blocksize"},
}
# Values of other attributes that can be ignored: ONNX's default, or an equivalent of it.
# Torch only writes DepthToSpace in mode CRD.
UNCHANGING: Mapping[str, Any] = {
    "dilations": [1, 1], "allowzero": 1, "auto_pad": b"NOTSET", "mode": b"CRD",
}  # fmt: skip


def as_html(classifier: ModelProto, detector: ModelProto) -> str:
    """Build the page that reads with two networks.

    Args:
        classifier: of digits, with feature maps, as `as_onnx` makes it.
        detector: as `detector_as_onnx` makes it. Its weights are rounded to float16.

    Raises:
        UserError: the page does not know an operation of the classifier.
    """
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    style = (PAGE / "page.css").read_text(encoding="utf-8")
    icon = (PAGE / "icon.svg").read_bytes()
    script = bundle(SCRIPTS / "reader.js")
    # Nothing is fetched, and nothing runs but this very script and the worker that it starts.
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}' 'wasm-unsafe-eval'; worker-src blob:;"
        f" style-src '{_hash(style)}'; img-src data:; base-uri 'none'; form-action 'none';"
        " trusted-types worker; require-trusted-types-for 'script'"
    )
    charset = '<meta charset="utf-8">'
    meta = f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
    html = _with(html, charset, charset + meta)
    html = _with(html, "page/icon.svg", f"data:image/svg+xml;base64,{_base64(icon)}")
    html = _with(html, '<link rel="stylesheet" href="page/page.css">', f"<style>{style}</style>")
    return _with(
        html,
        '<script type="module" src="page/server.js"></script>',
        f'<script type="application/json" id="networks">{networks(classifier, detector)}</script>\n'
        f'    <script type="text/plain" id="worker">{worker()}</script>\n'
        f'    <script type="module">{script}</script>',
    )


def networks(classifier: ModelProto, detector: ModelProto) -> str:
    """Convert both graphs to JSON that may stand in HTML."""
    graphs = {"classifier": as_json(classifier), "detector": as_json(detector, halves=True)}
    return json.dumps(graphs, separators=(",", ":")).replace("<", r"\u003c")


def worker() -> str:
    """Bundle the script that reads, below the constants that it shares with the Python modules."""
    code = bundle(SCRIPTS / "worker.js")
    constants = {
        name: value
        for module in MODULES
        for name, value in vars(module).items()
        if name.isupper() and re.search(rf"\b{name}\b", code)
    }
    lines = (f"const {name} = {json.dumps(value)};\n" for name, value in constants.items())
    return "".join(lines) + code


def _with(html: str, old: str, new: str) -> str:
    """Replace the only occurrence of ``old``."""
    before, after = html.split(old)
    return before + new + after


def _hash(inline: str) -> str:
    """Return the CSP source expression that allows an inline script or style."""
    return f"sha256-{_base64(hashlib.sha256(inline.encode()).digest())}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def bundle(module: Path) -> str:
    """Join a script and all that it imports, for a page that is a file and can import nothing.

    All names at the top of its modules have to differ, and to be imported as they are.
    """
    return "".join(_without_imports(code) for code in _modules(module.resolve()).values())


def _modules(module: Path) -> dict[Path, str]:
    """Return the code of all that a module imports, each before what imports it, and its own."""
    code = module.read_text(encoding="utf-8")
    found: dict[Path, str] = {}
    for imported in re.findall(r'^import [^;]* from "(.+)";$', code, re.M):
        found |= _modules((module.parent / imported).resolve())
    return found | {module: code}


def _without_imports(code: str) -> str:
    code = re.sub(r'^import [^;]* from ".+";\n', "", code, flags=re.M)
    return re.sub(r"^export ", "", code, flags=re.M)


def as_json(model: ModelProto, halves: bool = False) -> dict[str, Any]:
    """Convert a graph to what page/network.js takes.

    Args:
        model: the graph.
        halves: round its weights to float16, for half the size.
    """
    constants = {
        tensor.name: _constant(numpy_helper.to_array(tensor), halves)
        for tensor in model.graph.initializer
    }
    return {"nodes": [_node(node) for node in model.graph.node], "constants": constants}


def _node(node: NodeProto) -> dict[str, Any]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type not in OPERATIONS or len(node.output) > 1:
        raise UserError(f"the page does not know {node.op_type}, an operation of this network")
    known = OPERATIONS[node.op_type]
    if not any(attributes.get("pads", ())):
        attributes.pop("count_include_pad", None)  # of nn.AvgPool2d, also without padding
    for name in attributes.keys() - known:
        value = attributes[name]
        if value and value != UNCHANGING.get(name):
            said = value.decode() if isinstance(value, bytes) else value
            raise UserError(
                f"the page does not know {node.op_type} with {name} {said}, an operation of this"
                " network"
            )
    return {
        "operation": node.op_type,
        "inputs": list(node.input),
        "outputs": list(node.output),
        "attributes": {name: value for name, value in attributes.items() if name in known},
    }


def _constant(values: NDArray[Any], halves: bool) -> dict[str, Any]:
    shape = list(values.shape)
    if values.dtype == np.int64:
        return {"shape": shape, "integers": values.ravel().tolist()}
    if values.dtype != np.float32:
        raise UserError(f"the page knows float32, and this network has weights of {values.dtype}")
    if halves:
        return {"shape": shape, "halves": _base64(values.astype("<f2").tobytes())}
    return {"shape": shape, "floats": _base64(values.astype("<f4").tobytes())}

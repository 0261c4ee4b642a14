"""A trained network as ONNX: it computes the same, wherever it is run."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import own
import pytest
import torch
from conftest import one_error
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from mnist_lit import Classifier, MNISTDataModule, __version__
from mnist_lit.__main__ import main
from mnist_lit.errors import UserError
from mnist_lit.export.comparison import compare
from mnist_lit.export.graph import as_onnx
from mnist_lit.files import write_output
from mnist_lit.models import CNN, Shape, Wide, class_path_of

Printed = pytest.CaptureFixture[str]


def save(
    path: Path,
    network: nn.Module,
    options: Mapping[str, Any] | None = None,
    shape: Shape = Shape(),  # noqa: B008, it cannot be changed
    **config: Any,
) -> Path:
    """A checkpoint of a network as it is."""
    spec = {"class_path": class_path_of(type(network)), "init_args": dict(options or {})}
    state = {f"network.{name}": weight for name, weight in network.state_dict().items()}
    checkpoint = {
        "mnist_lit": {"version": __version__, "config": {"data": {"dataset": "mnist", **config}}},
        "hyper_parameters": {"network": spec, **shape._asdict()},
        "state_dict": state,
        "classes": [f"class {number}" for number in range(shape.num_classes)],
    }
    torch.save(checkpoint, path)
    return path


def run(path: Path, images: torch.Tensor) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path)
    answers: list[NDArray[np.float32]] = session.run(
        ["logits", "probabilities"], {"images": images.numpy()}
    )
    return answers


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged network's file; not to be changed."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert main(["export", f"--output={path}"]) == 0
    return path


@pytest.fixture(scope="module")
def test_images(data_dir: Path) -> torch.Tensor:
    data = MNISTDataModule()
    data.setup()
    return data.images("test").pixels


# --- what is written ------------------------------------------------------------------------------


def test_packaged_network_computes_the_same(
    test_images: torch.Tensor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "model.onnx"
    assert main(["export", f"--output={path}"]) == 0
    printed = capfd.readouterr()

    assert printed.err == ""
    assert len(printed.out.splitlines()) == 1
    assert "probabilities of 1,000 random images within" in printed.out
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(path, full_check=True)
    classifier = Classifier.load()
    for num in (1, 700):
        images = test_images[:num] / 255
        logits, probs = run(path, images)
        expected = classifier.probabilities(images)
        np.testing.assert_allclose(probs, expected, atol=1e-5)
        softmax = torch.from_numpy(logits).softmax(1)
        np.testing.assert_allclose(softmax, expected, atol=1e-5)


def test_file_says_what_it_is_and_not_where_it_was_made(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    (images,) = session.get_inputs()
    content = exported.read_bytes()

    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list("0123456789")
    assert (images.name, images.shape) == ("images", ["batch", 1, 28, 28])
    assert [output.shape for output in session.get_outputs()] == [["batch", 10]] * 2
    assert b"models.py" not in content
    assert str(Path.home()).encode() not in content


COLOURS = Shape(num_classes=3, in_channels=3, image_size=32)


@pytest.mark.parametrize(
    ("network_class", "mirror", "shape"),
    [(CNN, True, COLOURS), (Wide, False, COLOURS), (Wide, True, Shape())],
    ids=["cnn, mirror, colours", "wide, colours", "wide, mirror, grey"],
)
def test_every_network_can_be_written(
    network_class: type[CNN | Wide], mirror: bool, shape: Shape
) -> None:
    torch.manual_seed(0)
    network = network_class(*shape, mirror=mirror)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):  # as if it had learned something
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    classifier = Classifier(network, 0.7, tuple("abcdefghij")[: shape.num_classes], shape)

    assert compare(as_onnx(classifier), classifier) < 1e-5


def test_own_network_is_exported_without_running_the_code_of_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("theirs.py").write_text("raise SystemExit('executed')", encoding="utf-8")
    shape = Shape(num_classes=5, in_channels=3, image_size=32)
    network = own.Perceptron(*shape)
    save(tmp_path / "own.ckpt", network, shape=shape, dataset="theirs.images")
    assert main(["export", "--ckpt_path=own.ckpt", "--network=own.Perceptron"]) == 0

    images = torch.rand(7, 3, 32, 32)
    _, probs = run(Path("model.onnx"), images)
    with torch.no_grad():
        np.testing.assert_allclose(probs, network.eval()(images).softmax(1), atol=1e-5)


# --- what is refused ------------------------------------------------------------------------------


def test_what_computes_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    def damaged(classifier: Classifier, with_maps: bool = False) -> onnx.ModelProto:
        network = classifier.network
        other = CNN(10, 1, 28)
        weights = {name: 1.01 * weight for name, weight in network.state_dict().items()}
        other.load_state_dict(weights)
        return as_onnx(Classifier(other, classifier.temperature), with_maps)

    path = tmp_path / "model.onnx"
    path.write_text("of yesterday")
    monkeypatch.setattr("mnist_lit.export.graph.as_onnx", damaged)
    assert main(["export", f"--output={path}"]) == 2

    assert "gives other probabilities, by up to" in one_error(capsys)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["of yesterday"]


@pytest.mark.parametrize(
    ("network", "output", "said"),
    [
        (
            own.Choosing,
            "model.onnx",
            "cannot be written as ONNX: Could not guard on data-dependent",
        ),
        (own.Waving, "reader.html", "the page does not know Sin, an operation of this network"),
    ],
)
def test_what_cannot_be_written_says_why(
    network: type[own.Perceptron],
    output: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    checkpoint = save(tmp_path / "own.ckpt", network(10, 1, 28))
    loaded = torch.load(checkpoint, weights_only=True)
    torch.save({**loaded, "classes": list("0123456789")}, checkpoint)
    command = ["export", f"--ckpt_path={checkpoint}", f"--network={class_path_of(network)}"]
    assert main([*command, f"--output={tmp_path / output}"]) == 2

    assert said in one_error(capfd)
    assert not (tmp_path / output).exists()


def test_page_of_what_are_no_digits_is_refused(tmp_path: Path, capsys: Printed) -> None:
    checkpoint = save(tmp_path / "own.ckpt", CNN(10, 1, 28))
    path = tmp_path / "reader.html"
    assert main(["export", f"--ckpt_path={checkpoint}", f"--output={path}"]) == 2

    assert "trained on other classes (class 0, class 1, class 2, and 7 more)" in one_error(capsys)
    assert not path.exists()


def test_network_that_onnx_runtime_cannot_run_is_refused(exported: Path) -> None:
    model = onnx.load(exported)
    model.graph.node[0].op_type = "Unheard"
    with pytest.raises(UserError, match="ONNX Runtime cannot run this network"):
        compare(model, Classifier.load())


def test_output_is_an_onnx_or_html_file_that_can_be_written(
    tmp_path: Path, capsys: Printed
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert main(["export", "--output=model.pt"]) == 2
    assert "has to end in .onnx or .html" in one_error(capsys)
    assert main(["export", f"--output={tmp_path / 'folder.onnx'}"]) == 2
    assert "Is a directory" in one_error(capsys)
    assert len(list(tmp_path.iterdir())) == 1


def test_symlink_stays_and_its_target_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "model.onnx", tmp_path / "link.onnx"
    link.symlink_to(Path("there") / "model.onnx")
    for content in (b"written to a target that is not there yet", b"written to one that is"):
        write_output(link, content, "--output")

        assert link.is_symlink()
        assert target.read_bytes() == content
    assert len(list(tmp_path.rglob("*"))) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
def test_pipe_and_link_to_itself_are_refused_and_stay(tmp_path: Path) -> None:
    pipe, link, loop = (tmp_path / name for name in ("pipe", "link", "loop"))
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    loop.symlink_to(loop)
    for path in (pipe, link, loop):
        with pytest.raises(UserError, match=f"cannot write {path} .*: choose another --output"):
            write_output(path, b"content", "--output")
    assert pipe.is_fifo()
    assert {path.name for path in tmp_path.iterdir() if path.is_symlink()} == {"link", "loop"}
    assert len(list(tmp_path.iterdir())) == 3


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "mnist_lit.commands.export.find_spec",
        lambda name: None if name == "onnxruntime" else find_spec(name),
    )
    assert main(["export"]) == 2
    assert "pip install 'mnist-lit[export]'" in one_error(capsys)


# --- the guide's lines ----------------------------------------------------------------------------


def test_guide_runs_the_file_without_this_package(
    exported: Path, test_images: torch.Tensor, tmp_path: Path
) -> None:
    guide = (Path(__file__).parents[1] / "mnist_lit" / "export" / "README.md").read_text()
    code = guide.split("```python\n")[1].split("```")[0]
    shutil.copy(exported, tmp_path)
    Image.fromarray(test_images[0, 0].numpy()).save(tmp_path / "digit.png")
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; assert 'torch' not in sys.modules"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    digit, confidence = done.stdout.split()
    assert digit == "7"
    assert float(confidence) > 0.9

"""The pages that `fit` and `report` write, and what they are computed from."""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import own
import pytest
import torch
from conftest import results_of
from scipy.stats import binomtest
from sklearn.metrics import classification_report

from mnist_lit import Classifier, MNISTDataModule
from mnist_lit.__main__ import main
from mnist_lit.commands.report import METRICS
from mnist_lit.data.images import ImageSet
from mnist_lit.models import CNN
from mnist_lit.reports import measures
from mnist_lit.reports.pages import comparison_page, run_page
from mnist_lit.reports.run_data import RunData, differing
from mnist_lit.training.calibration import calibration_error
from mnist_lit.training.run_folders import Run

if TYPE_CHECKING:  # slow tests need it
    from playwright.sync_api import Browser

DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def test_images(data_dir: object) -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST's, in [0, 1], and their labels."""
    data = MNISTDataModule()
    data.setup()
    return data.images("test").pixels / 255, data.images("test").chosen_labels


def run_data(
    labels: torch.Tensor,
    probs: torch.Tensor,
    classes: Sequence[str] = DIGITS,
    network: torch.nn.Module | None = None,
    shape: tuple[int, ...] = (1, 28, 28),
    **changed: Any,
) -> RunData:
    """A run whose network answered `probs` to random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (len(labels), *shape), generator=generator, dtype=torch.uint8)
    run = RunData(
        name="version_0",
        place="lightning_logs/version_0",
        options={
            "model.network.class_path": "mnist_lit.models.CNN",
            "data.dataset": "mnist",
            "seed_everything": 1,
        },
        provenance=[],
        results=dict.fromkeys(METRICS, 1),
        history={"val/acc": [(99, 1.0)], "val/loss": [(99, 0.0)]},
        classifier=Classifier(network or Classifier.load().network, classes=classes),
        dataset=ImageSet(images, labels, torch.arange(len(labels))),
        probs=probs,
    )
    return replace(run, **changed)


def rows_of(page: str) -> dict[str, list[str]]:
    """Return the rows of all tables of a page, by their names."""
    rows = re.findall(r'<tr>\s*<th scope="row">(.*?)</th>(.*?)</tr>', page, re.DOTALL)
    return {name: re.findall(r"<td[^>]*>(.*?)</td>", cells) for name, cells in rows}


def section(page: str, title: str) -> str:
    """Return the part of a page below a heading."""
    return page.partition(f">{title}</h2>")[2].partition("<h2")[0]


# --- a run ----------------------------------------------------------------------------------------


def test_report_shows_the_run(brief_run: Run) -> None:
    page, results = brief_run.report.read_text(), results_of(brief_run)
    rows = rows_of(page)
    contents = dict(re.findall(r'<a href="#(.*?)">(.*?)</a>', page))

    assert f"<strong>{results['test/acc']:.2%}</strong>test accuracy" in page
    assert rows["model.lr"] == ["0.003", "0.001"]
    assert not {"model.label_smoothing", "lr_scheduler_interval"} & rows.keys(), "defaults"
    assert rows["validation"] == [f"{results['val/acc']:.2%}", f"{results['val/loss']:.4f}"]
    assert "mnist-lit fit --config lightning_logs/version_0/config.yaml" in page
    assert f"torch {torch.__version__.partition('+')[0]}" in page
    mistakes = section(page, "The surest mistakes")
    assert len(re.findall(r'<figure class="wrong"><img src="data:image/png', mistakes)) == 36
    assert contents == dict(re.findall(r'<h2 id="(.*?)">(.*?)</h2>', page))
    for title in ("Confusion", "Calibration", "Learned filters", "What the network looks at"):
        assert re.search("<svg|<img|<table", section(page, title))


def test_each_class_is_scored_as_scikit_learn_does(
    brief_run: Run, test_images: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, labels = test_images
    answers = Classifier.load(brief_run.best).probabilities(images).argmax(1)
    expected = classification_report(labels, answers, output_dict=True)
    rows = rows_of(section(brief_run.report.read_text(), "Each class"))

    for name, key in [*zip(DIGITS, DIGITS, strict=True), ("mean", "macro avg")]:
        *scores, count = (expected[key][s] for s in ("precision", "recall", "f1-score", "support"))
        assert rows[name] == [*(f"{score:.2%}" for score in scores), f"{int(count):,}"]


@pytest.mark.slow  # a browser
@pytest.mark.parametrize("width", [1200, 375])
@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_pages_load_nothing_and_fit_the_screen(
    kind: str, width: int, browser: "Browser", brief_run: Run, tmp_path: Path
) -> None:
    path = brief_run.report
    if kind == "comparison":
        path = tmp_path / "comparison.html"
        labels = torch.arange(100) % 10
        one = run_data(labels, torch.eye(10)[labels])
        other = replace(one, name="version_1", probs=torch.eye(10)[(labels + 1) % 10])
        path.write_text(comparison_page([one, other]), encoding="utf-8")
    messages: list[str] = []
    requests: list[str] = []
    with browser.new_page(viewport={"width": width, "height": 800}) as page:
        page.on("console", lambda message: messages.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        overflowing = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        cut = page.locator(".wide").evaluate_all(
            "all => all.filter(it => it.scrollWidth > it.clientWidth).length"
        )
        charts = page.locator("svg").evaluate_all("all => all.map(svg => svg.clientHeight)")
        pictures = page.locator("img").evaluate_all("all => all.map(img => img.naturalWidth)")

    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert not overflowing
    assert kind == "comparison" or not cut, "tables of ten classes fit"
    assert min(charts) > 100
    assert min(pictures) > 0


def test_sample_answers_are_of_all_classes_and_have_the_truth() -> None:
    """Also with a sorted test set, and where the truth is the least probable answer."""
    labels = torch.arange(10).repeat_interleave(20)
    probs = torch.linspace(0.01, 0.19, 10).repeat(200, 1)
    samples = section(run_page(run_data(labels, probs), {}), "Sample predictions")
    true = re.findall(r'<span class="is">(\d)</span>', samples)

    assert len(true) == samples.count('<div class="sample">')
    assert set(true) == set(DIGITS)


def test_names_are_text_in_a_page() -> None:
    names = ["$\\frac{$", "a$b", "\udcff", "<b>", *DIGITS[4:]]
    run = run_data(torch.arange(10), torch.eye(10), names, name="<i>")
    page = run_page(replace(run, options={**run.options, "data.dataset": "\udcfe"}), {})

    page.encode()
    assert list(rows_of(section(page, "Each class")))[:4] == [
        "$\\frac{$", "a$b", "\\udcff", "&lt;b&gt;"
    ]  # fmt: skip
    assert rows_of(section(page, "What was trained"))["data.dataset"] == ["\\udcfe", "-"]
    assert "<h1>&lt;i&gt;</h1>" in page


def test_any_number_of_classes_and_colours_are_shown() -> None:
    names = [f"class {number}" for number in range(47)]
    labels = torch.arange(94) % 47
    run = run_data(labels, torch.eye(47)[labels], names, CNN(47, 3, 32), (3, 32, 32))
    page = run_page(run, {})

    assert section(page, "Confusion").count('<th scope="col">') == 47
    assert "class 46" in section(page, "Each class")
    assert "<img" in section(page, "Feature maps")


def test_what_a_network_has_not_is_left_out() -> None:
    labels = torch.arange(20) % 10
    without_convolution, without_gradient = own.Perceptron(10, 1, 28), own.Thresholded(10)
    full, *others = (
        set(re.findall(r"<h2 .*?>(.*?)</h2>", run_page(run, {})))
        for network in (None, without_convolution, without_gradient)
        for run in [run_data(labels, torch.eye(10)[labels], network=network)]
    )

    assert full - others[0] == {"Learned filters", "Feature maps"}
    assert full - others[1] == {"What the network looks at"}


# --- several runs ---------------------------------------------------------------------------------


def test_runs_are_compared() -> None:
    """Out of 100 images, the first run gets 90 right, the second 80 others wrong, the third all."""
    labels = torch.arange(100) % 10
    right, wrong = torch.eye(10)[labels], torch.eye(10)[(labels + 1) % 10]
    first = torch.arange(100) < 10
    runs = []
    for number, (lr, seed, mistaken) in enumerate(
        [(0.001, 1, first), (0.001, 2, ~first), (0.01, 1, torch.zeros(100, dtype=torch.bool))]
    ):
        run = run_data(labels, torch.where(mistaken[:, None], wrong, right))
        results = {**run.results, "test/acc": 1 - float(mistaken.double().mean())}
        options = {**run.options, "model.lr": lr, "seed_everything": seed}
        runs.append(replace(run, name=f"version_{number}", options=options, results=results))
    change = "from step 20 on: model.lr 0.01 instead of 0.001"
    runs[2] = replace(runs[2], provenance=["python 3.13", change])
    page = comparison_page(runs)
    rows = rows_of(page)

    assert rows["model.lr"] == ["0.001", "0.001", "0.01"]
    assert "data.dataset" not in rows, "it is the same"
    assert f"version_2 was resumed with other options:</p>\n<pre>{change}</pre>" in page
    assert "python 3.13" not in page
    assert rows["mean, n = 2"][2] == f"{mean([0.9, 0.1]):.2%}"
    assert rows["standard deviation, n = 2"][2] == f"{stdev([0.9, 0.1]):.2%}"
    assert rows["version_0, version_1"] == ["90", "10", "&lt; 0.001", "version_0"]
    assert rows["version_0, version_2"] == ["0", "10", "0.002", "version_2"]
    mistakes = section(page, "Predictions")
    assert "Only version_0 is correct; the predictions of version_1" in mistakes
    assert mistakes.count('<figure class="wrong">') == 12 + 10


def test_arguments_of_classes_differ_unless_they_are_the_defaults() -> None:
    adamw = {"amsgrad": False, "betas": [0.9, 0.999], "eps": 1e-8, "lr": 0.002, "fused": None}
    options: dict[str, object] = {"optimizer.class_path": "torch.optim.AdamW"}
    options |= {f"optimizer.init_args.{name}": value for name, value in adamw.items()}
    changed = {**options, "optimizer.init_args.amsgrad": True}
    unknown = {**options, "optimizer.class_path": "not.imported.Optimizer"}

    assert differing([options, options]) == {}
    assert differing([{}, options]) == {
        "optimizer.class_path": ["-", "torch.optim.AdamW"],
        "optimizer.init_args.lr": ["-", "0.002"],
    }
    assert differing([options, changed]) == {"optimizer.init_args.amsgrad": ["False", "True"]}
    assert "optimizer.init_args.eps" in differing([{}, unknown])


# --- measures -------------------------------------------------------------------------------------


def test_images_of_all_classes_are_chosen_from_a_sorted_folder() -> None:
    labels = torch.arange(10).repeat_interleave(100)[:950]
    chosen = measures.balanced_sample(labels, 25)

    assert torch.bincount(labels[chosen], minlength=10).min() == 2
    assert chosen.tolist() == sorted(chosen.tolist())
    assert measures.balanced_sample(labels, 2000).tolist() == list(range(950))
    assert measures.balanced_sample(torch.tensor([7, 7, 1]), 2).tolist() == [0, 2]


@pytest.mark.parametrize(("one", "other"), [(0, 0), (5, 5), (3, 12), (40, 21), (700, 900)])
def test_mcnemar_is_the_exact_one(one: int, other: int) -> None:
    expected = binomtest(one, one + other).pvalue if one + other else 1.0

    assert measures.mcnemar(one, other) == pytest.approx(expected)


def test_reliability_agrees_with_the_calibration_error(
    test_images: tuple[torch.Tensor, torch.Tensor],
) -> None:
    images, labels = test_images
    probs = Classifier.load().probabilities(images[:3000]).pow(0.5)
    probs /= probs.sum(1, keepdim=True)  # less sure than it should be
    confidence, accuracy, counts = measures.reliability(probs, labels[:3000])
    error = ((confidence - accuracy).abs() * counts).sum() / counts.sum()

    assert counts.sum() == 3000
    assert error == pytest.approx(calibration_error(probs, labels[:3000]), abs=1e-5)


def test_attributions_add_up_to_the_logit(
    test_images: tuple[torch.Tensor, torch.Tensor],
) -> None:
    images, labels = test_images[0][:10], test_images[1][:10]
    network = Classifier.load().network
    shares = measures.attributions(network, images, labels)
    assert shares is not None
    with torch.no_grad():
        gained = network(images) - network(torch.zeros_like(images))
    gained = gained.gather(1, labels[:, None])[:, 0]

    torch.testing.assert_close(shares.sum((1, 2)), gained, rtol=0.05, atol=0.4)
    assert not shares[images[:, 0] == 0].any(), "empty paper has no share"


class InPlace(torch.nn.Module):
    """Scales its input, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(1, 2, 3)
        self.linear = torch.nn.Linear(2 * 26**2, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scaled = images.mul_(0.5) if self.in_place else images * 0.5
        logits: torch.Tensor = self.linear(self.convolution(scaled).flatten(1))
        return logits


@pytest.mark.parametrize(
    "measure",
    [
        lambda network, images: Classifier(network).probabilities(images),
        lambda network, images: Classifier(network).feature_maps(images),
        lambda network, images: measures.attributions(network, images, torch.tensor([0, 1])),
        measures.last_hidden,
    ],
    ids=["probabilities", "feature maps", "attributions", "last hidden"],
)
def test_network_may_change_its_input_in_place(
    measure: Callable[[InPlace, torch.Tensor], torch.Tensor],
) -> None:
    images = torch.rand(2, 1, 28, 28)
    before = images.clone()
    found, expected = (measure(InPlace(in_place), images) for in_place in (True, False))

    torch.testing.assert_close(found, expected)
    assert torch.equal(images, before)


class Meeting(InPlace):
    """Runs with two threads at the same time."""

    def __init__(self) -> None:
        super().__init__(in_place=False)
        self.barrier = threading.Barrier(2, timeout=10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.barrier.wait()
        logits = super().forward(images)
        self.barrier.wait()
        return logits


def test_feature_maps_are_of_the_own_images_when_two_threads_ask() -> None:
    several = [torch.rand(number, 1, 28, 28) for number in (1, 2)]
    expected = [Classifier(InPlace(in_place=False)).feature_maps(images) for images in several]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(Classifier(Meeting()).feature_maps, several))

    torch.testing.assert_close(found, expected)


# --- the command ----------------------------------------------------------------------------------


def test_newest_run_is_the_default(
    brief_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(brief_run.folder, tmp_path / "lightning_logs" / "version_7")
    monkeypatch.chdir(tmp_path)
    report = tmp_path / "lightning_logs" / "version_7" / "report.html"
    before = report.read_text()
    report.unlink()

    assert main(["report"]) == 0
    assert rows_of(report.read_text()) == rows_of(before), "as fit has written it"
    assert report.read_text().count("<img") == before.count("<img")


def test_runs_of_one_name_are_told_apart(brief_run: Run, tmp_path: Path) -> None:
    for root in ("one", "other"):
        shutil.copytree(brief_run.folder, tmp_path / root / "version_0")
    output = tmp_path / "comparison.html"

    assert (
        main(["report", str(tmp_path / "one"), str(tmp_path / "other"), f"--output={output}"]) == 0
    )
    results = rows_of(section(output.read_text(), "Results"))
    assert {f"one{os.sep}version_0", f"other{os.sep}version_0"} <= set(results)


@pytest.mark.parametrize("what", ["nothing", "empty", "unfinished", "trials"])
def test_report_on_no_finished_run_is_one_line(
    what: str, brief_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    said = "is not a run, and holds no finished one"
    if what in ("empty", "trials"):
        folder.mkdir()
    if what == "trials":
        (folder / "trials.csv").write_text("a,b\n1,2\n")
        said = "trials.csv is damaged"
    if what == "unfinished":
        shutil.copytree(brief_run.folder, folder)
        (folder / "results.json").unlink()
        said = "is not finished"

    assert main(["report", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def _replaced(path: Path, pattern: str, by: str) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(pattern, by, text, flags=re.DOTALL), encoding="utf-8")


DAMAGES: dict[str, tuple[str, Callable[[Run], object]]] = {
    "no results": ("lacks val/acc", lambda run: run.results.write_text(json.dumps({}))),
    "metrics": ("metrics.csv is damaged", lambda run: run.metrics.write_bytes(b"\xff" * 9)),
    "config is no YAML": ("config.yaml is damaged", lambda run: run.config.write_text("model: {")),
    "config is cut": ("config.yaml is damaged", lambda run: _replaced(run.config, "\ndata:.*", "")),
    "data": ("is damaged", lambda run: _replaced(run.config, "val_size: [0-9]+", "val_size: many")),
    "other images": (
        "was trained on other data",
        lambda run: _replaced(run.config, "image_size: [a-z0-9]+", "image_size: 20"),
    ),
    "no checkpoint": ("best.ckpt is gone", lambda run: run.best.unlink()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_run_is_one_line(
    damage: str, brief_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "version_0")
    shutil.copytree(brief_run.folder, run.folder)
    run.report.unlink()
    said, do = DAMAGES[damage]
    do(run)

    assert main(["report", str(run.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not run.report.exists()

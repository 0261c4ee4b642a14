"""The pages that `fit` and `report` write."""

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from conftest import BRIEFLY, Fit, fit_in, results_of
from playwright.sync_api import Browser
from scipy.stats import binomtest
from sklearn.metrics import classification_report
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lit import Classifier, MNISTDataModule
from mnist_lit.__main__ import main
from mnist_lit.data.images import ImageSet
from mnist_lit.pages import charts, markup
from mnist_lit.pages.comparison import comparison, mcnemar
from mnist_lit.pages.evidence import (
    Evidence,
    attributions,
    differing,
    last_hidden,
    principal_components,
    reliability,
    scores_per_class,
)
from mnist_lit.pages.run_page import run_page
from mnist_lit.report import NUMBERS
from mnist_lit.training.calibration import calibration_error
from mnist_lit.training.runs import Run


@pytest.fixture(scope="module")
def test_images(data_dir: object) -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST's, in [0, 1], and their labels."""
    data = MNISTDataModule()
    data.setup()
    return data.images("test").pixels / 255, data.images("test").chosen_labels


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory: pytest.TempPathFactory, data_dir: object) -> list[Run]:
    """Two that differ in nothing but their seeds, and one that learned with another rate."""
    root = tmp_path_factory.mktemp("three")
    briefly = [*BRIEFLY, "--trainer.max_epochs=1"]
    return [
        fit_in(root, *briefly, *options)
        for options in (["--seed_everything=1"], ["--seed_everything=2"], ["--model.lr=0.0005"])
    ]


def rows_of(page: str) -> dict[str, list[str]]:
    """The rows of all tables of a page, by their names."""
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page)
    return {name: re.findall(r"<td[^>]*>(.*?)</td>", cells) for name, cells in rows}


def section(page: str, title: str) -> str:
    """The part of a page below a heading."""
    return page.partition(f">{title}</h2>")[2].partition("<h2")[0]


def evidence(
    labels: torch.Tensor, probs: torch.Tensor, classes: Sequence[str] | None = None
) -> Evidence:
    """A run of the packaged network that is said to have answered `probs`."""
    images = torch.zeros(len(labels), 1, 28, 28, dtype=torch.uint8)
    loaded = Classifier.load()
    return Evidence(
        name="version_0",
        place="lightning_logs/version_0",
        options={"model.network.class_path": "mnist_lit.models.CNN"},
        provenance=[],
        results=dict.fromkeys(NUMBERS, 1),
        history={"val/acc": [(99, 1.0)], "val/loss": [(99, 0.0)]},
        classifier=Classifier(loaded.network, classes=classes or loaded.classes),
        asked=ImageSet(images, labels, torch.arange(len(labels))),
        probs=probs,
    )


def test_page_of_a_run_tells_of_it(brief_run: Run) -> None:
    page, results = brief_run.report.read_text(), results_of(brief_run)
    rows = rows_of(page)

    assert f"<strong>{results['test/acc']:.2%}</strong>test accuracy" in page
    assert rows["model.lr"] == ["0.003", "0.001"]
    assert "model.label_smoothing" not in rows, "it is the default"
    assert rows["validation"] == [f"{results['val/acc']:.2%}", f"{results['val/loss']:.4f}"]
    assert "mnist-lit fit --config lightning_logs/version_0/config.yaml" in page
    assert f"torch {torch.__version__.partition('+')[0]}" in page
    mistakes = section(page, "The surest mistakes")
    assert len(re.findall(r'<figure class="wrong"><img src="data:image/png', mistakes)) == 36
    for title in ("Confusion", "Learned filters", "Feature maps", "What the network looks at"):
        assert f">{title}</h2>" in page


def test_each_class_is_scored_as_scikit_learn_does(brief_run: Run) -> None:
    data = MNISTDataModule()
    data.setup()
    images = data.images("test")
    answers = Classifier.load(brief_run.best).probabilities(images.pixels).argmax(1)
    expected = classification_report(images.chosen_labels, answers, output_dict=True)
    rows = rows_of(section(brief_run.report.read_text(), "Each class"))
    scores = scores_per_class(answers, images.chosen_labels, 10)

    for label in range(10):
        of_class = [expected[str(label)][name] for name in ("precision", "recall", "f1-score")]
        assert [score[label].item() for score in scores.values()] == pytest.approx(of_class)
        count = f"{int(expected[str(label)]['support']):,}"
        assert rows[str(label)] == [*(f"{score:.2%}" for score in of_class), count]


@pytest.mark.parametrize("width", [1200, 375])
@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_pages_need_nothing_from_outside(
    kind: str, width: int, browser: Browser, three_runs: list[Run], tmp_path: Path
) -> None:
    """And fit on a phone."""
    path = three_runs[0].report
    if kind == "comparison":
        path = tmp_path / "comparison.html"
        assert main(["report", str(three_runs[0].folder.parent), f"--output={path}"]) == 0
    said: list[str] = []
    asked: list[str] = []
    with browser.new_page(viewport={"width": width, "height": 800}) as page:
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        overflowing = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        cut = page.locator(".wide").evaluate_all(
            "all => all.filter(it => it.scrollWidth > it.clientWidth).length"
        )
        charts = page.locator("svg").evaluate_all("all => all.map(svg => svg.clientHeight)")
        pictures = page.locator("img").evaluate_all("all => all.map(img => img.naturalWidth)")

    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert not overflowing
    assert kind == "comparison" or not cut, "tables of ten classes fit"
    assert min(charts) > 100
    assert min(pictures) > 0


def test_comparison_draws_results_and_leaves_out_defaults_of_an_optimizer() -> None:
    labels = torch.arange(100) % 10
    probs = torch.eye(10)[labels]
    plain = evidence(labels, probs)
    adamw = {"amsgrad": False, "betas": [0.9, 0.999], "eps": 1e-8, "lr": 0.002, "fused": None}
    options: dict[str, object] = {"optimizer.class_path": "torch.optim.AdamW"}
    options |= {f"optimizer.init_args.{name}": value for name, value in adamw.items()}
    other = replace(plain, name="version_1", options={**plain.options, **options})
    page = comparison([plain, other])

    assert rows_of(section(page, "What differs")) == {
        "optimizer.class_path": ["-", "torch.optim.AdamW"],
        "optimizer.init_args.lr": ["-", "0.002"],
    }
    assert "<svg" in section(page, "Results")


def test_an_argument_that_one_run_changes_is_shown_for_all() -> None:
    options = {"optimizer.class_path": "torch.optim.SGD", "optimizer.init_args.momentum": 0}
    changed = {**options, "optimizer.init_args.momentum": 0.9}

    assert differing([options, changed]) == {"optimizer.init_args.momentum": ["0", "0.9"]}
    assert differing([options, options]) == {}
    own = {"optimizer.class_path": "not.imported.Optimizer", "optimizer.init_args.momentum": 0}
    assert "optimizer.init_args.momentum" in differing([{}, own]), "its defaults are not known"


@pytest.mark.parametrize(("right", "count"), [(50, 100), (9_990, 10_000), (100, 100)])
def test_intervals_of_accuracies_are_those_of_wilson(right: int, count: int) -> None:
    low, high = charts.wilson(right / count, count)
    expected = binomtest(right, count).proportion_ci(method="wilson")

    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-5)


def test_sample_answers_are_of_all_classes_and_have_the_truth() -> None:
    """Of a sorted test set, too, and where the truth is the least probable answer."""
    labels = torch.arange(10).repeat_interleave(20)
    probs = torch.linspace(0.01, 0.19, 10).repeat(200, 1)
    samples = section(run_page(evidence(labels, probs), {}), "Sample answers")
    true = re.findall(r'<span class="is">(\d)</span>', samples)

    assert len(true) == samples.count('<div class="sample">')
    assert set(true) == set("0123456789")


def test_sections_are_linked_and_named_once() -> None:
    page = run_page(evidence(torch.arange(10), torch.eye(10)), {})
    headings = dict(re.findall(r'<h2 id="(.*?)">(.*?)</h2>', page))
    contents = dict(re.findall(r'<a href="#(.*?)">(.*?)</a>', page))

    assert contents == headings
    assert {"Training", "Confusion", "Calibration", "Sample answers"} <= set(contents.values())
    assert page.count("Calibration") == 2, "the link and the heading"
    assert {"answered", "true"} <= set(re.findall(r">(\w+)<", section(page, "Confusion")))


def test_any_class_name_is_text_in_a_page() -> None:
    names = ["$\\frac{$", "a$b", "\udcff", "<b>", *"456789"]
    page = run_page(evidence(torch.arange(10), torch.eye(10), names), {"data.dataset": "\udcfe"})
    rows = rows_of(section(page, "Each class"))

    page.encode()
    assert list(rows)[:4] == ["$\\frac{$", "a$b", "\\udcff", "&lt;b&gt;"]
    assert rows_of(section(page, "What was trained"))["data.dataset"] == ["-", "\\udcfe"]


def test_runs_are_compared(three_runs: list[Run], tmp_path: Path) -> None:
    output = tmp_path / "comparison.html"
    folders = [str(run.folder) for run in three_runs]
    assert main(["report", *folders, f"--output={output}"]) == 0
    page = output.read_text()
    rows, results = rows_of(page), [results_of(run) for run in three_runs]
    test = [result["test/acc"] for result in results]
    right = [
        Classifier.load(run.best).probabilities(images).argmax(1) == labels
        for run in three_runs
        for images, labels in [_test_set()]
    ]

    assert rows["model.lr"] == ["0.003", "0.003", "0.0005"]
    assert rows["seed_everything"] == ["1", "2", "1"]
    assert "data.batch_size" not in rows, "it is the same"
    assert rows["mean, n = 2"][2] == f"{mean(test[:2]):.2%}"
    assert rows["standard deviation, n = 2"][2] == f"{stdev(test[:2]):.2%}"
    only_first, only_third = int((right[0] & ~right[2]).sum()), int((right[2] & ~right[0]).sum())
    assert rows["version_0, version_2"][:2] == [f"{only_first:,}", f"{only_third:,}"]
    assert rows["version_0, version_2"][2:] == ["&lt; 0.001", "version_0"]


def _test_set() -> tuple[torch.Tensor, torch.Tensor]:
    data = MNISTDataModule()
    data.setup()
    return data.images("test").pixels, data.images("test").chosen_labels


@pytest.mark.parametrize(("one", "other"), [(0, 0), (5, 5), (3, 12), (40, 21), (700, 900)])
def test_mcnemar_is_the_exact_one(one: int, other: int) -> None:
    expected = binomtest(one, one + other).pvalue if one + other else 1.0

    assert mcnemar(one, other) == pytest.approx(expected)


def test_reliability_is_what_the_calibration_error_is_made_of(
    test_images: tuple[torch.Tensor, torch.Tensor],
) -> None:
    images, labels = test_images
    probs = Classifier.load().probabilities(images[:3000]).pow(0.5)
    probs /= probs.sum(1, keepdim=True)  # unsure of itself
    found = reliability(probs, labels[:3000])
    gaps = (found.confidence - found.accuracy).abs()

    assert found.counts.sum() == 3000
    error = calibration_error(probs, labels[:3000])
    assert (gaps * found.counts).sum() / 3000 == pytest.approx(error, abs=1e-5)


def test_what_speaks_for_an_answer_adds_up_to_it(
    test_images: tuple[torch.Tensor, torch.Tensor],
) -> None:
    images, labels = test_images[0][:10], test_images[1][:10]
    network = Classifier.load().network
    speaking = attributions(network, images, labels)
    assert speaking is not None
    with torch.no_grad():
        gained = network(images) - network(torch.zeros_like(images))
    gained = gained.gather(1, labels[:, None])[:, 0]

    torch.testing.assert_close(speaking.sum((1, 2)), gained, rtol=0.05, atol=0.4)
    assert not speaking[images[:, 0] == 0].any(), "paper says nothing"


class InPlace(torch.nn.Module):
    """Scales its input in place, if asked to."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.convolution = torch.nn.Conv2d(1, 2, 3)
        self.linear = torch.nn.Linear(2 * 26**2, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scaled = images.mul_(0.5) if self.in_place else images * 0.5
        logits: torch.Tensor = self.linear(self.convolution(scaled).flatten(1))
        return logits


@torch.no_grad()
def _copy(network: InPlace) -> InPlace:
    other = InPlace(in_place=not network.in_place)
    other.load_state_dict(network.state_dict())
    return other


@pytest.mark.parametrize(
    "measure",
    [
        lambda network, images: Classifier(network).probabilities(images),
        lambda network, images: Classifier(network).feature_maps(images),
        lambda network, images: attributions(network, images, torch.zeros(4, dtype=torch.int64)),
        last_hidden,
    ],
    ids=["probabilities", "feature maps", "attributions", "last hidden"],
)
def test_network_may_change_its_input_in_place(
    measure: Callable[[InPlace, torch.Tensor], torch.Tensor],
) -> None:
    network = InPlace(in_place=True)
    images = torch.rand(4, 1, 28, 28)
    before = images.clone()
    expected = measure(_copy(network), images)

    torch.testing.assert_close(measure(network, images), expected)
    assert torch.equal(images, before)


def test_last_hidden_layer_is_seen_along_its_widest_directions(
    test_images: tuple[torch.Tensor, torch.Tensor],
) -> None:
    network = Classifier.load().network
    hidden = last_hidden(network, test_images[0][:500])
    assert hidden is not None
    points, shares = principal_components(hidden)

    assert hidden.shape == (500, 50)
    total = hidden.double().var(0).sum()
    torch.testing.assert_close(points.var(0) / total, shares)
    assert hidden.double().var(0).max() / total < shares[0], "wider than any unit"


def test_names_in_a_page_are_text() -> None:
    table = markup.table(["<b>", "&"], [["<script>", "<i>"]])

    assert not {"<b>", "<script>", "<i>"} & set(re.findall(r"<[^>]*>", table))
    assert "&lt;script&gt;" in table


def test_report_of_the_newest_run_is_the_default(
    three_runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(three_runs[0].folder.parent, tmp_path / "lightning_logs")
    monkeypatch.chdir(tmp_path)
    newest = tmp_path / "lightning_logs" / "version_2" / "report.html"
    before = newest.read_text()
    newest.unlink()

    assert main(["report"]) == 0
    assert rows_of(newest.read_text()) == rows_of(before), "as fit has written it"
    assert len(re.findall("<img", newest.read_text())) == len(re.findall("<img", before))


@pytest.mark.parametrize("what", ["nothing", "empty", "unfinished"])
def test_what_cannot_be_reported_is_one_line(
    what: str, brief_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    if what == "empty":
        folder.mkdir()
    if what == "unfinished":
        shutil.copytree(brief_run.folder, folder)
        (folder / "results.json").unlink()
    said = "is not finished" if what == "unfinished" else "is no run, and there is no finished one"

    assert main(["report", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not list(tmp_path.rglob("comparison.html"))


def _without(*names: str) -> Callable[[Run], None]:
    def remove(run: Run) -> None:
        results = results_of(run)
        run.results.write_text(json.dumps({name: results[name] for name in results.keys() - names}))

    return remove


def _accuracy(value: object) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        run.results.write_text(json.dumps({**results_of(run), "test/acc": value}))

    return change


DAMAGES: dict[str, tuple[str, Callable[[Run], object]]] = {
    "no results": ("results.json is damaged", lambda run: run.results.write_text("{}")),
    "no temperature": ("results.json is damaged", _without("temperature")),
    "null": ("test/acc is null", _accuracy(None)),
    "not a number": ("test/acc is NaN", _accuracy(float("nan"))),
    "metrics: noise": ("metrics.csv is damaged", lambda run: run.metrics.write_bytes(b"\xff" * 9)),
    "metrics: no steps": ("metrics.csv is damaged", lambda run: run.metrics.write_text("a\n1\n")),
    "metrics: a cell too many": (
        "metrics.csv is damaged",
        lambda run: run.metrics.write_text("step\n1,2\n"),
    ),
    "config is a word": ("config.yaml is damaged", lambda run: run.config.write_text("hello")),
    "config is a list": ("config.yaml is damaged", lambda run: run.config.write_text("[model]")),
    "config is no YAML": ("config.yaml is damaged", lambda run: run.config.write_text("model: {")),
    "config is noise": ("config.yaml is no text", lambda run: run.config.write_bytes(b"\xff" * 9)),
    "config is cut": (
        "config.yaml is damaged",
        lambda run: run.config.write_text(run.config.read_text().partition("\ndata:")[0]),
    ),
    "data are no number": (
        "config.yaml is damaged, section data",
        lambda run: run.config.write_text(
            re.sub("val_size: .*", "val_size: many", run.config.read_text())
        ),
    ),
    "other images": (
        "was trained on other data",
        lambda run: run.config.write_text(
            re.sub("image_size: .*", "image_size: 20", run.config.read_text())
        ),
    ),
    "no checkpoint": ("best.ckpt is gone", lambda run: run.best.unlink()),
}  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "own"),
    [*((name, True) for name in DAMAGES), *((name, False) for name in DAMAGES if "config" in name)],
)
def test_damaged_run_is_one_line(
    damage: str,
    own: bool,
    brief_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path / ("lightning_logs" if own else "moved") / "version_0")
    shutil.copytree(brief_run.folder, run.folder)
    run.report.unlink()
    said, do = DAMAGES[damage]
    do(run)

    assert main(["report", str(run.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not run.report.exists()
    if damage == "no temperature":
        assert main(["report", str(brief_run.folder), str(run.folder), "--output=both.html"]) == 2
        assert said in capsys.readouterr().err


def test_damaged_table_of_trials_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trials.csv").write_text("a,b\n1,2\n")

    assert main(["report", str(tmp_path)]) == 2
    assert "trials.csv is damaged" in capsys.readouterr().err


def test_report_that_is_a_folder_is_one_line(
    brief_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(brief_run.folder), f"--output={tmp_path}"]) == 2
    assert "choose another --output" in capsys.readouterr().err


def test_runs_of_one_name_are_told_apart(brief_run: Run, tmp_path: Path) -> None:
    folders = [tmp_path / root / "version_0" for root in ("one", "other")]
    for folder in folders:
        shutil.copytree(brief_run.folder, folder)
    output = tmp_path / "comparison.html"

    assert main(["report", *map(str, folders), f"--output={output}"]) == 0
    results = rows_of(section(output.read_text(), "Results"))
    assert {f"one{os.sep}version_0", f"other{os.sep}version_0"} <= set(results)


def test_own_network_is_reported_once_it_is_named(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere; below one's own lightning_logs it has been named already."""
    run = fit(*BRIEFLY, "--trainer.limit_train_batches=20", "--model.network=own.Perceptron")
    output = ["--output", str(tmp_path / "own.html")]

    assert main(["report", str(run.folder), *output]) == 2
    assert "names own.Perceptron" in capsys.readouterr().err
    assert main(["report", str(run.folder), *output, "--network=own.Perceptron"]) == 0
    page = (tmp_path / "own.html").read_text()
    assert "Perceptron on mnist" in page
    assert "Learned filters" not in page, "there are none"
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 0


def test_network_without_gradients_is_reported_without_them(fit: Fit) -> None:
    options = ["--trainer.limit_train_batches=20", "--model.network=own.Thresholded"]
    page = fit(*BRIEFLY, *options).report.read_text()

    assert "Feature maps" in page
    assert "What the network looks at" not in page


def test_pages_are_legible_at_47_classes_and_in_colours(fit: Fit) -> None:
    small = ["--data.batch_size=100", "--data.val_size=100", "--trainer.max_epochs=1"]
    small.append("--trainer.log_every_n_steps=2")
    many = fit(*small, "--data.dataset=own.digits_of_47").report.read_text()
    colours = fit(*small, "--data.dataset=own.stripes").report.read_text()

    assert len(re.findall(r'<th scope="col">', section(many, "Confusion"))) == 37
    assert "Feature maps" in colours
    assert "turquoise" in colours


def test_tensorboard_shows_how_it_answers(brief_run: Run) -> None:
    events = EventAccumulator(str(brief_run.folder)).Reload()
    tags = events.Tags()

    assert {f"precision and recall/{digit}" for digit in range(10)} <= set(tags["tensors"])
    assert tags["graph"]
    projected = (brief_run.folder / "projector_config.pbtxt").read_text()
    (tensors,) = re.findall(r'tensor_path: "(.*)"', projected)
    lines = (brief_run.folder / tensors).read_text().splitlines()
    assert len(lines) == 1000
    assert len(lines[0].split("\t")) == 50

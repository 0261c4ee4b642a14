"""The pages that `fit` and `report` write."""

import re
import shutil
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
from mnist_lit.pages import markup
from mnist_lit.pages.comparison import mcnemar
from mnist_lit.pages.evidence import (
    attributions,
    last_hidden,
    principal_components,
    reliability,
    scores_per_class,
)
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


def test_page_of_a_run_tells_of_it(brief_run: Run) -> None:
    page, results = brief_run.report.read_text(), results_of(brief_run)
    rows = rows_of(page)

    assert f"<strong>{results['test/acc']:.2%}</strong>test accuracy" in page
    assert rows["model.lr"] == ["0.003", "0.001"]
    assert "model.label_smoothing" not in rows, "it is the default"
    assert rows["validation"] == [f"{results['val/acc']:.2%}", f"{results['val/loss']:.4f}"]
    assert "mnist-lit fit --config lightning_logs/version_0/config.yaml" in page
    assert f"torch {torch.__version__.partition('+')[0]}" in page
    mistakes = page.partition("The surest mistakes")[2].partition("<h2>")[0]
    assert len(re.findall(r'<figure class="wrong"><img src="data:image/png', mistakes)) == 36
    for title in ("Confusion", "Learned filters", "Feature maps", "What the network looks at"):
        assert f"<h2>{title}</h2>" in page


def test_each_class_is_scored_as_scikit_learn_does(brief_run: Run) -> None:
    data = MNISTDataModule()
    data.setup()
    images = data.images("test")
    answers = Classifier.load(brief_run.best).probabilities(images.pixels).argmax(1)
    expected = classification_report(images.chosen_labels, answers, output_dict=True)
    rows = rows_of(brief_run.report.read_text().partition("Each class")[2].partition("<h2>")[0])
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
        charts = page.locator("svg").evaluate_all("all => all.map(svg => svg.clientHeight)")
        pictures = page.locator("img").evaluate_all("all => all.map(img => img.naturalWidth)")

    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert not overflowing
    assert min(charts) > 100
    assert min(pictures) > 0


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


def test_own_network_is_reported_once_it_is_named(
    fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(*BRIEFLY, "--trainer.limit_train_batches=20", "--model.network=own.Perceptron")
    output = ["--output", str(tmp_path / "own.html")]

    assert main(["report", str(run.folder), *output]) == 2
    assert "names own.Perceptron" in capsys.readouterr().err
    assert main(["report", str(run.folder), *output, "--network=own.Perceptron"]) == 0
    page = (tmp_path / "own.html").read_text()
    assert "Perceptron on mnist" in page
    assert "Learned filters" not in page, "there are none"


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

    assert len(re.findall(r'<th scope="col">', many.partition("Confusion")[2])) == 37
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

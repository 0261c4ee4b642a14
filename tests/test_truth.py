"""Measuring on pictures whose numbers are known."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image
from scipy.stats import binomtest

from mnist_lit.__main__ import main
from mnist_lit.commands.truth import edit_distance
from mnist_lit.reports.intervals import wilson_interval

Printed = pytest.CaptureFixture[str]


def number_picture(number: str) -> Image.Image:
    """Training digits beside each other, black on white."""
    images, labels = small.digits(True)
    digits = [images[labels.tolist().index(int(digit)), 0].numpy() for digit in number]
    return Image.fromarray(255 - np.concatenate(digits, axis=1))


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """One picture read right, one whose truth is another, an empty one, two lines, no picture."""
    number_picture("42").save(tmp_path / "right.png")
    number_picture("317").save(tmp_path / "wrong.png")
    Image.new("L", (60, 60), 255).save(tmp_path / "nothing.png")
    lines = Image.new("L", (200, 140), 255)
    lines.paste(number_picture("42"), (0, 0))
    lines.paste(number_picture("317"), (0, 80))
    lines.save(tmp_path / "lines.png")
    (tmp_path / "text.png").write_text("no picture")
    path = tmp_path / "labels.csv"
    path.write_text(
        "file,truth,kind\nright.png,42,good\nwrong.png,3175,bad\nnothing.png,,good\n"
        "lines.png,42 317,good\ntext.png,12,bad\n"
    )
    return path


def test_whole_numbers_and_wrong_digits_are_counted(labels: Path, capsys: Printed) -> None:
    assert main(["predict", f"--truth={labels}", "--by=kind"]) == 1
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines()]
    counts = {row[0]: row[1:] for row in rows if len(row) == 8}

    assert counts["good"] == ["3", "3", "100.0%", "44%-100%", "7", "0", "0.0%"]
    assert counts["bad"] == ["2", "0", "0.0%", "0%-66%", "6", "3", "50.0%"]
    assert counts["all"][:3] == ["5", "3", "60.0%"]
    wrong = [row[:4] for row in rows if len(row) == 5]
    assert [row[0] for row in wrong if row[0]] == ["text.png", "wrong.png"], "the worst first"
    assert ["wrong.png", "3175", "317", "1"] in wrong


def test_programs_get_the_truth_beside_the_answer(labels: Path, capsys: Printed) -> None:
    assert main(["predict", f"--truth={labels}", "--format=json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["predict", f"--truth={labels}", "--format=csv"]) == 1
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))

    assert [row["truth"] for row in rows] == ["42", "3175", "", "42 317", "12"]
    assert [row["digits_wrong"] for row in rows] == [0, 1, 0, 0, 2]
    assert rows[3]["number"] == "42 317"
    assert [row["digits_wrong"] for row in table] == ["0", "1", "0", "0", "2"]


def test_lines_that_run_together_are_not_whole(labels: Path, capsys: Printed) -> None:
    labels.write_text("file,truth\nlines.png,42317\n", encoding="utf-8")
    assert main(["predict", f"--truth={labels}"]) == 0

    assert "lines.png │ 42317 │ 42 317 │ 0 " in capsys.readouterr().out


def test_pictures_may_lie_in_another_folder(
    labels: Path, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = labels.rename(tmp_path / "elsewhere" / "labels.csv")
    moved.write_text("file,truth\nright.png,42\n")
    monkeypatch.chdir(tmp_path)

    assert main(["predict", "--truth=elsewhere/labels.csv", "."]) == 0
    assert "100.0%" in capsys.readouterr().out


def test_pages_of_a_file_are_its_lines(tmp_path: Path, capsys: Printed) -> None:
    pages = [number_picture("42"), Image.new("L", (60, 60), 255), number_picture("317")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "one.png")
    path = tmp_path / "labels.csv"
    path.write_text("file,truth\npages.tif,42 317\none.png,42\n")
    assert main(["predict", f"--truth={path}", "--format=json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [(row["number"], row["digits_wrong"]) for row in rows] == [("42 317", 0), ("42", 0)]


def test_narrow_terminal_shows_all_counts(
    labels: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert main(["predict", f"--truth={labels}", "--by=kind"]) == 1
    printed = capsys.readouterr().out

    assert ["good", "3", "3", "100.0%", "44%-100%", "7", "0", "0.0%"] in [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines()
    ]


def test_truth_that_is_a_pipe_is_not_waited_for(tmp_path: Path, capsys: Printed) -> None:
    os.mkfifo(tmp_path / "labels.csv")

    assert main(["predict", f"--truth={tmp_path / 'labels.csv'}"]) == 2
    assert capsys.readouterr().err.endswith("labels.csv is not a file\n")


def test_truth_that_is_not_there_is_one_line(tmp_path: Path, capsys: Printed) -> None:
    assert main(["predict", f"--truth={tmp_path / 'nowhere' / 'labels.csv'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()

    assert "labels.csv cannot be read: No such file" in line


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("file,truth\na.png,4x\n", [], "line 2: a file and its truth are expected"),
        ("file,truth\na.png\n", [], "line 2: a file and its truth are expected"),
        ("file,number\na.png,4\n", [], "no column truth; it has file, number"),
        ("file,truth\na.png,4\n", ["--by=kind"], "no column kind"),
        ("file,truth,truth\na.png,4,5\n", [], "has the column truth twice: rename or remove one"),
        ("file,truth,kind,kind\na.png,4,x,y\n", ["--by=kind"], "has the column kind twice"),
        ("file,truth\n", [], "names no pictures"),
        ("", [], "no column file"),
        ("file,truth\na.png,4\n", [".", "."], "at most one folder"),
        ("file,truth\na.png,4\n", ["a.png"], "name the folder of the pictures: a.png is not one"),
    ],
)
def test_truth_that_says_nothing_is_one_line(
    text: str, options: list[str], said: str, tmp_path: Path, capsys: Printed
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)

    assert main(["predict", f"--truth={path}", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_by_goes_with_truth(capsys: Printed) -> None:
    for options in ([], ["--truth=labels.csv", "--format=csv"]):
        assert main(["predict", "a.png", "--by=kind", *options]) == 2
        assert "--by needs --truth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("42", "42", 0), ("42", "", 2), ("1234", "234", 1), ("12", "21", 2)],
)
def test_edit_distance(one: str, other: str, distance: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == distance


@pytest.mark.parametrize(
    ("right", "total"), [(0, 4), (10, 18), (49, 57), (36, 36), (9_990, 10_000)]
)
def test_interval_is_wilsons(right: int, total: int) -> None:
    expected = binomtest(right, total).proportion_ci(method="wilson")

    assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high), abs=1e-6)

"""The command: files in, numbers out."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from PIL import Image

from mnist_lit.__main__ import main
from mnist_lit.commands.output import FORMATS, Result
from mnist_lit.reading.result import Reading
from mnist_lit.training.run_folders import Run

Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``42.png``, two digits beside each other, and ``nothing.png``."""
    images, labels = small.digits(True)
    folder = tmp_path_factory.mktemp("pictures")
    beside = [images[labels.tolist().index(digit), 0].numpy() for digit in (4, 2)]
    Image.fromarray(np.concatenate(beside, axis=1)).save(folder / "42.png")
    Image.new("L", (100, 100), 200).save(folder / "nothing.png")
    (folder / "notes.txt").write_text("no picture, and not asked for")
    return folder


def rows_of(printed: Printed) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.readouterr().out.splitlines()]


def test_json_is_an_object_a_line(pictures: Path, capsys: Printed) -> None:
    paths = [str(pictures / name) for name in ("nothing.png", "42.png")]
    assert main(["predict", *paths, "--format=json"]) == 0
    nothing, number = rows_of(capsys)

    assert nothing == {"path": paths[0], "number": "", "digits": []}
    assert (number["path"], number["number"]) == (paths[1], "42")
    left, right = number["digits"]
    assert (left["digit"], right["digit"]) == (4, 2)
    assert left["confidence"] == max(left["probabilities"])
    assert sum(left["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert 0 <= left["box"][0] < left["box"][2] <= 28 <= right["box"][0] < right["box"][2] <= 56


def test_csv_has_a_row_for_each_file(pictures: Path, capsys: Printed) -> None:
    assert main(["predict", str(pictures), "--format=csv"]) == 0
    number, nothing = csv.DictReader(capsys.readouterr().out.splitlines())

    assert number["number"] == "42"
    assert 0 < float(number["confidence"]) <= 1
    assert (nothing["number"], nothing["confidence"], nothing["error"]) == ("", "", "")


def test_table_says_what_was_found(
    pictures: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(pictures)
    assert main(["predict", "42.png", "nothing.png"]) == 0
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]

    assert any(line[:2] == ["42.png", "42"] and line[2].endswith("%") for line in lines if line)
    assert ["nothing.png", "no", "digit", "found"] in lines


def test_unsure_readings_are_marked(
    pictures: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lit.commands.output.UNSURE", 1.01)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["predict", str(pictures / "42.png")]) == 0
    assert "not sure" in capsys.readouterr().out


def test_folders_and_patterns_are_files_in_order(
    pictures: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    for what in (str(pictures), str(pictures / "*.png"), f"{pictures}/**/*.png"):
        assert main(["predict", what, "--format=json"]) == 0
        found = [Path(row["path"]).name for row in rows_of(capsys)]
        assert found == ["42.png", "nothing.png"]


def test_folders_that_a_pattern_matches_are_no_pictures(
    pictures: Path, capsys: Printed, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "42.png").write_bytes((pictures / "42.png").read_bytes())

    assert main(["predict", f"{tmp_path}/**", "--format=json"]) == 0
    assert [row["number"] for row in rows_of(capsys)] == ["42"]


def test_any_name_of_a_file_can_be_printed(pictures: Path, capsys: Printed, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")  # no UTF-8
    Path(path).write_bytes((pictures / "42.png").read_bytes())
    too_long = "a" * 300 + ".png"

    assert main(["predict", path, too_long, "--format=json"]) == 1
    named, unnamed = rows_of(capsys)
    assert (named["path"], named["number"]) == (path, "42")
    assert "too long" in unnamed["error"]


def test_reader_of_the_output_may_leave(pictures: Path) -> None:
    command = [sys.executable, "-m", "mnist_lit", "predict", "--format=csv"]
    command += [str(pictures / "42.png")] * 40
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()

        assert process.stderr.read() == ""
        assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is full")
def test_full_disk_is_said_in_one_line(pictures: Path) -> None:
    picture = str(pictures / "42.png")
    command = [sys.executable, "-m", "mnist_lit", "predict", picture, "--format=json"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)

    assert done.returncode == 2
    assert done.stderr == "mnist-lit: error: the disk is full\n"


def test_unreadable_file_does_not_stop_the_others(
    pictures: Path, capsys: Printed, tmp_path: Path
) -> None:
    paths = [str(pictures / "notes.txt"), str(tmp_path / "missing.png"), str(pictures / "42.png")]
    assert main(["predict", *paths, "--format=json"]) == 1
    text, missing, number = rows_of(capsys)

    assert set(text) == {"path", "error"}
    assert "is not a picture" in text["error"]
    assert "No such file" in missing["error"]
    assert number["number"] == "42"
    for form in ("csv", "table"):
        assert main(["predict", *paths, f"--format={form}"]) == 1
        assert "not a picture" in " ".join(capsys.readouterr().out.split())


def test_json_is_valid_in_any_encoding(pictures: Path, capsys: Printed, tmp_path: Path) -> None:
    path = tmp_path / "zwölf\x7f.png"
    shutil.copy(pictures / "42.png", path)
    assert main(["predict", str(path), "--format=json", "--network=mnist_lit.models.CNN"]) == 0
    printed = capsys.readouterr().out

    assert printed.rstrip("\n").isprintable()
    assert printed.isascii()
    assert json.loads(printed)["path"] == str(path)


def test_folder_without_pictures_does_not_stop_the_others(
    pictures: Path, capsys: Printed, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert main(["predict", str(pictures / "42.png"), str(tmp_path), "--format=json"]) == 1
    number, empty = rows_of(capsys)

    assert number["number"] == "42"
    assert empty["error"] == f"{tmp_path} is a folder without pictures"


def test_file_may_be_called_anything(
    pictures: Path, capsys: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["=1+1.png", "red\x1b[31m\x9b.png"]
    for name in names:
        (tmp_path / name).write_bytes((pictures / "42.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    printed = {}
    for form in ("csv", "table", "json"):
        assert main(["predict", ".", "no\x1b.png", f"--format={form}"]) == 1
        printed[form] = capsys.readouterr().out

    formula, *_ = csv.DictReader(printed["csv"].splitlines())
    assert formula["path"] == "./=1+1.png", "a spreadsheet would run what begins with ="
    assert "\x1b" not in printed["table"], "a terminal would obey"
    assert not {"\x1b", "\x9b"} & set(printed["json"])
    rows = [json.loads(line) for line in printed["json"].splitlines()]
    assert [row["path"] for row in rows[:2]] == names


@pytest.mark.parametrize("form", ["csv", "table", "json"])
def test_what_was_left_out_is_said(form: str, capsys: Printed) -> None:
    assert FORMATS[form]([Result("page.png", Reading.of([], "too small"))], "number") == 0
    assert "too small" in " ".join(capsys.readouterr().out.split())


def test_every_page_has_its_line(pictures: Path, capsys: Printed, tmp_path: Path) -> None:
    with Image.open(pictures / "42.png") as number, Image.open(pictures / "nothing.png") as nothing:
        number.save(tmp_path / "a.tif", save_all=True, append_images=[nothing, number])
        number.save(tmp_path / "b.png")
    assert main(["predict", str(tmp_path), "--format=json", f"--save_seen={tmp_path}/seen"]) == 0
    rows = rows_of(capsys)
    assert main(["predict", str(tmp_path), "--format=csv"]) == 0
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert main(["predict", str(tmp_path / "a.tif")]) == 0
    printed = "".join(capsys.readouterr().out.split())

    assert [row.get("page") for row in rows] == [1, 2, 3, None]
    assert [row["number"] for row in rows] == ["42", "", "42", "42"]
    assert [Path(row["path"]).name for row in rows] == ["a.tif", "a.tif", "a.tif", "b.png"]
    assert [(row["page"], row["number"]) for row in table] == [
        ("1", "42"), ("2", ""), ("3", "42"), ("", "42")
    ]  # fmt: skip
    assert "page3" in printed
    assert len(list((tmp_path / "seen").iterdir())) == 6


def test_folder_says_what_it_skipped(pictures: Path, capsys: Printed, tmp_path: Path) -> None:
    (tmp_path / "42.png").write_bytes((pictures / "42.png").read_bytes())
    (tmp_path / ".hidden.png").write_text("no picture")
    (tmp_path / "inner").mkdir()
    for name in ("notes.txt", "x\x1b.doc"):
        (tmp_path / name).write_text("no picture")
    assert main(["predict", str(tmp_path), "--format=json"]) == 0
    captured = capsys.readouterr()

    assert len(captured.out.splitlines()) == 1
    assert captured.err == (f"{tmp_path}: skipped, not pictures: inner/, notes.txt, x\\x1b.doc\n")


def test_heic_and_pdf_in_a_folder_are_read(pictures: Path, capsys: Printed, tmp_path: Path) -> None:
    with Image.open(pictures / "42.png") as number:
        number.resize((560, 280)).save(tmp_path / "a.heic", "HEIF")
        number.save(tmp_path / "b.pdf")
    assert main(["predict", str(tmp_path), "--format=json"]) == 0

    assert [row["number"] for row in rows_of(capsys)] == ["42", "42"]


def test_narrow_terminal_shows_all_digits(
    pictures: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    with Image.open(pictures / "42.png") as number:
        twice = Image.fromarray(np.concatenate([np.asarray(number)] * 4, axis=1))
    path = tmp_path / f"{'long_name_' * 8}.png"
    twice.save(path)
    assert main(["predict", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split("│") for line in lines if line.startswith("│")]

    assert "".join(row[2].strip() for row in cells) == "42424242"
    assert "".join(row[3].strip() for row in cells).rstrip("notsure").endswith("%")
    assert "".join(row[1].strip() for row in cells) == str(path)


def test_many_files_come_in_their_order(pictures: Path, capsys: Printed, tmp_path: Path) -> None:
    names = [f"{number:03}.png" for number in range(100)]
    for number, name in enumerate(names):
        source = pictures / ("42.png" if number % 3 else "nothing.png")
        (tmp_path / name).write_bytes(source.read_bytes())
    assert main(["predict", str(tmp_path), "--format=json"]) == 0
    rows = rows_of(capsys)

    assert [Path(row["path"]).name for row in rows] == names
    assert [row["number"] for row in rows] == ["42" if n % 3 else "" for n in range(100)]


def test_save_seen_writes_what_the_network_saw(
    pictures: Path, capsys: Printed, tmp_path: Path
) -> None:
    seen = tmp_path / "new" / "seen"
    assert main(["predict", str(pictures), "--format=json", f"--save_seen={seen}"]) == 0

    assert sorted(file.name for file in seen.iterdir()) == ["0001_42_1_4.png", "0001_42_2_2.png"]
    with Image.open(seen / "0001_42_1_4.png") as image, Image.open(pictures / "42.png") as whole:
        written = np.asarray(image).astype(int)
        assert np.abs(written - np.asarray(whole)[:, :28]).mean() < 3


def test_another_checkpoint_is_used(pictures: Path, capsys: Printed, brief_run: Run) -> None:
    arguments = ["predict", str(pictures / "42.png"), "--format=json"]
    assert main(arguments) == 0
    packaged = rows_of(capsys)
    assert main([*arguments, f"--ckpt_path={brief_run.best}"]) == 0
    other = rows_of(capsys)

    assert packaged[0]["digits"][0]["box"] == other[0]["digits"][0]["box"]
    assert packaged[0]["digits"][0]["probabilities"] != other[0]["digits"][0]["probabilities"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.png", "--ckpt_path=missing.ckpt"], "missing.ckpt cannot be read: No such file"),
        (["42.png", "--save_seen=42.png"], "choose another --save_seen"),
    ],
)
def test_what_the_user_can_mend_is_said_in_one_line(
    arguments: list[str],
    said: str,
    pictures: Path,
    tmp_path: Path,
    capsys: Printed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "42.png").write_bytes((pictures / "42.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["predict", *arguments]) == 2
    error = capsys.readouterr().err

    assert said in error
    assert error.count("\n") == 1


def test_predict_loads_neither_lightning_nor_matplotlib(pictures: Path) -> None:
    code = "import sys; from mnist_lit.__main__ import main; main(sys.argv[1:]);"
    code += "print({name.split('.')[0] for name in sys.modules} & {'pytorch_lightning',"
    code += " 'torchvision', 'matplotlib', 'torchmetrics', 'scipy'})"
    command = [sys.executable, "-c", code, "predict", str(pictures / "42.png")]
    finished = subprocess.run(command, capture_output=True, text=True)

    assert finished.stdout.splitlines()[-1] == "set()", finished.stderr

"""The rows of metrics.csv that a resumed run keeps."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_lit.training.csv_logger import ContinuingCSVLogger, rows_before
from mnist_lit.training.run_folders import Run

WHOLE = "loss,step\n2.5,9\n,9\n1.5,19\n0.5,29\n"


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (9, 0), (10, 2), (20, 3), (30, 4)])
def test_rows_before_a_step_are_kept(step: int, kept: int, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(WHOLE, encoding="utf-8")
    assert len(rows_before(tmp_path / "metrics.csv", step)) == kept


@pytest.mark.parametrize(
    ("spoil", "kept"),
    [
        (lambda content: content[:-4], 3),
        (lambda content: content[:-1], 3),
        (lambda content: content[:5], 0),
        (lambda content: b"", 0),
        (lambda content: b"\xff\x00" * 50, 0),
        (lambda content: content[:16] + bytes(len(content) - 16), 1),
        (lambda content: content.replace(b"1.5,19", b"1.5,nineteen"), 2),
        (lambda content: content.replace(b"1.5,19", b"1.5,19,7"), 2),
    ],
    ids=["half", "line cut", "header cut", "empty", "binary", "zeros", "text", "too many"],
)
def test_rows_end_at_the_first_that_a_power_cut_took(
    spoil: Callable[[bytes], bytes], kept: int, tmp_path: Path
) -> None:
    (tmp_path / "metrics.csv").write_bytes(spoil(WHOLE.encode()))
    assert len(rows_before(tmp_path / "metrics.csv", 30)) == kept


def test_file_is_changed_with_the_first_new_row(tmp_path: Path) -> None:
    run = Run(tmp_path / "lightning_logs" / "version_0")
    run.folder.mkdir(parents=True)
    run.metrics.write_text(WHOLE, encoding="utf-8")
    logger = ContinuingCSVLogger(run, purge_step=20)
    logger.save()
    assert run.metrics.read_text(encoding="utf-8") == WHOLE

    logger.log_metrics({"loss": 0.25}, 29)
    logger.save()
    assert [row["loss"] for row in rows_before(run.metrics, 99)] == ["2.5", "", "1.5", "0.25"]
    logger.log_metrics({"acc": 0.5}, 39)
    logger.save()
    assert [row["acc"] for row in rows_before(run.metrics, 99)] == ["", "", "", "", "0.5"]

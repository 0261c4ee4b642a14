"""Run folders: taken whole, and found by what is in them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mnist_lit.errors import UserError
from mnist_lit.training import run_folders
from mnist_lit.training.run_folders import Run, claim


def test_every_claim_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda number: claim(tmp_path, str(number)), range(40)))

    assert sorted(run.version for run in claimed) == list(range(40))
    assert [run.config.read_text() for run in claimed] == list(map(str, range(40)))
    assert len(list(run_folders.runs_folder(tmp_path).iterdir())) == 40, "leftovers"


def test_folder_with_nothing_in_it_is_no_run(tmp_path: Path) -> None:
    run = claim(tmp_path, "a config")
    folder = run_folders.runs_folder(tmp_path)
    for name in ("version_7", "version_²", "version_x"):
        (folder / name).mkdir()

    assert run_folders.newest(tmp_path) == run
    assert claim(tmp_path, "").version == 8, "a folder that is there is taken, though"


def test_runs_of_a_detector_are_not_those_of_fit(tmp_path: Path) -> None:
    found = claim(tmp_path, "a config", run_folders.DETECTOR_RUN)

    assert found.folder.name == "detector_0"
    assert run_folders.newest(tmp_path, run_folders.DETECTOR_RUN) == found
    assert run_folders.unfinished("auto", tmp_path, run_folders.DETECTOR_RUN) == "last"
    assert run_folders.unfinished("auto", tmp_path) is None, "fit begins a new one"
    with pytest.raises(UserError, match="no run in"):
        run_folders.newest(tmp_path)


def test_without_a_run_there_is_no_newest(tmp_path: Path) -> None:
    (run_folders.runs_folder(tmp_path) / "version_0").mkdir(parents=True)

    with pytest.raises(UserError, match="no run in"):
        run_folders.newest(tmp_path)


def test_run_whose_results_were_not_drawn_is_unfinished(tmp_path: Path) -> None:
    run = claim(tmp_path, "a config")
    run.results.write_text("{}", encoding="utf-8")
    assert run.is_finished
    assert run_folders.find_resume_point("auto", tmp_path) == run_folders.ResumePoint(), (
        "fit begins a new one"
    )

    run.pending.touch()
    assert not run.is_finished
    assert run.has_results
    assert run_folders.unfinished("auto", tmp_path) == "last"


@pytest.mark.parametrize(("content", "is_complete"), [("", False), ("{", False), ("{}", True)])
def test_results_that_were_cut_off_are_none(
    content: str, is_complete: bool, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    run.results.write_text(content)

    assert run.has_results == is_complete

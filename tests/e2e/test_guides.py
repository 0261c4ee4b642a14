"""The guides' code runs as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BRIEFLY, Fit

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
COOKBOOK = (ROOT / "configs" / "README.md").read_text(encoding="utf-8").split("## Cookbook\n")[1]
GUIDES = [
    ROOT / "README.md",
    *(
        path
        for folder in ("configs", "mnist_lit", "tests")
        for path in ROOT.glob(f"{folder}/**/*.md")
    ),
]
BRIEF = (*BRIEFLY[:-1], "--trainer.limit_train_batches=12", "--trainer.limit_val_batches=2")


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a guide in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_python(text: str, folder: Path) -> str:
    """Run all Python blocks of a guide, in one process; return what it prints."""
    code = "\n".join(blocks(text, "python"))
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("command", blocks(COOKBOOK, "sh"))
def test_cookbook_command_trains(
    command: str, fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [code for code in blocks(COOKBOOK, "python") if "Trainer(" not in code]
    (tmp_path / "mine.py").write_text("\n".join(modules))
    monkeypatch.syspath_prepend(tmp_path)
    program, name, *options = shlex.split(command)
    assert (program, name) == ("mnist-lit", "fit")
    assert fit(*options, *BRIEF).best.exists()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("config", blocks(COOKBOOK, "yaml"), ids=["whole", "schedule"])
def test_cookbook_config_trains(config: str, fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(config)
    assert fit(f"--config={tmp_path / 'mine.yaml'}", *BRIEF).best.exists()


def test_cookbook_python_trains(tmp_path: Path) -> None:
    output = run_python(COOKBOOK, tmp_path)
    (accuracy,) = re.findall(r"test/acc +│ +(0\.\d+)", output)
    assert float(accuracy) > 0.95
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"confusion.png", "mistakes.png", "filters.png"}


def test_tour_shows_what_it_says(tmp_path: Path) -> None:
    output = run_python((ROOT / "mnist_lit" / "TOUR.md").read_text(encoding="utf-8"), tmp_path)
    (plain,) = re.findall(r"plain +\[(.*), (.*)\]", output)
    (careful,) = re.findall(r"careful +\[(.*), (.*)\]", output)
    assert float(plain[0]) > 0.99, "by heart"
    assert float(careful[1]) > float(plain[1]), "of new digits more"
    assert {path.name for path in tmp_path.iterdir()} == {"overfitting.png", "convolution.png"}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.parent.name)
def test_links_of_a_guide_lead_somewhere(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        path = (guide.parent / target) if target else guide
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {title.lower().replace(" ", "-") for title in titles}

"""The code is formatted, linted and typed; the lower bounds of its packages are versions tried."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "tool", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join
)
def test_code_is_clean(tool: list[str]) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_lower_bounds_are_the_oldest_versions_that_were_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [line for name, extra in extras.items() if name != "dev" for line in extra]
    bounds = _versions([*project["dependencies"], *lines], ">=")
    text = (ROOT / "tests" / "oldest.txt").read_text(encoding="utf-8")
    tried = _versions([line for line in text.splitlines() if "==" in line], "==")

    assert {name: tried.get(name) for name in bounds} == bounds


def _versions(lines: list[str], operator: str) -> dict[str, Version]:
    return {
        package.name: Version(specifier.version)
        for package in map(Requirement, lines)
        for specifier in package.specifier
        if specifier.operator == operator
    }

"""The code is formatted, linted and typed."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "tool", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join
)
def test_code_is_clean(tool: list[str]) -> None:
    root = Path(__file__).parents[1]
    checked = subprocess.run(
        [sys.executable, "-m", *tool], cwd=root, capture_output=True, text=True
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr

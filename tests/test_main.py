"""The command table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_lit.__main__ import COMMANDS, main


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()

    for name, command in COMMANDS.items():
        assert any(line.split() == [name, *command.help.split()] for line in lines)


def test_misspelt_command_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == 2
    assert capsys.readouterr().err == "mnist-lit: error: no command 'fitt': did you mean fit?\n"


def test_help_loads_no_torch() -> None:
    code = "import sys; from mnist_lit.__main__ import main; main(['--help']);"
    code += "print({'torch', 'pytorch_lightning'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert finished.stdout.splitlines()[-1] == "set()", finished.stderr


def test_backend_of_a_notebook_need_not_be_installed() -> None:
    code = "from mnist_lit.__main__ import main; main();"
    code += "from matplotlib import pyplot; pyplot.figure()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        env={**os.environ, "MPLBACKEND": "module://backend.of_a_notebook"},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="has another shell")
def test_output_may_be_closed() -> None:
    command = f"exec {sys.executable} -m mnist_lit --version >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is full")
@pytest.mark.parametrize("command", [[], ["predict"]], ids=["", "predict"])
def test_help_that_cannot_be_written_is_said(command: list[str]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mnist_lit", *command, "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert (done.returncode, done.stderr) == (2, "mnist-lit: error: the disk is full\n")

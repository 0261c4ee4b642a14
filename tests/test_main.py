"""The command table."""

import subprocess
import sys

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

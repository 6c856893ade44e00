from __future__ import annotations

import shutil
import subprocess

import pytest

from scheduler.cli import exits
from tests.cli.conftest import Dts

COMPLETE = """
source /dev/stdin <<<"$1"
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dts; printf '%s\\n' "${COMPREPLY[@]}"; }
complete_words dts sub
complete_words dts dlq re
complete_words dts submit --tim
"""


def test_bash_completes_commands_and_flags(dts: Dts) -> None:
    script = dts("completion", "bash").out
    done = subprocess.run(["bash", "-c", COMPLETE, "bash", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["submit", "replay", "--timeout", "--timezone"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_is_written_for_other_shells(dts: Dts, shell: str) -> None:
    done = dts("completion", shell)
    assert done.code == exits.OK
    assert "on-interrupt" in done.out
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=done.out, text=True, check=True)


def test_an_unknown_shell_is_told_the_known_ones(dts: Dts) -> None:
    done = dts("completion", "tcsh")
    assert done.code == exits.USAGE
    assert "fish" in done.err


def test_the_manual_page_has_every_command_and_is_valid_troff(dts: Dts) -> None:
    page = dts("man").out
    for command in ("up", "worker drain", "submit", "task edit", "dlq replay", "context add", "completion", "doctor"):
        assert f"\n.SS dts {command}\n" in page
    assert page.count(r"\fB\-\-server STR\fR") == 1
    assert "**" not in page
    if shutil.which("groff"):
        command = ["groff", "-man", "-ww", "-Tutf8", "-z", "-k"]
        done = subprocess.run(command, input=page, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

"""The examples of the guides, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Dts
from tests.cli.test_terminal import CHECKOUT

WRITTEN = "http://127.0.0.1:8080"


def examples(guide: str, language: str) -> list[str]:
    text = (CHECKOUT / "docs" / guide).read_text()
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


@pytest.mark.parametrize("number", range(len(examples("client.md", "python"))))
def test_an_example_of_the_clients_guide_works(number: int, server: str, tmp_path: Path) -> None:
    code = examples("client.md", "python")[number].replace(WRITTEN, server)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, timeout=60, check=True)


def test_the_examples_of_the_command_lines_guide_work(server: str, tmp_path: Path) -> None:
    lines = [line.removeprefix("$ ") for block in examples("cli.md", "console") for line in block.splitlines()]
    assert len(lines) > 20
    script = "\n".join(["set -e", f'dts() {{ {sys.executable} -m scheduler "$@"; }}', *lines])
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(CHECKOUT),
        "DTS_SERVER": server,
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    command = ["bash", "-xc", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_command_that_the_guide_names_exists(dts: Dts) -> None:
    text = (CHECKOUT / "docs" / "cli.md").read_text()
    page = dts("man").out.replace("\\-", "-")
    for command in set(re.findall(r"`?dts ([a-z]+)", text)):
        assert f".SS dts {command}\n" in page

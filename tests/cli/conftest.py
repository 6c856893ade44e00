from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from scheduler.cli import run
from tests.support.running import running_system


class Done(msgspec.Struct):
    """What a command has said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def items(self) -> list[Any]:
        """What it said to a program."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]

    @property
    def item(self) -> Any:
        (only,) = self.items
        return only


Dts = Callable[..., Done]


@pytest.fixture(scope="package")
def server() -> Iterator[str]:
    """A running system that the tests of this package share; each uses names of its own."""
    with running_system() as up:
        yield up.url


@pytest.fixture
def dts(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dts:
    """Run `dts` in this process, as if in a pipe. It reaches no server."""
    monkeypatch.setenv("DTS_SERVER", "http://127.0.0.1:1")

    def call(*words: object) -> Done:
        capfd.readouterr()
        try:
            code = run([str(word) for word in words])
        except SystemExit as end:
            code = int(str(end.code))
        said = capfd.readouterr()
        return Done(code, said.out, said.err)

    return call


@pytest.fixture
def remote(dts: Dts, server: str, monkeypatch: pytest.MonkeyPatch) -> Dts:
    """Run `dts` against the shared system."""
    monkeypatch.setenv("DTS_SERVER", server)
    return dts

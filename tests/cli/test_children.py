"""The roles of `dts up` as children: what is started again, and what is watched, when the machine has nothing left."""

from __future__ import annotations

import errno
import os
import subprocess

import anyio
import pytest

from scheduler.cli.children import Children
from scheduler.cli.launch import Launched
from tests.support import until

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux has descriptors of processes")


def launch(*words: str) -> Launched:
    popen = subprocess.Popen(words, start_new_session=True)
    return Launched(popen.pid, popen)


def unexpected(name: str, code: int) -> None:
    raise AssertionError(f"{name} ended everything with {code}")


async def test_a_role_that_cannot_be_started_again_for_now_is_tried_again() -> None:
    tries: list[str] = []

    def respawn(name: str) -> Launched:
        tries.append(name)
        if len(tries) == 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return launch("sleep", "60")

    children = Children(respawn, unexpected)
    children.add("api", launch("true"))
    async with anyio.create_task_group() as group:
        group.start_soon(children.keep, "api", ())
        await until(lambda: len(tries) == 2)
        await children.stop(["api"], 30)
    assert tries == ["api", "api"]


async def test_a_role_is_watched_as_soon_as_there_is_a_descriptor_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    pidfd_open = os.pidfd_open

    def opened(pid: int, flags: int = 0) -> int:
        tries.append(pid)
        if len(tries) == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return pidfd_open(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", opened)
    children = Children(lambda _: launch("sleep", "60"), unexpected)
    children.add("api", launch("sleep", "60"))
    async with anyio.create_task_group() as group:
        group.start_soon(children.keep, "api", ())
        await until(lambda: len(tries) == 2)
        await children.stop(["api"], 30)

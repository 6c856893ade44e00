from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from bench.peers.attempts import attempt
from bench.peers.catalog import PEERS, Peer
from bench.peers.environments import APPS, HERE, version_of
from bench.peers.orchestrators import ORCHESTRATORS
from bench.peers.running import Done, PeerFailed, halted
from bench.question import Bench
from bench.questions.peers_bulk import PeersBulk
from tests.support.waiting import until


@pytest.mark.parametrize("peer", [*PEERS, *ORCHESTRATORS], ids=lambda peer: peer.name)
def test_a_peer_is_pinned_and_says_how_it_runs_and_what_it_loses(peer: Peer) -> None:
    assert version_of(peer)[0].isdigit()
    assert peer.settings
    assert peer.durable
    assert peer.loses


@pytest.mark.parametrize("lock", sorted((HERE / "locks").glob("*.txt")), ids=lambda lock: lock.stem)
def test_a_lock_pins_every_package_and_names_no_place_to_get_them_from(lock: Path) -> None:
    text = lock.read_text()
    packages = [line for line in text.splitlines() if not line.startswith(" ")]
    assert packages
    assert all("==" in line and line.endswith("\\") for line in packages)
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text
    assert lock.stem in {peer.lock for peer in [*PEERS, *ORCHESTRATORS]}


def test_an_application_imports_nothing_of_this_project() -> None:
    for path in APPS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] in {"bench", "scheduler"}]


@pytest.mark.parametrize("kind", [["many", "3"], ["rate", "3", "1000"]], ids=lambda kind: kind[0])
def test_pieces_are_numbered_from_the_one_that_is_asked_for(kind: list[str], tmp_path: Path) -> None:
    application = tmp_path / "some_app.py"
    application.write_text(
        "import sys, work\n"
        "def send(index): print(index, file=sys.stderr)\n"
        "def send_many(indices): [send(index) for index in indices]\n"
        "work.main(send, send_many)\n"
    )
    done = subprocess.run(
        [sys.executable, application, *kind],
        env={**os.environ, "PYTHONPATH": str(APPS), "BENCH_FIRST": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.split() == ["100", "101", "102"]


def test_what_was_done_before_a_skip_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "done"
    path.write_text("0 1.5\n")
    done = Done(path)
    assert done.lines() == [(0, 1.5)]
    done.skip()
    with path.open("a") as file:
        file.write("1 2.5\n0 3\n")
    assert done.lines() == [(1, 2.5), (0, 3.0)]


def test_a_line_counts_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "done"
    path.write_text("0 1.5\n1 2")
    done = Done(path)
    assert done.count() == 1
    with path.open("a") as file:
        file.write(".5\n0 3.5\n")
    assert done.count() == 2
    assert done.lines() == [(0, 1.5), (1, 2.5), (0, 3.5)]


async def test_what_keeps_a_peer_from_a_figure_is_said_and_keeps_nobody_else_from_one(tmp_path: Path) -> None:
    question = PeersBulk(Bench(tmp_path, quick=True))

    async def hangs(_: Peer) -> float:
        await anyio.sleep_forever()
        raise AssertionError

    async def fails(_: Peer) -> float:
        raise ExceptionGroup("several", [PeerFailed("it went away")])

    async def works(_: Peer) -> float:
        return 1.0

    assert await attempt(question, PEERS[0], hangs, patience=0.01) is None
    assert await attempt(question, PEERS[1], fails, patience=1) is None
    assert await attempt(question, PEERS[2], works, patience=1) == 1.0
    first, second = question.notes
    assert "given up" in first
    assert PEERS[0].name in first
    assert "it went away" in second
    assert PEERS[1].name in second


async def test_killing_a_peer_leaves_nothing_of_it_whatever_it_has_done_to_be_independent(tmp_path: Path) -> None:
    mark, other = str(tmp_path / "done"), {name: value for name, value in os.environ.items() if name != "BENCH_DONE"}
    script = "setsid sleep 60 & BENCH_DONE=hidden sleep 60 & BENCH_DONE=hidden setsid sleep 60 & sleep 60; true"
    async with await anyio.open_process(
        ["/bin/sh", "-c", script], env={**other, "BENCH_DONE": mark}, start_new_session=True
    ) as head:
        family = await until(lambda: len(found := psutil.Process(head.pid).children()) == 4 and found)
        for process in halted(mark, {head.pid}):
            process.kill()
        await head.wait()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert len(gone) == 4

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench.peers.catalog import PEERS, Peer
from bench.peers.environments import APPS, HERE, version_of
from bench.peers.running import Done


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_is_pinned_and_says_how_it_runs_and_what_it_loses(peer: Peer) -> None:
    assert version_of(peer)[0].isdigit()
    assert peer.settings
    assert peer.durable
    assert peer.loses


@pytest.mark.parametrize("lock", sorted((HERE / "locks").glob("*.txt")), ids=lambda lock: lock.stem)
def test_a_lock_pins_every_package_and_names_no_place_to_get_them_from(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    assert lines
    assert all("==" in line and "://" not in line for line in lines)
    assert lock.stem in {peer.lock for peer in PEERS}


def test_an_application_imports_nothing_of_this_project() -> None:
    for path in APPS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] in {"bench", "scheduler"}]


def test_what_was_done_before_a_skip_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "done"
    path.write_text("0 1.5\n")
    done = Done(path)
    assert done.lines() == [(0, 1.5)]
    done.skip()
    with path.open("a") as file:
        file.write("1 2.5\n0 3\n")
    assert done.lines() == [(1, 2.5), (0, 3.0)]

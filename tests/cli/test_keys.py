"""Keys and namespaces from the command line, and the first key of all."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import pytest

from scheduler.cli import exits
from scheduler.domain import keys
from scheduler.store.database import Database
from tests.cli.conftest import Dts
from tests.roles.api.access_support import Closed, closed_api
from tests.roles.api.support import Client


def test_a_key_is_made_used_listed_and_revoked(remote: Dts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = remote(
        "key", "create", "--name", "ci", "--role", "viewer", "--permission", "metrics:read", "--expires-in", "1h"
    )
    assert made.code == exits.OK, made.err
    key = made.item
    assert keys.parse(key["key"]) is not None
    file = tmp_path / "key"
    file.write_text(key["key"])
    assert remote("task", "list", "--api-key-file", file).code == exits.OK
    refused = remote("submit", "--api-key-file", file, "--", "true")
    assert refused.code == exits.FAILURE
    assert "command:define" in refused.err
    monkeypatch.setenv("DTS_API_KEY_FILE", str(file))
    assert remote("task", "list").code == exits.OK
    assert remote("key", "list").code == exits.FAILURE
    monkeypatch.delenv("DTS_API_KEY_FILE")
    assert key["id"] in [listed["id"] for listed in remote("key", "list").items]
    assert remote("key", "revoke", key["id"]).item == {"id": key["id"], "revoked": True}
    assert remote("task", "list", "--api-key-file", file).code == exits.FAILURE


def test_a_key_goes_into_a_private_file_that_is_never_overwritten(remote: Dts, tmp_path: Path) -> None:
    out = tmp_path / "deploy.key"
    made = remote("key", "create", "--name", "deploy", "--role", "editor", "--out", out)
    assert made.code == exits.OK, made.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    text = out.read_text()
    assert text.strip() not in made.out
    again = remote("key", "create", "--name", "deploy again", "--role", "editor", "--out", out)
    assert again.code == exits.FAILURE
    assert f"{out}: File exists" in again.err
    assert out.read_text() == text
    assert "deploy again" not in [key["name"] for key in remote("key", "list").items]


def test_a_key_that_is_refused_leaves_no_file(remote: Dts, tmp_path: Path) -> None:
    words = ("key", "create", "--name", "only one", "--role", "viewer")
    assert remote(*words).code == exits.OK
    assert remote(*words, "--out", tmp_path / "key").code == exits.FAILURE
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_permission_is_said_before_anything_is_asked(dts: Dts) -> None:
    done = dts("key", "create", "--name", "x", "--permission", "all:things")
    assert done.code == exits.USAGE
    assert "command:define" in done.err


def test_namespaces_are_made_bounded_and_deleted(remote: Dts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remote("namespace", "create", "team-x", "--max-pending", 9).item["max_pending"] == 9
    assert remote("namespace", "limit", "team-x", "--max-tasks", 3).item["max_pending"] is None
    assert "team-x" in [n["name"] for n in remote("namespace", "list").items]
    monkeypatch.setenv("DTS_NAMESPACE", "team-x")
    assert remote("submit", "--queue", "nobody", "--", "true").item["namespace"] == "team-x"
    assert remote("namespace", "delete", "team-x").code == exits.FAILURE
    for run in remote("run", "list").items:
        remote("run", "cancel", run["id"])
    assert remote("namespace", "delete", "team-x").item["result"] == "deleted"


@pytest.fixture
async def closed(database: Database, redis_url: str) -> AsyncIterator[Closed]:
    async with closed_api(database, redis_url) as running:
        yield running


async def test_the_first_key_is_made_in_the_database_and_is_an_admins(
    dts: Dts, database_url: str, closed: Closed, tmp_path: Path
) -> None:
    out = tmp_path / "first.key"

    def bootstrap() -> int:
        return dts("key", "create", "--bootstrap", "--name", "first", "--database-url", database_url, "--out", out).code

    assert await anyio.to_thread.run_sync(bootstrap) == exits.OK
    api: Client = closed.api
    header = {"authorization": f"Bearer {out.read_text().strip()}"}
    (key,) = (await api.get("/api/keys", headers=header)).json["items"]
    assert (key["role"], key["namespaces"], key["created_by"]) == ("admin", ["*"], "bootstrap")
    assert await anyio.to_thread.run_sync(bootstrap) == exits.FAILURE


async def test_no_first_key_is_made_where_its_file_cannot_be(
    dts: Dts, database: Database, database_url: str, tmp_path: Path
) -> None:
    def bootstrap(name: str, file: str) -> int:
        words = ("--bootstrap", "--name", name, "--database-url", database_url, "--out", tmp_path / file)
        return dts("key", "create", *words).code

    async def names() -> list[str]:
        async with database.session() as connection:
            return [row["name"] for row in await connection.fetch("SELECT name FROM api_keys")]

    def files() -> set[str]:
        return {file.name for file in tmp_path.iterdir()}

    (tmp_path / "there").touch()
    assert await anyio.to_thread.run_sync(bootstrap, "first", "there") == exits.FAILURE
    assert await anyio.to_thread.run_sync(bootstrap, "first", "no/such/directory") == exits.FAILURE
    assert await names() == []
    assert await anyio.to_thread.run_sync(bootstrap, "first", "key") == exits.OK
    assert await anyio.to_thread.run_sync(bootstrap, "first", "again") == exits.FAILURE
    assert await names() == ["first"]
    assert files() == {"there", "key"}


def test_what_each_role_holds_is_listed_without_a_server(dts: Dts) -> None:
    held = {row["permission"]: row for row in dts("key", "roles").items}
    assert (held["event:publish"]["viewer"], held["event:publish"]["operator"]) == (False, True)
    assert all(row["admin"] for row in held.values())

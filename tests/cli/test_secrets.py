"""Secrets from the command line: values go in by a file or a pipe, and reach commands only."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path

import anyio.to_thread
import pytest

from scheduler.cli import exits
from scheduler.store.database import Database
from scheduler.store.envelope import MasterKeys
from scheduler.store.secrets import Secrets
from tests.cli.conftest import Done, Dts


def test_a_secret_reaches_the_command_and_nobody_else(
    remote: Dts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "value"
    file.write_text("correct horse\n")
    stored = remote("secret", "set", "cli-password", "--file", file)
    assert (stored.code, stored.item["version"]) == (exits.OK, 1)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"battery staple\n")))
    assert remote("secret", "set", "cli-password").item["version"] == 2
    listed = remote("secret", "list")
    assert "cli-password" in [secret["name"] for secret in listed.items]
    task = tmp_path / "task.json"
    task.write_text(
        '{"name": "uses", "command": "test \\"$P\\" = \\"battery staple\\" && echo $P",'
        ' "env": {"P": {"secret": "cli-password"}}}'
    )
    run = remote("submit", "--file", task).item["run_id"]
    done = remote("logs", "-f", run)
    assert "***" in done.out, done.err
    assert remote("run", "show", run).item["state"] == "completed"
    for said in (stored, listed, done, remote("audit", "list", "--concerning", "cli-password")):
        assert "battery" not in said.out + said.err
        assert "correct horse" not in said.out + said.err
    assert remote("secret", "delete", "cli-password").item == {"name": "cli-password", "deleted": True}
    assert remote("secret", "delete", "cli-password").code == exits.FAILURE


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"], ids=["none", "LF", "CR LF"])
@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_a_value_keeps_its_bytes_but_for_one_newline_at_the_end(
    remote: Dts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: bool, end: bytes
) -> None:
    file = tmp_path / "value"
    file.write_bytes(b"a\r\nb\rc" + end)
    if piped:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert remote("secret", "set", "cli-lines", *(() if piped else ("--file", file))).code == exits.OK
    task = tmp_path / "task.json"
    command = """test "$P" = "$(printf 'a\\r\\nb\\rc')\""""
    task.write_text(json.dumps({"name": "compares", "command": command, "env": {"P": {"secret": "cli-lines"}}}))
    run = remote("submit", "--file", task).item["run_id"]
    assert remote("run", "wait", run, "--timeout", 20).item["state"] == "completed"


@pytest.mark.parametrize("data", [None, b"caf\xe9"], ids=["no file", "not UTF-8"])
def test_a_value_that_cannot_be_read_is_said_to_be(dts: Dts, tmp_path: Path, data: bytes | None) -> None:
    file = tmp_path / "value"
    if data is not None:
        file.write_bytes(data)
    refused = dts("secret", "set", "x", "--file", file)
    assert refused.code == exits.USAGE
    assert "cannot be read" in refused.err


@pytest.mark.anyio
async def test_a_new_master_key_wraps_what_the_old_one_did(
    dts: Dts, database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    async with database.transaction() as executor:
        assert await Secrets(database).put(executor, MasterKeys(old), "default", "s", "the value", "test")

    def rotate() -> Done:
        return dts("secret", "rotate-key", "--json", "--database-url", database_url)

    assert (await anyio.to_thread.run_sync(rotate)).code == exits.CONFIG
    file = tmp_path / "master.key"
    file.write_text(f"{new}\n{old}\n")
    file.chmod(0o600)
    monkeypatch.setenv("DTS_SECRETS__MASTER_KEY_FILE", str(file))
    done = await anyio.to_thread.run_sync(rotate)
    assert done.item == {"key_id": MasterKeys(new).current, "rewrapped": 1}
    again = await anyio.to_thread.run_sync(rotate)
    assert again.item["rewrapped"] == 0
    page = await Secrets(database).page("default", None, 10)
    assert [secret.key_id for secret in page.items] == [MasterKeys(new).current]

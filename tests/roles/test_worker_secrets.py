"""Secrets in the worker: a command gets them, and what it says does not tell them."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import anyio
import pytest

from scheduler.broker import Broker
from scheduler.domain.task import SecretRef
from scheduler.store.database import Database
from scheduler.store.envelope import MasterKeys
from scheduler.store.secrets import Secrets
from scheduler.worker.results import InvalidOutputs, parse_outputs
from tests.roles.worker_role_support import worker

KEYS = MasterKeys(base64.b64encode(os.urandom(32)).decode())
VALUE = "correct horse battery staple"
ENV = {"PASSWORD": SecretRef(secret="password")}


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """A file that commands may write to, whoever they run as."""
    for path in (tmp_path, *tmp_path.parents):
        if path == Path("/tmp"):
            break
        path.chmod(0o777)
    file = tmp_path / "seen"
    file.touch()
    file.chmod(0o666)
    return file


@pytest.fixture
async def secret(database: Database) -> None:
    await Secrets(database).put(database, KEYS, "default", "password", VALUE, "test")


@pytest.mark.usefixtures("secret")
async def test_a_command_gets_a_secret_and_its_output_does_not_tell(
    database: Database, broker: Broker, seen: Path
) -> None:
    command = f"""
        printf %s "$PASSWORD" > {seen}
        echo "it is $PASSWORD"; echo "$PASSWORD" >&2
        printf 'correct horse '; sleep 0.3; printf 'battery '; sleep 0.3; echo staple
        echo "got=$PASSWORD" > $DTS_OUTPUT_FILE
        printf 'correct'
    """
    async with worker(database, broker, master_keys=KEYS) as works:
        run_id = await works.submit(command, env=ENV)
        row = await works.ended_row(run_id)
        output = await works.output(run_id)
        tables = await works.query("SELECT coalesce(outputs::text, '') || coalesce(output_tail, '') AS text FROM runs")
    assert row["state"] == "completed", row["output_tail"]
    assert await anyio.Path(seen).read_text() == VALUE
    assert VALUE.encode() not in output
    assert output.count(b"***") == 3
    assert output.endswith(b"correct")
    assert all(VALUE not in found["text"] for found in tables)
    assert row["outputs"] == b'{"got": "***"}'


@pytest.mark.parametrize(
    ("name", "keys", "says"),
    [
        ("password", None, b"no key for secrets"),
        ("gone", KEYS, b"there is no secret 'gone'"),
        ("password", MasterKeys(base64.b64encode(bytes(32)).decode()), b"the master key"),
    ],
)
@pytest.mark.usefixtures("secret")
async def test_a_command_without_its_secret_is_not_started(
    database: Database, broker: Broker, name: str, keys: MasterKeys | None, says: bytes
) -> None:
    async with worker(database, broker, master_keys=keys) as works:
        run_id = await works.submit("true", env={"PASSWORD": SecretRef(secret=name)})
        row = await works.ended_row(run_id)
        output = await works.output(run_id)
    assert (row["state"], row["reason"]) == ("failed", "spawn_error:secret_unavailable")
    assert says in output


@pytest.mark.usefixtures("secret")
async def test_another_namespace_has_no_such_secret(database: Database) -> None:
    assert await Secrets(database).sealed("other", ["password"]) == {}


def test_outputs_that_are_nested_too_deep_to_be_searched_for_secrets_are_refused() -> None:
    """How deep that is depends on the interpreter: what can be read may be too deep for the search."""
    refused = 0
    for depth in range(100, 2000, 50):
        try:
            parse_outputs(b'{"a":' + b"[" * depth + b"]" * depth + b"}", (b"s",))
        except InvalidOutputs:
            refused += 1
    assert refused

"""Secrets at rest: bound to what they belong to, and wrapped anew without being opened."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable

import msgspec
import pytest

from scheduler.store.database import Database
from scheduler.store.envelope import MasterKeys, Sealed, Unopenable
from scheduler.store.secrets import Secrets

VALUE = "correct horse battery staple"


def _key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: msgspec.structs.replace(s, namespace="other"),
        lambda s: msgspec.structs.replace(s, name="other"),
        lambda s: msgspec.structs.replace(s, version=2),
        lambda s: msgspec.structs.replace(s, ciphertext=s.ciphertext[:-1] + bytes([s.ciphertext[-1] ^ 1])),
        lambda s: msgspec.structs.replace(s, wrapped_key=bytes([s.wrapped_key[0] ^ 1]) + s.wrapped_key[1:]),
        lambda s: msgspec.structs.replace(s, ciphertext=b""),
    ],
)
def test_a_ciphertext_opens_only_as_what_it_was_made(change: Callable[[Sealed], Sealed]) -> None:
    keys = MasterKeys(_key())
    sealed = keys.seal("default", "password", 1, VALUE)
    assert keys.open(sealed) == VALUE
    with pytest.raises(Unopenable, match="tampered"):
        keys.open(change(sealed))


def test_another_master_key_opens_nothing_and_says_which_it_lacks() -> None:
    sealed = MasterKeys(_key()).seal("default", "password", 1, VALUE)
    with pytest.raises(Unopenable, match=sealed.key_id):
        MasterKeys(_key()).open(sealed)


def test_nothing_of_a_value_or_a_key_is_in_what_is_stored() -> None:
    text = _key()
    sealed = MasterKeys(text).seal("default", "password", 1, VALUE)
    stored = sealed.ciphertext + sealed.wrapped_key + sealed.key_id.encode()
    assert VALUE.encode() not in stored
    assert base64.b64decode(text) not in stored


@pytest.mark.parametrize("text", ["", "x", base64.b64encode(b"short").decode(), "!" * 44])
def test_what_is_no_master_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="key"):
        MasterKeys(text)


async def test_rotation_wraps_every_key_anew_and_leaves_values_and_versions(database: Database) -> None:
    old, new = _key(), _key()
    secrets = Secrets(database)
    for number in range(3):
        assert await secrets.put(database, MasterKeys(old), "default", f"s{number}", f"{VALUE} {number}", "test")
    await secrets.put(database, MasterKeys(old), "default", "s0", VALUE, "test")
    before = await secrets.sealed("default", ["s0", "s1", "s2"])
    both = MasterKeys(f"{new}\n{old}\n")
    async with database.transaction() as executor:
        assert len(await secrets.rewrap_some(executor, both)) == 3
        assert await secrets.rewrap_some(executor, both) == []
    after = await secrets.sealed("default", ["s0", "s1", "s2"])
    alone = MasterKeys(new)
    assert [alone.open(after[f"s{n}"]) for n in range(3)] == [VALUE, f"{VALUE} 1", f"{VALUE} 2"]
    assert [after[name].version for name in sorted(after)] == [2, 1, 1]
    assert all(before[name].ciphertext == after[name].ciphertext for name in after)
    with pytest.raises(Unopenable):
        MasterKeys(old).open(after["s1"])

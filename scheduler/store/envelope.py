"""Envelope encryption: each value under a random key of its own, and that key under a master key.

Both by AES-256-GCM with a random nonce. What a ciphertext belongs to (namespace, name, version) is authenticated with
it, so that one put in the place of another cannot be opened; the wrapped key is bound to its master key's id besides.
Master keys are numbered by what they are: an id is part of a hash, and says nothing about the key.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE: Final = 12
_KEY: Final = 32


class Unopenable(Exception):
    """A secret that cannot be decrypted here; the text says why, and nothing of the secret."""


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """An encrypted value and what it belongs to."""

    namespace: str
    name: str
    version: int
    key_id: str
    wrapped_key: bytes
    ciphertext: bytes


class MasterKeys:
    """The master keys of this process: the first wraps, all unwrap."""

    def __init__(self, text: str) -> None:
        """`text` is one key or several, each 32 bytes in base64, the one to use first. Raises ValueError."""
        keys = [_decoded(word) for word in text.split()]
        if not keys:
            raise ValueError("holds no key: write 32 bytes in base64, for example from: openssl rand -base64 32")
        self._keys: Mapping[str, bytes] = {_id_of(key): key for key in keys}
        self.current = _id_of(keys[0])

    @property
    def fingerprint_key(self) -> bytes:
        """A key for telling requests apart whose bodies hold secrets."""
        return sha256(b"dts fingerprint" + self._keys[self.current]).digest()

    def seal(self, namespace: str, name: str, version: int, value: str) -> Sealed:
        """Encrypt a value."""
        key = AESGCM.generate_key(256)
        bound = _bound(namespace, name, version)
        return Sealed(
            namespace=namespace,
            name=name,
            version=version,
            key_id=self.current,
            wrapped_key=_encrypt(self._keys[self.current], key, bound + self.current.encode()),
            ciphertext=_encrypt(key, value.encode(), bound),
        )

    def open(self, sealed: Sealed) -> str:
        """Decrypt a value. Raises Unopenable."""
        key = self._unwrapped(sealed)
        return _decrypt(key, sealed.ciphertext, _bound_of(sealed), sealed).decode()

    def rewrap(self, sealed: Sealed) -> Sealed:
        """Wrap a value's key with the current master key; the value itself stays as it is. Raises Unopenable."""
        key = self._unwrapped(sealed)
        wrapped = _encrypt(self._keys[self.current], key, _bound_of(sealed) + self.current.encode())
        return msgspec.structs.replace(sealed, key_id=self.current, wrapped_key=wrapped)

    def _unwrapped(self, sealed: Sealed) -> bytes:
        master = self._keys.get(sealed.key_id)
        if master is None:
            raise Unopenable(f"the master key {sealed.key_id} is not here")
        return _decrypt(master, sealed.wrapped_key, _bound_of(sealed) + sealed.key_id.encode(), sealed)


def _decoded(word: str) -> bytes:
    try:
        key = base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a master key is written in base64") from None
    if len(key) != _KEY:
        raise ValueError(f"a master key has {_KEY} bytes, not {len(key)}")
    return key


def _id_of(key: bytes) -> str:
    return sha256(b"dts master key" + key).hexdigest()[:16]


def _bound_of(sealed: Sealed) -> bytes:
    return _bound(sealed.namespace, sealed.name, sealed.version)


def _bound(namespace: str, name: str, version: int) -> bytes:
    return msgspec.json.encode(["dts secret", namespace, name, version])


def _encrypt(key: bytes, data: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, data, bound)


def _decrypt(key: bytes, data: bytes, bound: bytes, sealed: Sealed) -> bytes:
    try:
        return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], bound)
    except (InvalidTag, ValueError):
        raise Unopenable(f"version {sealed.version} of it was tampered with") from None

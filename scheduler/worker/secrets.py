"""Secrets of a command: read with its attempt, decrypted here, and nowhere written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.domain.run import Claim
from scheduler.domain.task import SecretRef, TaskSpec
from scheduler.store.secrets import Secrets
from scheduler.worker.spawn import SpawnError

if TYPE_CHECKING:
    from scheduler.store.envelope import MasterKeys

_WHAT = "secret_unavailable"


def names_of(spec: TaskSpec) -> set[str]:
    """Return the secrets that a command's environment names."""
    return {value.secret for value in spec.env.values() if isinstance(value, SecretRef)}


class Opener:
    """Decrypts secrets of a task's own namespace; without keys, none."""

    def __init__(self, secrets: Secrets, keys: MasterKeys | None) -> None:
        self._secrets = secrets
        self._keys = keys

    async def open(self, claim: Claim, names: set[str]) -> dict[str, str]:
        """Return the values of secrets by name. Raises SpawnError, or StoreUnavailable."""
        if self._keys is None:
            raise SpawnError(_WHAT, "this worker has no key for secrets: secrets.master_key")
        from scheduler.store.envelope import Unopenable  # noqa: PLC0415 - is there already: it made the keys

        stored = await self._secrets.sealed(claim.namespace, names)
        values = {}
        for name in sorted(names):
            if name not in stored:
                raise SpawnError(_WHAT, f"there is no secret {name!r} in the namespace {claim.namespace}")
            try:
                values[name] = self._keys.open(stored[name])
            except Unopenable as error:
                raise SpawnError(_WHAT, f"the secret {name!r} cannot be opened: {error}") from None
        return values

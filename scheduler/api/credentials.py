"""Whose credentials these are: API keys, JSON Web Tokens, and the tokens of running commands.

What was verified is remembered for a few seconds by the SHA-256 of the whole header, so that a busy client costs one
look-up now and then, and so that a revoked key is refused soon: at once where Redis brings the news, else after
`REMEMBERED` seconds. Looking up by a hash tells nobody how much of a secret was right.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Protocol

import msgspec

from scheduler.api.failures import Failures
from scheduler.broker import Broker, BrokerUnavailable
from scheduler.domain import keys, run_tokens
from scheduler.domain.access import Principal, RunScope
from scheduler.domain.clock import Clock
from scheduler.domain.errors import Unauthenticated
from scheduler.metrics import Metrics
from scheduler.service import Wake
from scheduler.store.keys import Keys

CHANNEL = "access"
"""Carries the id of a key that was revoked."""

REMEMBERED = 5.0  # seconds
_BOUND = 10_000
_USE_WRITTEN = 60.0  # seconds
_KEY_READ_AGAIN = 10.0  # seconds
_LONGEST = 16_384

_INVALID = "the credentials do not hold"


class Ended(Unauthenticated):
    """True credentials, which hold no longer."""


class Tokens(Protocol):
    """Verifies JSON Web Tokens."""

    async def verify(self, text: str) -> Principal:
        """Return who shows the token. Raises Unauthenticated, or Overloaded while nothing can be verified."""
        ...


class _Known(msgspec.Struct, frozen=True):
    principal: Principal
    until: float


class Follower:
    """Somebody to whom an answer goes on, and how it is ended. `on_end` must not block or raise."""

    __slots__ = ("on_end", "principal")

    def __init__(self, principal: Principal, on_end: Callable[[], None]) -> None:
        self.principal = principal
        self.on_end = on_end


class Credentials:
    """Verifies what stands in `Authorization`. `wake` and `step` are its loop, which notes when keys were used."""

    def __init__(self, keys_: Keys, broker: Broker, clock: Clock, metrics: Metrics, tokens: Tokens | None) -> None:
        self.wake = Wake()
        self._keys = keys_
        self._broker = broker
        self._clock = clock
        self._monotonic = clock.monotonic
        self._tokens = tokens
        self._failures = Failures(clock.monotonic)
        self._known: dict[bytes, _Known] = {}
        self._used: set[str] = set()
        self._use_due = 0.0
        self._followers: set[Follower] = set()
        self._signing_key: bytes | None = None
        self._signing_key_read = 0.0
        self._refused = metrics.counter("dts_auth_failures_total", "Credentials that did not hold.", "kind")
        broker.listen(CHANNEL, self._revoked, self.forget)

    def known(self, header: bytes) -> Principal | None:
        """Return whose header this is, if it was verified a moment ago."""
        known = self._known.get(sha256(header).digest())
        return known.principal if known is not None and known.until > self._monotonic() else None

    async def verify(self, header: bytes, address: str) -> Principal:
        """Return whose header this is. Raises Unauthenticated, TooMany, Overloaded, or StoreUnavailable."""
        scheme, _, token = header.partition(b" ")
        text = token.strip().decode("latin-1")
        if scheme.lower() != b"bearer" or not text or len(text) > _LONGEST:
            raise Unauthenticated("write it as: Authorization: Bearer, a space, and an API key or a token")
        if text.startswith(run_tokens.PREFIX):
            return await self._verify_run(text)  # costs next to nothing: neither remembered nor counted
        parsed = keys.parse(text)
        subject = parsed[0] if parsed else sha256(header).hexdigest()[:16]
        self._failures.check(address, subject)
        try:
            if parsed is not None:
                principal = await self._verify_key(*parsed)
            elif self._tokens is not None and text.count(".") == 2:
                principal = await self._tokens.verify(text)
            else:
                raise Unauthenticated(_INVALID)
        except Unauthenticated as error:
            self._failures.failed(address, subject, ended=isinstance(error, Ended))
            self._refused.labels("key" if parsed else "token").inc()
            raise
        self._failures.succeeded(address, subject)
        self._remember(header, principal)
        return principal

    async def revoked(self, identifier: str) -> None:
        """Tell every process that a key holds no longer: this one at once, the others by Redis or by time."""
        self._revoked(identifier.encode())
        with suppress(BrokerUnavailable):
            await self._broker.publish(CHANNEL, identifier.encode())

    def forget(self) -> None:
        """Verify everything anew."""
        self._known.clear()

    def follow(self, principal: Principal, on_end: Callable[[], None]) -> Follower:
        """Call `on_end` when somebody's credentials hold no longer, for an answer that goes on for long."""
        follower = Follower(principal, on_end)
        self._followers.add(follower)
        if len(self._followers) == 1:
            self.wake.set()
        return follower

    def unfollow(self, follower: Follower) -> None:
        """End what `follow` began."""
        self._followers.discard(follower)

    async def step(self) -> float | None:
        """Write down which keys were used, and find out which of those that are followed hold no longer."""
        now = self._monotonic()
        if self._used and now >= self._use_due:
            used, self._used = self._used, set()
            self._use_due = now + _USE_WRITTEN
            await self._keys.note_use(sorted(used))
        if self._followers:
            shown = {follower.principal.id for follower in self._followers if follower.principal.kind == "key"}
            ended = set(await self._keys.ended(shown)) if shown else set()
            at = self._clock.now().timestamp()
            for follower in tuple(self._followers):
                if follower.principal.until <= at or (follower.principal.id in ended):
                    follower.on_end()
        return REMEMBERED if self._followers or self._used else _USE_WRITTEN

    async def _verify_key(self, identifier: str, secret: str) -> Principal:
        stored = await self._keys.get(identifier)
        # A key that does not exist takes the same comparison, with something that no secret matches.
        if not keys.matches(secret, stored.hash if stored is not None else bytes(32)) or stored is None:
            raise Unauthenticated(_INVALID)
        if stored.revoked_at is not None:
            raise Ended("this API key has been revoked")
        principal = stored.principal()
        if principal.until <= self._clock.now().timestamp():
            raise Ended("this API key has expired")
        self._used.add(identifier)
        return principal

    async def _verify_run(self, text: str) -> Principal:
        now = self._clock.now().timestamp()
        token = None if self._signing_key is None else run_tokens.read(self._signing_key, text, now)
        if token is None and self._monotonic() - self._signing_key_read >= _KEY_READ_AGAIN:
            self._signing_key = await self._keys.run_token_key()
            self._signing_key_read = self._monotonic()
            token = run_tokens.read(self._signing_key, text, now)
        if token is None:
            self._refused.labels("run").inc()
            raise Unauthenticated(_INVALID)
        return Principal(
            name=f"run:{token.run_id}",
            kind="run",
            namespaces=frozenset((token.namespace,)),
            run=RunScope(token.run_id, token.fence),
            until=token.expires,
        )

    def _remember(self, header: bytes, principal: Principal) -> None:
        left = min(REMEMBERED, principal.until - self._clock.now().timestamp())
        if len(self._known) >= _BOUND:
            del self._known[next(iter(self._known))]
        digest = sha256(header).digest()
        self._known.pop(digest, None)  # so that it becomes the youngest
        self._known[digest] = _Known(principal, self._monotonic() + left)

    def _revoked(self, identifier: bytes) -> None:
        gone = identifier.decode("latin-1")
        for follower in tuple(self._followers):
            if follower.principal.id == gone:
                follower.on_end()
        for digest in [digest for digest, known in self._known.items() if known.principal.id == gone]:
            del self._known[digest]

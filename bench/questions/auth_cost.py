"""What it adds to a request that the API asks who sends it.

The gate that stands before every handler is asked directly, in this process, whether a request may pass: in development
mode, where nobody is asked; with an API key and with a JWT (RS256) that were verified a moment ago, as those of a busy
client are; and with the token of a running command, which is verified every time. What the HTTP library (h11) needs to
read the longer head of such a request is measured too and added. CPU time of one process; each kind is held against
development mode, measured in the same round.

Not in it: the look-up of a key that was not seen for five seconds, one statement. A JWT that is seen for the first time
is listed by itself.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import h11
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.model import Bound, Sample
from bench.question import Question
from scheduler.api.credentials import Credentials
from scheduler.api.gate import Gate
from scheduler.api.jwks import KeySource
from scheduler.api.jwts import Jwts
from scheduler.api.routes import ROUTES
from scheduler.api.settings import JwtSettings
from scheduler.api.tenancy import Tenancy
from scheduler.broker import Broker
from scheduler.domain import keys, run_tokens
from scheduler.domain.clock import SystemClock
from scheduler.metrics import Metrics
from scheduler.store.database import Database
from scheduler.store.keys import Keys, StoredKey
from scheduler.store.namespaces import Namespaces

_IDENTIFIER, _SECRET = "a" * 16, "s" * 43
_RUN = UUID(int=7)
_REACH = 30.0  # µs
_HEAD = [("host", "localhost:8080"), ("user-agent", "dts-client/1.0"), ("accept", "application/json")]


class _OneKey(Keys):
    """A store that holds one key, without a database."""

    async def get(self, identifier: str) -> StoredKey | None:
        return StoredKey(
            id=identifier,
            name="bench",
            hash=keys.digest(_SECRET),
            role="editor",
            permissions=[],
            namespaces=["default"],
            created_at=SystemClock().now(),
            created_by="bench",
            expires_at=None,
            last_used_at=None,
            revoked_at=None,
        )

    async def run_token_key(self) -> bytes:
        return bytes(32)


class AuthCost(Question):
    """Asks the gate many times, in every way that a request can show who sends it."""

    name = "auth_cost"
    title = "Authentication: what it adds to a request"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Make the gates and the credentials."""
        clock = SystemClock()
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        file = self.bench.work / "jwks.json"
        file.write_bytes(_jwks(self._private))
        settings = JwtSettings(issuer="bench", audience="bench", jwks_file=str(file), refresh=1e9)
        self._tokens = Jwts(settings, KeySource(settings, clock), clock)
        broker = await stack.enter_async_context(
            Broker.connect("redis://127.0.0.1:1", installation="bench", name="bench", clock=clock)
        )
        nowhere = Database(None, None, None)  # type: ignore[arg-type]  # nobody asks it anything
        credentials = Credentials(_OneKey(nowhere), broker, clock, Metrics(), self._tokens)
        tenancy = Tenancy(Namespaces(nowhere), broker)
        self._gates = {
            mode: Gate(credentials, tenancy, development=mode == "development", open_to_all=frozenset())
            for mode in ("development", "closed")
        }

    async def ask(self) -> list[Sample]:
        """Measure each kind of credential, and nobody's."""
        count = 2_000 if self.bench.quick else 50_000
        run_token = run_tokens.sign(bytes(32), run_tokens.RunToken(_RUN, 1, 1 << 40, "default"))
        shown = {
            "API key": keys.text_of(_IDENTIFIER, _SECRET),
            "JWT": self._jwt(),
            "run token": run_token,
        }
        ways = self.turned([None, *shown])
        costs = {way: await self._pass(None if way is None else shown[way], count) for way in ways}
        samples = [
            Sample(
                name=f"added by {way}",
                value=(costs[way] - costs[None]) * 1e6,
                unit="µs",
                better="lower",
                reach=Bound("value", most=_REACH),
            )
            for way in shown
        ]
        first = min(count, 2_000)
        fresh = [self._jwt() for _ in range(first)]
        cost = await _timed(first, lambda number: self._tokens.verify(fresh[number]))
        samples.append(Sample(name="JWT (RS256), the first time", value=cost * 1e6, unit="µs", better="lower"))
        return samples

    async def _pass(self, credentials: str | None, count: int) -> float:
        """Return the seconds that one request with these credentials costs, to be read and to pass."""
        header = None if credentials is None else f"Bearer {credentials}".encode()
        gate = self._gates["development" if header is None else "closed"]
        headers = {b"host": b"localhost"} if header is None else {b"host": b"localhost", b"authorization": header}
        route = next(route for route in ROUTES if route.run_token)
        scope: Any = {"client": ("127.0.0.1", 1)}
        params = {"id": str(_RUN)}

        async def enter(_: int) -> None:
            principal = await gate.identify(route, headers, scope)
            await gate.admit(principal, route, params, headers)

        await enter(0)
        passing = await _timed(count, enter)
        return passing + _reading([*_HEAD, *([] if header is None else [("authorization", header)])], count // 5)

    def _jwt(self) -> str:
        claims = {"iss": "bench", "aud": "bench", "sub": "bench", "nbf": 0, "exp": 1 << 40, "dts_role": "editor"}
        return jwt.encode({**claims, "jti": str(time.monotonic_ns())}, self._private, "RS256", {"kid": "bench"})


async def _timed(count: int, call: Callable[[int], Awaitable[object]]) -> float:
    started = time.process_time()
    for number in range(count):
        await call(number)
    return (time.process_time() - started) / count


def _reading(head: list[tuple[str, Any]], count: int) -> float:
    """Return the seconds that h11 needs to read a request with these headers."""
    client = h11.Connection(h11.CLIENT)
    data = client.send(h11.Request(method="GET", target="/api/tasks", headers=head))
    assert data is not None
    started = time.process_time()
    for _ in range(count):
        server = h11.Connection(h11.SERVER)
        server.receive_data(data)
        server.next_event()
    return (time.process_time() - started) / count


def _jwks(private: rsa.RSAPrivateKey) -> bytes:
    public = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return msgspec.json.encode(
        {"keys": [{**public, "kid": "bench", "use": "sig", "alg": "RS256", "key_ops": ["verify"]}]}
    )

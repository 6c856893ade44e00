"""JSON Web Tokens: whose, for whom, until when, and by which key; and what somebody might try instead."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scheduler.api.jwks import KeySource, UnusableKey, pinned, read_set
from scheduler.api.settings import JwtSettings
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import Overloaded
from scheduler.store.database import Database
from tests.roles.api.access_support import Caller, Closed, closed_api

ISSUER, AUDIENCE, SECRET = "https://issuer.example", "dts", "s" * 32
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED, "HS256": SECRET}
_TO_JWK: dict[str, Callable[[Any], Any]] = {
    "RS256": lambda key: jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True),
    "ES256": lambda key: jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True),
    "EdDSA": lambda key: jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True),
    "HS256": lambda key: jwt.algorithms.HMACAlgorithm.to_jwk(key, as_dict=True),
}


def jwk(algorithm: str, key: Any = None, **fields: Any) -> dict[str, Any]:
    described: dict[str, Any] = _TO_JWK[algorithm](key or PRIVATE[algorithm])
    described.pop("key_ops", None)
    return {**described, "kid": algorithm, "use": "sig", **fields}


def claims(**changes: Any) -> dict[str, Any]:
    now = SystemClock().now().timestamp()
    made = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "nbf": now - 1,
        "exp": now + 3600,
        "dts_role": "editor",
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def token(algorithm: str = "RS256", key: Any = None, *, kid: str | None = "", **changes: Any) -> str:
    headers = {} if kid is None else {"kid": kid or algorithm}
    return jwt.encode(claims(**changes), key or PRIVATE[algorithm], algorithm=algorithm, headers=headers)


def by_hand(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(body).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    file = tmp_path / "jwks.json"
    file.write_bytes(msgspec.json.encode({"keys": [jwk(name) for name in PRIVATE]}))
    return file


@pytest.fixture
async def api(database: Database, redis_url: str, jwks: Path) -> AsyncIterator[Closed]:
    settings = JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks_file=str(jwks), leeway=10.0)
    async with closed_api(database, redis_url, jwt=settings) as running:
        yield running


async def status(api: Closed, text: str) -> int:
    answer = await Caller(api.api, text).get("/api/tasks")
    assert answer.status != 500
    return answer.status


@pytest.mark.parametrize("algorithm", sorted(PRIVATE))
async def test_a_token_signed_by_a_known_key_is_taken(api: Closed, algorithm: str) -> None:
    caller = Caller(api.api, token(algorithm))
    task = await caller.create("nightly", schedule="@daily")
    assert task["namespace"] == "default"
    async with api.api.context.database.session() as connection:
        assert await connection.fetchval("SELECT created_by FROM tasks") == "jwt:alice"


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "exp", "nbf"])
async def test_a_token_without_a_claim_that_it_needs_is_refused(api: Closed, claim: str) -> None:
    assert await status(api, token(**{claim: None})) == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"aud": ["other", "another"]},
        {"exp": 1},
        {"exp": "soon"},
        {"nbf": 2**40},
        {"sub": 7},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "x" * 1000},
    ],
)
async def test_a_token_that_is_not_for_us_now_is_refused(api: Closed, changes: dict[str, Any]) -> None:
    try:
        text = token(**changes)
    except TypeError:  # the library refuses to make it: so by hand
        text = by_hand({"alg": "RS256", "kid": "RS256"}, claims(**changes))
    assert await status(api, text) == 401


async def test_clocks_may_differ_by_the_leeway_and_no_more(api: Closed) -> None:
    now = SystemClock().now().timestamp()
    assert await status(api, token(exp=now - 5)) == 200
    assert await status(api, token(exp=now - 15)) == 401
    assert await status(api, token(nbf=now + 5)) == 200
    assert await status(api, token(nbf=now + 15)) == 401


async def test_no_token_chooses_its_own_algorithm(api: Closed) -> None:
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    attempts = [
        by_hand({"alg": "none"}, claims()),
        by_hand({"alg": "none", "kid": "RS256"}, claims()),
        by_hand({"alg": "None", "kid": "RS256"}, claims()),
        by_hand({"kid": "RS256"}, claims()),
        token("HS256", kid="RS256"),
        token("RS256", kid="ES256"),
        token("ES256", kid="RS256"),
        jwt.encode(claims(), RSA, algorithm="RS512", headers={"kid": "RS256"}),
        jwt.encode(claims(), RSA, algorithm="PS256", headers={"kid": "RS256"}),
        jwt.encode(claims(), RSA, algorithm="RS256", headers={"kid": "RS256", "crit": ["x"], "x": 1}),
    ]
    # The published RSA key as the secret of an HMAC: by hand, for the library refuses to sign so.
    head = by_hand({"alg": "HS256", "kid": "RS256"}, claims()).rpartition(".")[0]
    signature = hmac.digest(public, head.encode(), "sha256")
    attempts.append(f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")
    for attempt in attempts:
        assert await status(api, attempt) in (401, 429), attempt


@pytest.mark.parametrize("kid", ["unknown", "../../etc/passwd", "RS256\x00", None])
async def test_a_token_of_a_key_that_is_not_known_is_refused(api: Closed, kid: str | None) -> None:
    assert await status(api, token("RS256", kid=kid)) == 401
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert await status(api, token("RS256", other)) == 401


async def test_what_is_no_token_at_all_is_refused(api: Closed) -> None:
    for text in ("..", "a.b.c", "e30.e30.e30", token()[:-8] + "AAAAAAAA", token() + ".x", by_hand({"alg": []}, {})):
        assert await status(api, text) == 401, text


async def test_claims_say_what_a_token_allows_and_where(api: Closed) -> None:
    await api.namespace("a")
    for held, expected in (
        ({"dts_role": "viewer"}, (200, 403, 403)),
        ({"dts_role": None}, (403, 403, 403)),
        ({"dts_role": "god"}, (403, 403, 403)),
        ({"dts_role": ["admin"]}, (403, 403, 403)),
        ({"dts_role": None, "dts_permissions": "command:define x:y"}, (403, 201, 403)),
        ({"dts_role": "admin"}, (200, 201, 403)),
        ({"dts_role": "admin", "dts_namespaces": "*"}, (200, 201, 200)),
        ({"dts_role": "editor", "dts_namespaces": ["a"]}, (200, 201, 403)),
        ({"dts_role": "editor", "dts_namespaces": []}, (403, 403, 403)),
    ):
        caller = Caller(api.api, token(**held))
        created = await caller.post("/api/tasks", {"name": "x", "command": "true"})
        seen = ((await caller.get("/api/tasks")).status, created.status, (await caller.get("/metrics")).status)
        assert seen == expected, held
        if "a" in held.get("dts_namespaces", []):
            assert created.json["namespace"] == "a"


async def test_a_shared_secret_of_the_configuration_signs_tokens_without_a_key_id(
    database: Database, redis_url: str
) -> None:
    settings = JwtSettings(issuer=ISSUER, audience=AUDIENCE, secret=SECRET)
    async with closed_api(database, redis_url, jwt=settings) as api:
        assert await status(api, token("HS256", kid=None)) == 200
        assert await status(api, token("HS256", "x" * 32, kid=None)) == 401
        assert await status(api, token("RS256", kid=None)) == 401


class Published:
    """A JWKS at a URL."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] | None = []
        self.asked = 0
        self.url = ""

    async def answer(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            self.asked += 1
            body = b"gone" if self.keys is None else msgspec.json.encode({"keys": self.keys})
            state = b"500 Broken" if self.keys is None else b"200 OK"
            head = b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (state, len(body))
            await stream.send(head + body)


class Silent(Published):
    """A site that takes every connection and never answers."""

    async def answer(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            self.asked += 1
            await anyio.sleep_forever()


@asynccontextmanager
async def published(site: Published | None = None) -> AsyncIterator[Published]:
    site = site or Published()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    site.url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/jwks.json"
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, site.answer)
        yield site
        group.cancel_scope.cancel()


async def test_keys_of_a_url_are_cached_rotated_and_kept_while_it_is_away(
    database: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with published() as site:
        site.keys = [jwk("RS256", kid="old"), jwk("HS256", kid="shared")]
        settings = JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks_url=site.url)
        async with closed_api(database, redis_url, jwt=settings) as api:
            assert await status(api, token("RS256", kid="old")) == 200
            for number in range(20):
                assert await status(api, token("RS256", kid="old", sub=f"u{number}")) == 200
            assert site.asked <= 2  # by the loop, and by the first request if that comes before it
            assert await status(api, token("HS256", kid="shared")) == 401  # what is published cannot be secret
            # Rotated: a key id that is not known makes us look again, but not as often as somebody makes one up.
            site.keys = [jwk("ES256", kid="new")]
            asked = site.asked
            for number in range(5):
                assert await status(api, token("ES256", kid="new", sub=f"v{number}")) == 401
            assert site.asked <= asked + 1
            monkeypatch.setattr("scheduler.api.jwks._HURRY", 0.0)
            assert await status(api, token("ES256", kid="new", sub="w")) == 200
            assert await status(api, token("RS256", kid="old", sub="w")) == 401
            site.keys = None
            assert await status(api, token("ES256", kid="newest")) == 401
            assert await status(api, token("ES256", kid="new", sub="x")) == 200


async def test_whoever_waits_while_the_keys_are_read_is_served_by_that_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.api.jwks._PATIENCE", 0.5)
    monkeypatch.setattr("scheduler.api.jwks._HURRY", 0.5)
    async with published(Silent()) as site:
        keys = KeySource(JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks_url=site.url), SystemClock())

        async def find() -> None:
            with pytest.raises(Overloaded):
                await keys.find("made up")

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(find)
        assert site.asked <= 2  # one more if this machine stood still for a while


async def test_no_token_is_called_wrong_before_the_keys_could_be_read(
    database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.api.jwks._HURRY", 0.0)
    file = tmp_path / "later.json"
    settings = JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks_file=str(file))
    async with closed_api(database, redis_url, jwt=settings) as api:
        early = Caller(api.api, token())
        for _ in range(10):  # more than somebody may be wrong before they have to wait
            refused = await early.get("/api/tasks")
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        file.write_bytes(msgspec.json.encode({"keys": [jwk("RS256")]}))
        assert (await early.get("/api/tasks")).status == 200
        assert await status(api, token(kid="made up")) == 401


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (jwk("RS256", alg="HS256"), "does not verify"),
        (jwk("HS256", alg="RS256"), "does not verify"),
        (jwk("RS256", alg="RS512"), "does not verify"),
        (jwk("RS256", alg="none"), "does not verify"),
        (jwk("RS256", use="enc"), "not for signatures"),
        (jwk("RS256", SMALL), "2048 bits"),
        (jwk("HS256", "short"), "32 bytes"),
        ({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, "."),
        ({"kty": "RSA"}, "."),
        ({}, "does not verify"),
    ],
)
def test_a_key_that_nothing_should_be_verified_with_is_left_out(document: dict[str, Any], why: str) -> None:
    with pytest.raises(UnusableKey, match=why):
        pinned(document, published=False)
    assert read_set(msgspec.json.encode({"keys": [document]}), published=False) == {}


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1]}', b"\xff"])
def test_what_is_no_key_set_is_no_reason_to_forget_the_keys_that_are_known(data: bytes) -> None:
    with pytest.raises(UnusableKey):
        read_set(data, published=True)

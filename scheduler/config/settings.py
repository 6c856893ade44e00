"""Everything that can be set, with its type, bounds and default; `CHECKS` holds what types cannot say."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from scheduler.config.addresses import is_readable, loosened
from scheduler.domain.blockers import LEADER_SILENT_AFTER

Seconds = Annotated[float, Meta(ge=0, extra={"unit": "seconds"})]
Count = Annotated[int, Meta(ge=1)]


class Database(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PostgreSQL, the truth. `pool` bounds the connections that one role holds.

    With `ca_file` the server must show a certificate of that authority in its name (`sslmode=verify-full`).
    """

    url: str = ""
    ca_file: str = ""
    pool: Annotated[int, Meta(ge=2, le=1000)] = 8


class Redis(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Redis ≥ 7.0 or Valkey ≥ 7.2, the accelerator.

    With `rediss://` the server must show a certificate in its name, of `ca_file` or of an authority that this machine
    trusts.
    """

    url: str = ""
    ca_file: str = ""


class Api(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP interface.

    `max_body` is in bytes; `idempotency_ttl` is how long answers are kept under an Idempotency-Key. `rate_limit` is how
    many requests a second one principal may send in one namespace (0: any number), `rate_burst` how many of them at
    once (0: as many as in a second). `require_if_match` refuses edits that do not say which version they mean.
    With `tls_certificate` and `tls_key` (PEM files, read again when they change) the port speaks HTTPS.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    max_body: Annotated[int, Meta(ge=1024)] = 10 * 1024 * 1024
    drain_timeout: Seconds = 10.0
    idempotency_ttl: Annotated[float, Meta(gt=0, extra={"unit": "seconds"})] = 86400.0
    rate_limit: Annotated[float, Meta(ge=0)] = 0.0
    rate_burst: Annotated[int, Meta(ge=0)] = 0
    require_if_match: bool = False
    tls_certificate: str = ""
    tls_key: str = ""


class Auth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may use the HTTP interface. `development`: everybody on this machine, and nobody else, without credentials.

    Without it, every request but the open probes needs an API key (`dts key create`) or a token. `open` names
    permissions that nobody needs to show: `metrics:read`, `health:read`. Tokens (JWT) are taken of one `jwt_issuer`,
    for one `jwt_audience`, signed by a key of `jwt_jwks_file` or `jwt_jwks_url`, or by `jwt_secret` (32 bytes).
    """

    development: bool = False
    open: tuple[Literal["metrics:read", "health:read"], ...] = ()
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_jwks_file: str = ""
    jwt_jwks_url: str = ""
    jwt_secret: str = ""
    jwt_leeway: Annotated[float, Meta(ge=0, le=600, extra={"unit": "seconds"})] = 30.0
    jwt_refresh: Annotated[float, Meta(ge=10, extra={"unit": "seconds"})] = 300.0
    jwt_role_claim: str = "dts_role"
    jwt_permissions_claim: str = "dts_permissions"
    jwt_namespaces_claim: str = "dts_namespaces"


class Secrets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What secrets are encrypted with: `master_key` is 32 bytes in base64, for API and workers alike.

    Further keys after it, each after a space or on a line of its own, are for what was encrypted before it came.
    """

    master_key: str = ""


class Scheduler(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The role that leads. A leader that has not renewed for `lock_ttl` may be succeeded."""

    lock_ttl: Annotated[float, Meta(ge=1, le=LEADER_SILENT_AFTER, extra={"unit": "seconds"})] = 5.0


class Worker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The role that executes. `name` is what people call it; `concurrency` is its slots, 0 for four per processor.

    `task_user` is who commands run as when the worker is root; `state_dir` holds files of running attempts;
    `api_url` is what commands get as `DTS_API_URL`.
    """

    name: str = ""
    queues: Annotated[tuple[str, ...], Meta(min_length=1)] = ("default",)
    concurrency: Annotated[int, Meta(ge=0, le=100_000)] = 0
    labels: dict[Annotated[str, Meta(pattern=r"^(?!dts\.)")], str] = {}  # a worker's own begin with `dts.`
    lease: Annotated[float, Meta(ge=5, le=3600, extra={"unit": "seconds"})] = 15.0
    drain_timeout: Seconds = 30.0
    task_user: str = "nobody"
    state_dir: str = ""
    api_url: str = ""


class Up(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`dts up`. An empty `data_dir` is the usual place for the user's state."""

    data_dir: str = ""
    workers: Annotated[int, Meta(ge=0, le=1000)] = 1


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logs on stderr; `auto` is for people on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    database: Database = Database()
    redis: Redis = Redis()
    api: Api = Api()
    auth: Auth = Auth()
    secrets: Secrets = Secrets()
    scheduler: Scheduler = Scheduler()
    worker: Worker = Worker()
    up: Up = Up()
    log: Log = Log()


SECRETS = frozenset({"database.url", "redis.url", "auth.jwt_secret", "secrets.master_key"})
SHORT = {"DTS_DATABASE_URL": "database.url", "DTS_REDIS_URL": "redis.url"}
"""The two variables that everybody sets, without the double underscore."""


SECTIONS: dict[str, dict[str, msgspec.structs.FieldInfo]] = {
    section.name: {field.name: field for field in msgspec.structs.fields(section.type)}
    for section in msgspec.structs.fields(Config)
}


def _server(*schemes: str) -> Callable[[Any], None]:
    def check(url: str) -> None:
        if url and url.partition("://")[0] not in schemes:
            raise ValueError(f"the URL must start with {' or '.join(f'{name}://' for name in schemes)}")
        if not is_readable(url):
            hint = "special characters of the password are written as %XX (# as %23, / as %2F)"
            raise ValueError(f"the URL cannot be read: ports are numbers, and {hint}")

    return check


def _https(url: str) -> None:
    """Refuse to read keys from where anybody on the way could put others."""
    parts = urlsplit(url)
    if url and parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        raise ValueError("the URL must start with https://")


def _long(secret: str) -> None:
    if secret and len(secret.encode()) < 32:
        raise ValueError("must have 32 bytes at least, for example from: openssl rand -base64 32")


def _master_keys(text: str) -> None:
    for word in text.split():
        try:
            fits = len(base64.b64decode(word, validate=True)) == 32
        except ValueError:
            fits = False
        if not fits:
            raise ValueError("must be 32 bytes in base64, for example from: openssl rand -base64 32")


CHECKS: dict[str, Callable[[Any], None]] = {
    "database.url": _server("postgresql", "postgres"),
    "redis.url": _server("redis", "rediss", "unix"),
    "auth.jwt_jwks_url": _https,
    "auth.jwt_secret": _long,
    "secrets.master_key": _master_keys,
}


def contradictions(config: Config) -> list[str]:
    """Return what is wrong with settings that are right by themselves."""
    auth = config.auth
    wrong = []
    if auth.development and not _is_loopback(config.api.host):
        why = "with auth.development, which asks nobody for credentials"
        wrong.append(f"api.host: must be a loopback address such as 127.0.0.1 {why} (it is {config.api.host!r})")
    given = [name for name in ("jwt_jwks_file", "jwt_jwks_url", "jwt_secret") if getattr(auth, name)]
    if "jwt_jwks_file" in given and "jwt_jwks_url" in given:
        wrong.append("auth.jwt_jwks_file: keys for tokens come from a file or from auth.jwt_jwks_url, not from both")
    if bool(given) != bool(auth.jwt_issuer) or bool(given) != bool(auth.jwt_audience):
        wrong.append(
            "auth.jwt_issuer: tokens need an issuer, an audience (auth.jwt_audience), and keys: auth.jwt_jwks_file,"
            " auth.jwt_jwks_url or auth.jwt_secret"
        )
    if bool(config.api.tls_certificate) != bool(config.api.tls_key):
        wrong.append("api.tls_certificate: a certificate and its key (api.tls_key) go together")
    if undone := loosened(config.database.url, config.database.ca_file):
        wrong.append(
            "database.ca_file: asks for sslmode=verify-full and that file, but database.url for " + " and ".join(undone)
        )
    if undone := loosened(config.redis.url, config.redis.ca_file):
        wrong.append("redis.ca_file: asks for a certificate of it, but redis.url for " + " and ".join(undone))
    if config.redis.ca_file and not config.redis.url.startswith("rediss://"):
        wrong.append("redis.ca_file: is for encrypted connections: redis.url must start with rediss://")
    return wrong


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""What the api role needs to know; plain values, each with a default that suits a development machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from scheduler.domain.access import Permission

if TYPE_CHECKING:
    from scheduler.store.envelope import MasterKeys  # takes long to import

MIB = 1024 * 1024


class TlsSettings(msgspec.Struct, frozen=True):
    """PEM files: the chain, the server's own certificate first, and its key."""

    certificate: str
    key: str


class JwtSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tokens are taken. Their keys come from a file, a URL, or one shared secret; times are in seconds."""

    issuer: str
    audience: str
    jwks_file: str = ""
    jwks_url: str = ""
    secret: str = ""
    leeway: float = 30.0
    refresh: float = 300.0
    role_claim: str = "dts_role"
    permissions_claim: str = "dts_permissions"
    namespaces_claim: str = "dts_namespaces"


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are in bytes, times in seconds.

    `max_pending` bounds the runs that wait (in all; a namespace may have a lower bound of its own): above it nothing
    more is taken. `idempotency_ttl` is how long the answer to a request with an Idempotency-Key is kept.
    `drain_timeout` is how long requests under way may take once the process was asked to stop.
    `development` lets everybody on this machine do everything without credentials, and listens to nobody else.
    What `open_to_all` names needs no credentials (such as `metrics:read`, for a scraper that has none).

    With `tls` the port speaks HTTPS and nothing else.

    `rate_limit` is how many requests a second one principal may send in one namespace, with `rate_burst` at once (0:
    as many as in a second); 0 is no limit. `require_if_match` refuses edits that do not say which version they mean.
    """

    tls: TlsSettings | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    development: bool = False
    open_to_all: frozenset[Permission] = frozenset()
    jwt: JwtSettings | None = None
    master_keys: MasterKeys | None = None
    max_body: int = 10 * MIB
    max_checkpoint: int = MIB
    max_batch: int = 10_000
    max_pending: int = 20_000_000
    body_timeout: float = 30.0
    drain_timeout: float = 5.0
    keep_alive: float = 75.0
    submit_connections: int = 2
    idempotency_ttl: float = 86400.0
    rate_limit: float = 0.0
    rate_burst: int = 0
    require_if_match: bool = False
    log_poll: float = 1.0
    event_poll: float = 1.0
    sse_keepalive: float = 15.0

"""Everything that handlers share, made once when the role starts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec

from scheduler.api.admission import Admission
from scheduler.api.credentials import Credentials, Tokens
from scheduler.api.denials import Denials
from scheduler.api.feed import Feed
from scheduler.api.gate import Gate
from scheduler.api.gauges import Gauges
from scheduler.api.offers import Offers, announce
from scheduler.api.settings import ApiSettings
from scheduler.api.tenancy import Tenancy
from scheduler.broker import Broker
from scheduler.domain.clock import Clock
from scheduler.domain.errors import NotFound
from scheduler.domain.ids import IdSource
from scheduler.health import Health
from scheduler.metrics import Metrics
from scheduler.store.audit import Audit
from scheduler.store.calendars import Calendars
from scheduler.store.changes import Changes
from scheduler.store.database import Database, Pinned
from scheduler.store.dead_letters import DeadLetters
from scheduler.store.events import Events
from scheduler.store.explain import Explain
from scheduler.store.intake import Intake
from scheduler.store.keys import Keys
from scheduler.store.namespaces import Namespaces
from scheduler.store.queues import Queues
from scheduler.store.runs import Runs
from scheduler.store.secrets import Secrets
from scheduler.store.tasks import Tasks
from scheduler.store.workflows import Workflows

if TYPE_CHECKING:
    from scheduler.api.jwks import KeySource

_T = TypeVar("_T")


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """`stopping` is set when the process was asked to stop: streams end, readiness fails."""

    settings: ApiSettings
    clock: Clock
    ids: IdSource
    database: Database
    broker: Broker
    intake: Intake
    tasks: Tasks
    runs: Runs
    dead_letters: DeadLetters
    calendars: Calendars
    workflows: Workflows
    queues: Queues
    explain: Explain
    events: Events
    offers: Offers
    admission: Admission
    namespaces: Namespaces
    audit: Audit
    secrets: Secrets
    denials: Denials
    tenancy: Tenancy
    keys: Keys
    credentials: Credentials
    token_keys: KeySource | None
    gate: Gate
    changes: Changes
    feed: Feed
    health: Health
    metrics: Metrics
    gauges: Gauges
    stopping: anyio.Event

    @classmethod
    def over(
        cls,
        database: Database,
        broker: Broker,
        clock: Clock,
        health: Health,
        settings: ApiSettings,
        *,
        stopping: anyio.Event,
        metrics: Metrics,
    ) -> Context:
        """Build the context over one database and one broker."""
        queues = Queues(database)
        namespaces = Namespaces(database)
        tenancy = Tenancy(namespaces, broker)
        keys = Keys(database)
        token_keys, tokens = _tokens(settings, clock)
        credentials = Credentials(keys, broker, clock, metrics, tokens)
        changes = Changes(database)
        offers = Offers(broker, clock)
        return cls(
            settings=settings,
            clock=clock,
            ids=IdSource(clock),
            database=database,
            broker=broker,
            intake=Intake(database, partial(announce, offers)),
            offers=offers,
            admission=Admission(queues, namespaces, tenancy, clock, settings, metrics),
            tenancy=tenancy,
            keys=keys,
            credentials=credentials,
            token_keys=token_keys,
            gate=Gate(credentials, tenancy, development=settings.development, open_to_all=settings.open_to_all),
            changes=changes,
            denials=Denials(database, clock),
            feed=Feed(changes, clock, poll=settings.event_poll, keepalive=settings.sse_keepalive),
            health=health,
            metrics=metrics,
            gauges=Gauges(metrics),
            stopping=stopping,
            **_readers(database),
        )

    def within(self, pinned: Pinned) -> Context:
        """Return a context whose every store works in one transaction, and whose offers wait for its commit."""
        offers = self.offers.within_transaction()
        return msgspec.structs.replace(
            self,
            database=pinned,
            intake=self.intake.within(pinned, partial(announce, offers)),
            offers=offers,
            **_readers(pinned),
        )


def _tokens(settings: ApiSettings, clock: Clock) -> tuple[KeySource | None, Tokens | None]:
    if settings.jwt is None:
        return None, None
    from scheduler.api.jwks import KeySource  # noqa: PLC0415 - cryptography takes long to import, and few need it
    from scheduler.api.jwts import Jwts  # noqa: PLC0415

    keys = KeySource(settings.jwt, clock)
    return keys, Jwts(settings.jwt, keys, clock)


def _readers(database: Database) -> dict[str, Any]:
    """Return every store that needs nothing but a database."""
    return {
        "tasks": Tasks(database),
        "namespaces": Namespaces(database),
        "audit": Audit(database),
        "secrets": Secrets(database),
        "runs": Runs(database),
        "dead_letters": DeadLetters(database),
        "calendars": Calendars(database),
        "workflows": Workflows(database),
        "queues": Queues(database),
        "explain": Explain(database),
        "events": Events(database),
    }


def found(value: _T | None, kind: str, key: object) -> _T:
    """Return what a look-up gave. Raises NotFound if that was nothing."""
    if value is None:
        raise NotFound(kind, key)
    return value

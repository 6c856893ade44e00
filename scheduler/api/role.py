"""The api role, composed: what it owns, in the order of its life.

bind → wait for the schema → group commit, offers, admission → serve until told to stop → drain → close
"""

from __future__ import annotations

from functools import partial
from typing import Final

import anyio
import anyio.abc

from scheduler.api.app import App
from scheduler.api.context import Context
from scheduler.api.listening import bind, serve_http
from scheduler.api.offers import REVIVED
from scheduler.api.settings import ApiSettings
from scheduler.api.tls import Certificate
from scheduler.broker import Broker
from scheduler.domain.clock import Clock
from scheduler.health import Health
from scheduler.metrics import Metrics
from scheduler.service import Service
from scheduler.store.database import Database
from scheduler.store.line import RETRIES
from scheduler.telemetry import get_logger

_CLOCK_READ_AGAIN: Final = 60.0  # seconds

_log = get_logger("api")


async def serve(
    *,
    database: Database,
    broker: Broker,
    clock: Clock,
    health: Health,
    stop: anyio.Event,
    settings: ApiSettings,
    task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Answer HTTP until `stop` is set. `task_status.started(port)` is called once connections are accepted.

    The database and the broker stay the caller's, who also runs `broker.run`. Raises NotLoopback, or OSError if the
    address is taken or the certificate cannot be used, before anything is started.
    """
    certificate = None if settings.tls is None else Certificate(settings.tls.certificate, settings.tls.key, health)
    listener = bind(settings.host, settings.port, development=settings.development)
    port: int = listener.getsockname()[1]
    context = Context.over(database, broker, clock, health, settings, stopping=stop, metrics=Metrics())
    app = App(context)
    async with Service("api", health=health) as service:
        # It goes on while the others drain: it is what ends their statements that nobody answers.
        service.loop("database", database.lookout.step, backoff=RETRIES, drains=False)
        for number in range(settings.submit_connections):
            service.start(f"intake-{number}", context.intake.run)
        context.offers.start(service)
        service.loop("clock", partial(follow_clock, context))
        service.loop("admission", context.admission.step, wake=context.admission.wake)
        service.loop("namespaces", context.tenancy.step, wake=context.tenancy.wake)
        if context.token_keys is not None:
            service.loop("token keys", context.token_keys.step, wake=context.token_keys.wake)
        service.loop("credentials", context.credentials.step, wake=context.credentials.wake)
        if certificate is not None:
            service.loop("certificate", certificate.step, wake=certificate.wake)
        service.loop("denials", context.denials.step, wake=context.denials.wake)
        service.start("events", follow_changes, context)
        # The socket listens already: who connects from now on is answered, at the latest when the loop turns.
        _log.info("listening", host=settings.host, port=port)
        task_status.started(port)
        await serve_http(app, listener, settings, stop, certificate)  # type: ignore[arg-type]  # hypercorn's scopes are typed dicts
        await service.drain(settings.drain_timeout)


async def follow_clock(context: Context) -> float:
    """Let ids carry PostgreSQL's time, even if our clock is wrong."""
    asked = context.clock.now()
    context.ids.follow(await context.changes.now(), asked=asked)
    return _CLOCK_READ_AGAIN


async def follow_changes(context: Context) -> None:
    """Run the feed of the event streams until the process is asked to stop; then send their clients home."""
    feed = context.feed
    listeners = [
        context.broker.listen("wake:control", lambda _: feed.wake.set(), feed.wake.set),
        context.broker.listen(REVIVED, feed.revived),
    ]
    try:
        async with anyio.create_task_group() as group:

            async def close() -> None:
                await context.stopping.wait()
                feed.close()
                group.cancel_scope.cancel()

            group.start_soon(close, name="events: stop")
            await feed.run(context.health)
    finally:
        for listener in listeners:
            context.broker.unlisten(listener)

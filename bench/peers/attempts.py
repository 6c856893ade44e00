"""One peer after another, none of which can hold up the rest: whatever keeps one from a figure becomes its reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from bench.peers.catalog import Peer
from bench.peers.environments import environment_of, version_of
from bench.question import Question

T = TypeVar("T")
_PATIENCE = 900.0  # seconds for one installation


async def installed(question: Question, peers: Sequence[Peer]) -> list[Peer]:
    """Return those of the chosen peers that can run here; each of the others is noted with the reason."""
    chosen = [peer for peer in peers if not question.bench.peers or peer.name in question.bench.peers]
    places = {peer.name: await attempt(question, peer, environment_of, patience=_PATIENCE) for peer in chosen}
    return [peer for peer in chosen if places[peer.name] is not None]


async def attempt(
    question: Question, peer: Peer, measure: Callable[[Peer], Awaitable[T]], *, patience: float
) -> T | None:
    """Return what `measure` finds within `patience` seconds; None if it finds nothing: then the reason is noted."""
    try:
        with anyio.fail_after(patience):
            return await measure(peer)
    except TimeoutError:
        reason = f"given up after {patience:.0f} s"
    except Exception as error:  # noqa: BLE001 - another system's failure, of whatever kind, is its own row's affair
        reason = f"{type(error).__name__}: {_innermost(error)}"
    question.note(f"{peer.name} {version_of(peer)}: no figure: {reason}")
    return None


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def describe(question: Question, peers: Sequence[Peer]) -> None:
    """Note how each peer was run, and what is known of its durability."""
    for peer in peers:
        question.note(f"{peer.name} {version_of(peer)}: {peer.settings}. {peer.durable}. {peer.loses}")

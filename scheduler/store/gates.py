"""Gates as PostgreSQL knows them: what waits behind them, what is under way, and the admission of runs.

An admission is one transaction: it holds the term, so that a deposed leader admits nothing, and the gates, so that no
other admission counts at the same time; only then it counts. Whatever else changes meanwhile only frees places: every
run behind a gate is queued here and nowhere else. What is counted before, to find out whose turn it is, holds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler.domain.gates import Contender, Gate, Head, Key, Rate, Standing, Verdicts, Waiting, Window
from scheduler.domain.run import Queued
from scheduler.store.database import Database, Executor
from scheduler.store.execution import queued_from, settle_onward
from scheduler.store.terms import fenced

_REASON = "concurrency"


class RateUse(msgspec.Struct, frozen=True):
    """How many places of a rate are taken, and in how many seconds the next one is free (None: it is not known)."""

    used: int
    free_in: float | None


class Admission(msgspec.Struct, frozen=True):
    """What an admission did. `requested`: (run, worker) that have to end."""

    queued: list[Queued]
    requested: list[tuple[UUID, UUID]]
    moved: bool


Position = tuple[str, str, int]
"""A lane, a gate and a priority: what waits is looked at in their order."""

Decide = Callable[[Sequence[Waiting], Standing], Verdicts]


class Gates:
    """Reads on any connection; `admit` writes, and raises TermLost once `epoch` has ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def heads(self, after: Position, limit: int) -> list[Head]:
        """Return the first of what waits at up to `limit` positions, in their order."""
        return [_head(row) for row in await self._database.fetch("waiting_heads", *after, limit)]

    async def queued(self, lanes: Collection[str]) -> dict[Window, int]:
        """Return how many runs with a fairness key stand queued in lanes."""
        return await _queued(self._database, lanes)

    async def standing(self, gates: Sequence[Gate]) -> tuple[Standing, float | None]:
        """Return what is under way behind gates, and the seconds until a rate has its next place.

        What would give way, and what stands queued, is left out.
        """
        rates = await _rates(self._database, _distinct(gate.rate for gate in gates))
        frees = [use.free_in for use in rates.values() if use.free_in is not None and use.free_in > 0]
        return await _standing(self._database, gates, rates), min(frees, default=None)

    async def active(self, key: Key) -> int:
        """Return how many runs of a concurrency key are queued or running."""
        return (await _counts(self._database, "count_active", [key]))[key]

    async def rate(self, rate: Rate) -> RateUse:
        """Return how much of a rate is taken."""
        return (await _rates(self._database, [rate]))[rate]

    async def admit(self, epoch: int, contenders: Sequence[Contender], decide: Decide) -> Admission:
        """Count, let `decide` say which runs of the contenders may go, and write that."""
        gates = {c.gate.gate: c.gate for c in contenders}
        async with fenced(self._database, epoch) as executor:
            await executor.execute("hold_gates")
            rates = await _rates(executor, _distinct(gate.rate for gate in gates.values()))
            standing = msgspec.structs.replace(
                await _standing(executor, list(gates.values()), rates),
                yielding=await _yielding(executor, gates.values()),
                queued=await _queued(executor, {c.run.lane for c in contenders if c.gate.fairness is not None}),
            )
            verdicts = decide(await _candidates(executor, contenders), standing)
            rows = (
                await executor.fetch("admit", sorted(run.id for run in verdicts.admitted)) if verdicts.admitted else []
            )
            requested, ended = await _give_way(executor, gates, verdicts)
        queued = [queued_from(row) for row in rows if row["run_id"] not in ended]
        return Admission(queued, requested, bool(rows or ended))


async def ensure_gates(executor: Executor, gates: Iterable[Gate]) -> None:
    """Store gates, for the leader to find."""
    rows = [msgspec.structs.astuple(gate) for gate in sorted(gates, key=lambda gate: gate.gate)]
    if rows:
        await executor.execute("insert_gates", *(list(column) for column in zip(*rows, strict=True)))


async def _standing(executor: Executor, gates: Sequence[Gate], rates: dict[Rate, RateUse]) -> Standing:
    return Standing(
        active=await _counts(executor, "count_active", _distinct(gate.concurrency for gate in gates)),
        yielding={},
        used={rate: use.used for rate, use in rates.items()},
        served=await _counts(executor, "count_served", _distinct(gate.fairness for gate in gates)),
        queued={},
    )


async def _yielding(executor: Executor, gates: Iterable[Gate]) -> dict[Key, list[UUID]]:
    keys = _distinct(gate.concurrency for gate in gates if gate.on_conflict == "cancel_running")
    if not keys:
        return {}
    rows = await executor.fetch("yielding_runs", [key[0] for key in keys], [key[1] for key in keys])
    return {(row["namespace"], row["key"]): row["runs"] for row in rows}


async def _queued(executor: Executor, lanes: Collection[str]) -> dict[Window, int]:
    if not lanes:
        return {}
    return {(row["lane"], row["priority"]): row["n"] for row in await executor.fetch("count_admitted", sorted(lanes))}


async def _counts(executor: Executor | Database, statement: str, keys: Sequence[Key]) -> dict[Key, int]:
    if not keys:
        return {}
    rows = await executor.fetch(statement, [key[0] for key in keys], [key[1] for key in keys])
    return {(row["namespace"], row["key"]): row["n"] for row in rows}


async def _rates(executor: Executor | Database, rates: Sequence[Rate]) -> dict[Rate, RateUse]:
    if not rates:
        return {}
    rows = await executor.fetch("count_starts", *(list(column) for column in zip(*rates, strict=True)))
    uses = {}
    for row in rows:
        used = row["queued"] + row["started"]
        full = used >= row["n"]
        uses[row["namespace"], row["key"], row["n"], row["per"]] = RateUse(used, row["free_in"] if full else None)
    return uses


async def _candidates(executor: Executor, contenders: Sequence[Contender]) -> list[Waiting]:
    """Return the runs that are looked at."""
    wanted = [(c.run.lane, c.run.gate, c.run.priority, c.places) for c in contenders]
    rows = await executor.fetch("waiting_runs", *(list(column) for column in zip(*wanted, strict=True)))
    return [_waiting(row) for row in rows]


async def _give_way(
    executor: Executor, gates: dict[str, Gate], verdicts: Verdicts
) -> tuple[list[tuple[UUID, UUID]], set[UUID]]:
    """Cancel what has to give way, and settle what depends on it; return workers to tell, and the runs that ended."""
    losers: dict[str, set[UUID]] = {}
    for run in verdicts.cancelled:
        losers.setdefault(gates[run.gate].namespace, set()).add(run.id)
    for (namespace, _), run_ids in verdicts.make_way.items():
        losers.setdefault(namespace, set()).update(run_ids)
    rows = []
    for namespace in sorted(losers):
        rows += await executor.fetch("cancel_runs", sorted(losers[namespace]), namespace, [], _REASON, None)
    requested = [(row["run_id"], row["worker_id"]) for row in rows if row["kind"] == "requested"]
    ended = {row["run_id"] for row in rows if row["kind"] == "cancelled"}
    await settle_onward(executor, rows, ())
    return requested, ended


def _distinct(keys: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(key for key in keys if key is not None))


def _head(row: Any) -> Head:
    return Head(_waiting(row), Gate(**{field: row[field] for field in Gate.__struct_fields__}), row["due_in"])


def _waiting(row: Any) -> Waiting:
    return Waiting(**{field: row[field] for field in Waiting.__struct_fields__})

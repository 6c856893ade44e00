"""Gates as PostgreSQL knows them: what waits behind them, what is under way, and the admission of runs.

An admission is one transaction: it holds the term, so that a deposed leader admits nothing, and the gates, so that no
other admission counts at the same time; only then it counts. Whatever else changes meanwhile only frees places: every
run behind a gate is queued here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler.domain.gates import Gate, Key, Rate, Standing, Verdicts, Waiting
from scheduler.domain.run import Queued
from scheduler.store.database import Database, Executor
from scheduler.store.execution import Settled, queued_from, settle_onward
from scheduler.store.terms import fenced

_REASON = "concurrency"


class WaitingGate(msgspec.Struct, frozen=True):
    """A gate behind which runs of a lane wait."""

    lane: str
    gate: Gate


class RateUse(msgspec.Struct, frozen=True):
    """How many places of a rate are taken, and in how many seconds the next one is free (None: it is not known)."""

    used: int
    free_in: float | None


class Admission(msgspec.Struct, frozen=True):
    """What an admission did. `requested`: (run, worker) that have to end; `next_in`: seconds until more may go."""

    queued: list[Queued]
    requested: list[tuple[UUID, UUID]]
    settled: Settled
    moved: bool
    crowded: bool
    next_in: float | None


Places = Callable[[WaitingGate, Standing], Sequence[int]]
"""Returns how many runs of each priority of a gate are worth looking at."""

Decide = Callable[[Sequence[Waiting], Standing], Verdicts]


class Gates:
    """Reads on any connection; `admit` writes, and raises TermLost once `epoch` has ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self, after: tuple[str, str], limit: int) -> list[WaitingGate]:
        """Return up to `limit` gates behind which runs wait, after a (lane, gate)."""
        rows = await self._database.fetch("waiting_gates", *after, limit)
        return [WaitingGate(row["lane"], _gate(row)) for row in rows]

    async def active(self, key: Key) -> int:
        """Return how many runs of a concurrency key are queued or running."""
        return (await _counts(self._database, "count_active", [key]))[key]

    async def rate(self, rate: Rate) -> RateUse:
        """Return how much of a rate is taken."""
        return (await _rates(self._database, [rate]))[rate]

    async def admit(self, epoch: int, waiting: Sequence[WaitingGate], places: Places, decide: Decide) -> Admission:
        """Count, let `decide` say what may go, and write that. `places`: how many runs of a gate are looked at."""
        gates = {w.gate.gate: w.gate for w in waiting}
        async with fenced(self._database, epoch) as executor:
            await executor.execute("hold_gates")
            rates = await _rates(executor, _distinct(gate.rate for gate in gates.values()))
            standing = await _standing(executor, waiting, rates)
            wanted = [
                (w.lane, w.gate.gate, priority, count)
                for w in waiting
                for priority, count in enumerate(places(w, standing))
                if count > 0
            ]
            due, next_in = await _candidates(executor, wanted)
            verdicts = decide(due, standing)
            rows = (
                await executor.fetch("admit", sorted(run.id for run in verdicts.admitted)) if verdicts.admitted else []
            )
            requested, settled, ended = await _give_way(executor, gates, verdicts)
        queued = [queued_from(row) for row in rows if row["run_id"] not in ended]
        frees = [use.free_in for use in rates.values() if use.free_in is not None and use.free_in > 0]
        soonest = min((seconds for seconds in (next_in, *frees) if seconds is not None), default=None)
        return Admission(queued, requested, settled, bool(rows or ended), verdicts.crowded, soonest)


async def ensure_gates(executor: Executor, gates: Iterable[Gate]) -> None:
    """Store gates, for the leader to find."""
    rows = [msgspec.structs.astuple(gate) for gate in sorted(gates, key=lambda gate: gate.gate)]
    if rows:
        await executor.execute("insert_gates", *(list(column) for column in zip(*rows, strict=True)))


async def _standing(executor: Executor, waiting: Sequence[WaitingGate], rates: dict[Rate, RateUse]) -> Standing:
    return Standing(
        active=await _counts(executor, "count_active", _distinct(w.gate.concurrency for w in waiting)),
        yielding=await _yielding(
            executor, _distinct(w.gate.concurrency for w in waiting if w.gate.on_conflict == "cancel_running")
        ),
        used={rate: use.used for rate, use in rates.items()},
        served=await _counts(executor, "count_served", _distinct(w.gate.fairness for w in waiting)),
        queued=await _queued(executor, {w.lane for w in waiting if w.gate.fairness is not None}),
    )


async def _yielding(executor: Executor, keys: Sequence[Key]) -> dict[Key, list[UUID]]:
    if not keys:
        return {}
    rows = await executor.fetch("yielding_runs", [key[0] for key in keys], [key[1] for key in keys])
    return {(row["namespace"], row["key"]): row["runs"] for row in rows}


async def _queued(executor: Executor, lanes: set[str]) -> dict[tuple[str, int], int]:
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


async def _candidates(
    executor: Executor, wanted: Sequence[tuple[str, str, int, int]]
) -> tuple[list[Waiting], float | None]:
    """Return the runs that are due, and the seconds until the first of the others is."""
    if not wanted:
        return [], None
    rows = await executor.fetch("waiting_runs", *(list(column) for column in zip(*wanted, strict=True)))
    due = [
        Waiting(id=row["id"], lane=row["lane"], gate=row["gate"], priority=row["priority"], run_at=row["run_at"])
        for row in rows
        if row["due_in"] <= 0
    ]
    return due, min((row["due_in"] for row in rows if row["due_in"] > 0), default=None)


async def _give_way(
    executor: Executor, gates: dict[str, Gate], verdicts: Verdicts
) -> tuple[list[tuple[UUID, UUID]], Settled, set[UUID]]:
    """Cancel what has to give way; return workers to tell, dependents that moved, and the runs that ended."""
    losers: dict[str, set[UUID]] = {}
    for run in verdicts.cancelled:
        losers.setdefault(gates[run.gate].namespace, set()).add(run.id)
    for (namespace, _), run_ids in verdicts.make_way.items():
        losers.setdefault(namespace, set()).update(run_ids)
    rows = []
    for namespace in sorted(losers):
        rows += await executor.fetch("cancel_runs", sorted(losers[namespace]), namespace, [], _REASON)
    requested = [(row["run_id"], row["worker_id"]) for row in rows if row["kind"] == "requested"]
    ended = {row["run_id"] for row in rows if row["kind"] == "cancelled"}
    return requested, await settle_onward(executor, rows, ()), ended


def _distinct(keys: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(key for key in keys if key is not None))


def _gate(row: Any) -> Gate:
    return Gate(**{field: row[field] for field in Gate.__struct_fields__})

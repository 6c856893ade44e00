"""Gates: what runs share by a key, and which of those that wait there may go now. A pure decision of the leader.

A run is behind a gate if its task has a `concurrency` rule, a `rate_limit` or a `fairness_key`. Such a run is queued by
the leader alone, never on a fast path. Runs with the same rules of one namespace stand behind the same gate; gates that
share a key count together, and each obeys its own number.

Urgent runs go first. Among runs of the same priority, the fairness key with the fewest runs under way goes first (runs
without one count none), then the older run. A run that its gate stops never stops another gate.

There may be far more gates than can be decided about at once. So of all that waits only the first runs are looked at
(`contend`), and those whose turn it is are chosen by these alone (`in_turn`); about them and what follows them behind
their gates it is decided (`admit`).
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from scheduler.domain.durations import seconds_of
from scheduler.domain.task import TaskSpec

FAIR_WINDOW = 128
"""Most runs with a fairness key that stand queued in a lane and priority, so that another key has its turn soon.

Runs behind other gates are not counted: with many of those in its lane, no key would have a turn.
"""

OnConflict = Literal["queue", "cancel_newest", "cancel_running"]

Key = tuple[str, str]
"""A namespace and a key in it."""

Rate = tuple[str, str, int, float]
"""A namespace, a key in it, and how many starts in how many seconds."""

Window = tuple[str, int]
"""A lane and a priority in it: only so many runs of the same stand queued."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one namespace that some runs are under."""

    gate: str
    namespace: str
    concurrency_key: str | None = None
    max_runs: int | None = None
    on_conflict: OnConflict | None = None
    rate_key: str | None = None
    rate_n: int | None = None
    rate_per: float | None = None
    fairness_key: str | None = None

    @property
    def concurrency(self) -> Key | None:
        """What its runs count under while they are queued or running."""
        return None if self.concurrency_key is None else (self.namespace, self.concurrency_key)

    @property
    def rate(self) -> Rate | None:
        """What its runs' starts count under."""
        if self.rate_key is None or self.rate_n is None or self.rate_per is None:
            return None
        return (self.namespace, self.rate_key, self.rate_n, self.rate_per)

    @property
    def fairness(self) -> Key | None:
        """Whom its runs are for."""
        return None if self.fairness_key is None else (self.namespace, self.fairness_key)

    @property
    def waits(self) -> bool:
        """Whether a run that finds no place waits for one; else it ends, or another one does."""
        return self.on_conflict in (None, "queue")


class Waiting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A run that is due and waits behind a gate."""

    id: UUID
    lane: str
    gate: str
    priority: int
    run_at: datetime

    @property
    def window(self) -> Window:
        """Where it will stand queued."""
        return self.lane, self.priority


class Head(msgspec.Struct, frozen=True, gc=False):
    """The first of the runs of a lane and a priority that wait behind a gate, and in how many seconds it is due."""

    run: Waiting
    gate: Gate
    due_in: float


class Contender(msgspec.Struct, frozen=True, gc=False):
    """The first of such runs, how many of them are worth looking at, and how many its fairness key has under way."""

    run: Waiting
    gate: Gate
    places: int
    served: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is under way, as PostgreSQL counts it.

    `active`: queued and running runs of each concurrency key. `used`: places of each rate that starts in its time, and
    runs that are queued to start, have taken. `served`: queued and running runs of each fairness key. `queued`: runs
    with a fairness key that stand queued in each lane and priority. `yielding`: the active runs of each concurrency key
    for which runs may be cancelled, without those that were asked to end.
    """

    active: Mapping[Key, int]
    yielding: Mapping[Key, Sequence[UUID]]
    used: Mapping[Rate, int]
    served: Mapping[Key, int]
    queued: Mapping[Window, int]


class Verdicts(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of waiting runs.

    `admitted` are to be queued, in this order; `cancelled` end at once: no place was free. `make_way`: the active runs
    of a key that have to end for those that wait.
    """

    admitted: list[Waiting]
    cancelled: list[Waiting]
    make_way: dict[Key, list[UUID]]


def gate_of(namespace: str, spec: TaskSpec) -> Gate | None:
    """Return the gate that runs of a normalised task stand behind, None for plain ones."""
    concurrency, rate = spec.concurrency, spec.rate_limit
    if concurrency is None and rate is None and spec.fairness_key is None:
        return None
    rules = Gate(
        gate="",
        namespace=namespace,
        concurrency_key=None if concurrency is None else concurrency.key,
        max_runs=None if concurrency is None else concurrency.max_runs,
        on_conflict=None if concurrency is None else concurrency.on_conflict,
        rate_key=None if rate is None else rate.key,
        rate_n=None if rate is None else rate.n,
        rate_per=None if rate is None else seconds_of(rate.per),
        fairness_key=spec.fairness_key,
    )
    return msgspec.structs.replace(rules, gate=hashlib.sha256(msgspec.json.encode(rules)).hexdigest()[:24])


def gate_name(namespace: str, spec: TaskSpec) -> str | None:
    """Return the name of that gate."""
    gate = gate_of(namespace, spec)
    return None if gate is None else gate.gate


def room_for(run: Waiting, gate: Gate, queued: Mapping[Window, int], rooms: Mapping[Window, int]) -> int:
    """Return how many such runs can be queued; `queued` is that of `Standing`, `rooms` what `admit` takes."""
    room = rooms.get(run.window, 0)
    return room if gate.fairness is None else min(room, FAIR_WINDOW - queued.get(run.window, 0))


def contend(heads: Iterable[Head], standing: Standing, most: int) -> list[Contender]:
    """Return those of the heads, all of them due, whose gates do not stop them; `most` runs of each are looked at."""
    contenders = []
    for head in heads:
        gate, places = head.gate, most
        if gate.waits and gate.concurrency is not None and gate.max_runs is not None:
            places = min(places, gate.max_runs - standing.active[gate.concurrency])
        if gate.waits and gate.rate is not None:
            places = min(places, gate.rate[2] - standing.used[gate.rate])
        served = 0
        if gate.fairness is not None:
            places, served = min(places, FAIR_WINDOW), standing.served[gate.fairness]
        if places > 0:
            contenders.append(Contender(head.run, gate, places, served))
    return contenders


def in_turn(
    contenders: Sequence[Contender], queued: Mapping[Window, int], rooms: Mapping[Window, int]
) -> list[Contender]:
    """Return the contenders in the order in which they have their turn, without those that will have none.

    Those that wait with a fairness key have no more places than the key comes to if no key runs out of runs: so it is
    decided about no more of their runs than there is room for, however many contend.
    """
    shares = _shares(contenders, queued, rooms)
    chosen = []
    for contender in contenders:
        key, places = contender.gate.fairness, contender.places
        if key is not None and contender.gate.waits:
            places = min(places, shares.get((key, contender.run.window), 0))
        if places > 0:
            chosen.append(msgspec.structs.replace(contender, places=places))
    return sorted(chosen, key=lambda c: (-c.run.priority, c.served, c.run.run_at, c.run.id))


def _shares(
    contenders: Sequence[Contender], queued: Mapping[Window, int], rooms: Mapping[Window, int]
) -> Mapping[tuple[Key, Window], int]:
    """Return how many runs each fairness key comes to in each window, if none runs out of runs."""
    served: dict[Key, int] = {}
    left: dict[Window, int] = {}
    by_priority: dict[int, dict[Key, list[Waiting]]] = defaultdict(lambda: defaultdict(list))
    for contender in sorted(contenders, key=lambda c: (c.run.run_at, c.run.id)):
        key, run = contender.gate.fairness, contender.run
        if key is not None and contender.gate.waits:
            served[key] = contender.served
            left[run.window] = room_for(run, contender.gate, queued, rooms)
            by_priority[run.priority][key].append(run)
    shares: dict[tuple[Key, Window], int] = defaultdict(int)
    for priority in sorted(by_priority, reverse=True):
        lines = by_priority[priority]
        turns = [(served[key], line[0].run_at, line[0].id, key) for key, line in lines.items()]
        heapq.heapify(turns)
        while turns:
            count, _, _, key = heapq.heappop(turns)
            first = next((run for run in lines[key] if left[run.window] > 0), None)
            if first is None:
                # For the less urgent ones, only those count that are known of.
                served[key] = min(count, served[key] + len(lines[key]))
            else:
                left[first.window] -= 1
                shares[key, first.window] += 1
                heapq.heappush(turns, (count + 1, first.run_at, first.id, key))
    return shares


def admit(
    waiting: Iterable[Waiting],
    gates: Mapping[str, Gate],
    standing: Standing,
    rooms: Mapping[Window, int],
) -> Verdicts:
    """Decide about runs that are due. `rooms` are the free places of each lane and priority; others have none."""
    return _Decision(gates, standing, rooms).about(waiting)


class _Decision:
    """One decision under way: what is left of every number."""

    def __init__(self, gates: Mapping[str, Gate], standing: Standing, rooms: Mapping[Window, int]) -> None:
        self._gates = gates
        self._active = dict(standing.active)
        self._yielding = standing.yielding
        self._used = dict(standing.used)
        self._served = defaultdict(int, standing.served)
        self._queued = defaultdict(int, standing.queued)
        self._rooms = dict(rooms)
        self._rates: dict[Key, list[Rate]] = defaultdict(list)
        for rate in self._used:
            self._rates[rate[0], rate[1]].append(rate)
        self._admitted: list[Waiting] = []

    def about(self, waiting: Iterable[Waiting]) -> Verdicts:
        """See `admit`."""
        by_priority: dict[int, list[Waiting]] = defaultdict(list)
        for run in waiting:
            by_priority[run.priority].append(run)
        refused: list[Waiting] = []
        for priority in sorted(by_priority, reverse=True):
            refused += self._in_turn(by_priority[priority])
        cancelled, make_way = self._conflicts(refused)
        return Verdicts(admitted=self._admitted, cancelled=cancelled, make_way=make_way)

    def _in_turn(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        """Admit runs of one priority, whose turn it is first; return those that are not admitted."""
        lines: dict[Key | None, list[Waiting]] = defaultdict(list)
        for run in sorted(waiting, key=lambda run: (run.run_at, run.id), reverse=True):
            lines[self._gates[run.gate].fairness].append(run)
        refused = []
        turns = [self._turn(key, line) for key, line in lines.items()]
        heapq.heapify(turns)
        while turns:
            key = heapq.heappop(turns)[-1]
            line = lines[key]
            run = line.pop()
            if not self._take(run):
                refused.append(run)
            if line:
                heapq.heappush(turns, self._turn(key, line))
        return refused

    def _turn(self, key: Key | None, line: Sequence[Waiting]) -> tuple[int, datetime, UUID, Key | None]:
        """Return what orders the lines; the id is no other line's, so keys are never compared."""
        return 0 if key is None else self._served[key], line[-1].run_at, line[-1].id, key

    def _take(self, run: Waiting) -> bool:
        """Take every place that a run needs, or none."""
        gate = self._gates[run.gate]
        if self._full(gate) or room_for(run, gate, self._queued, self._rooms) <= 0:
            return False
        self._rooms[run.window] -= 1
        if gate.concurrency is not None:
            self._active[gate.concurrency] = self._active.get(gate.concurrency, 0) + 1
        if gate.rate is not None:
            for rate in self._rates[gate.rate[0], gate.rate[1]]:
                self._used[rate] += 1
        if gate.fairness is not None:
            self._queued[run.window] += 1
            self._served[gate.fairness] += 1
        self._admitted.append(run)
        return True

    def _full(self, gate: Gate) -> bool:
        if gate.concurrency is not None and self._active.get(gate.concurrency, 0) >= (gate.max_runs or 0):
            return True
        return gate.rate is not None and self._used.get(gate.rate, gate.rate[2]) >= gate.rate[2]

    def _conflicts(self, refused: Sequence[Waiting]) -> tuple[list[Waiting], dict[Key, list[UUID]]]:
        """Say who gives way where a key is full and its rule is not to wait."""
        cancelled: list[Waiting] = []
        urging: dict[Key, list[Waiting]] = defaultdict(list)
        most: dict[Key, int] = {}
        for run in refused:
            gate = self._gates[run.gate]
            if gate.concurrency is None or gate.max_runs is None or gate.on_conflict == "queue":
                continue
            if self._active.get(gate.concurrency, 0) < gate.max_runs:
                continue  # it waits for something else
            if gate.on_conflict == "cancel_newest":
                cancelled.append(run)
            else:
                urging[gate.concurrency].append(run)
                most[gate.concurrency] = min(gate.max_runs, most.get(gate.concurrency, gate.max_runs))
        make_way: dict[Key, list[UUID]] = {}
        for key, runs in urging.items():
            # Only the newest of all are wanted: one that waits for its retry is older than what began meanwhile.
            active = {*self._yielding.get(key, ()), *(r.id for r in self._admitted if self._key(r) == key)}
            newest = set(heapq.nlargest(most[key], active | {run.id for run in runs}))
            cancelled += sorted((run for run in runs if run.id not in newest), key=lambda run: run.id)
            make_way[key] = sorted(active - newest)
        return cancelled, make_way

    def _key(self, run: Waiting) -> Key | None:
        return self._gates[run.gate].concurrency

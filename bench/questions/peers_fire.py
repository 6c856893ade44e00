"""How late schedules fire beside Debian's cron and systemd's timers: 20 due at the same second of every minute.

The three run side by side for the same minutes, each due at a second of its own, 20 seconds apart: they wait on the
same quiet machine without being in each other's way. What fires is the little program of `submit_to_start`, whose first
act is to print the time; the lag is from the second at which it was due until that moment, for each of 20 entries in
each minute. cron and systemd start a process and forget it; this system commits each fire as a run, durably, before it
is dispatched, and its outcome after.

cron looks at its table once a minute, after a sleep that it rounds up; `systemd` runs with `AccuracySec=1us`, since its
default would let it be a minute late on purpose. Every entry must have fired in every minute, and no more often.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio

from bench import bodies
from bench.model import Against, Sample, percentile
from bench.peers.running import PeerFailed
from bench.peers.timers import CRON_VERSION, start_cron, start_timers, systemd_version
from bench.question import Question
from bench.questions.peers_bulk import OURS
from bench.system import System, Unfinished

ENTRIES = 20
_SECONDS = {"cron": 0, "systemd": 20, OURS: 40}
_SHARES = (0.5, 0.99)


class PeersFire(Question):
    """Waits for whole minutes."""

    name = "peers_fire"
    title = f"Peers, fire lag: {ENTRIES} entries due at the same second"

    async def ask(self) -> list[Sample]:
        """Let all of them fire for some minutes."""
        minutes = 1 if self.bench.quick else 3
        program = await self.bench.programs.build("stamp")
        if program is None:
            raise Unfinished("needs a C compiler: a shell's start is slower than what is measured")
        self.note(f"cron {CRON_VERSION} of Debian, systemd {await systemd_version()} as a user's manager")
        async with AsyncExitStack() as stack:
            system = await stack.enter_async_context(self.bench.system())
            outs = {}
            for name, starting in (
                ("cron", start_cron(self.bench.fresh_directory(), program, ENTRIES)),
                ("systemd", start_timers(self.bench.fresh_directory(), program, ENTRIES, second=_SECONDS["systemd"])),
            ):
                try:
                    outs[name] = await stack.enter_async_context(starting)
                except Exception as error:  # noqa: BLE001 - another system's failure is its own row's affair
                    self.note(f"{name}: no figure: {error}")
            schedule = f"{_SECONDS[OURS]} * * * * *"
            tasks = [bodies.task(f"fire-{n}", [str(program)], schedule=schedule) for n in range(ENTRIES)]
            await system.post("/api/tasks/batch", bodies.batches(tasks, ENTRIES))
            begin = next_minute(time.time())
            await anyio.sleep(begin + 60 * minutes - 5 - time.time())
            stamps = {name: _stamps(path) for name, path in outs.items()}
            stamps[OURS] = await _fired(system)
        by_name = {}
        for name, found in stamps.items():
            try:
                by_name[name] = lags(found, _SECONDS[name], begin, minutes)
            except PeerFailed as error:
                if name == OURS:
                    raise
                self.note(f"{name}: no figure: {error}")
        own = {share: percentile(by_name[OURS], share) for share in _SHARES}
        return [
            Sample(
                name=f"{name}, p{share:.0%}".removesuffix("%"),
                value=percentile(by_name[name], share),
                unit="ms",
                better="lower",
                against=None if name == OURS else Against(OURS, own[share]),
            )
            for name in (OURS, *outs)
            if name in by_name
            for share in _SHARES
        ]


def next_minute(now: float) -> float:
    """Return the next whole minute that everybody is sure to be ready for."""
    return (now + 10) // 60 * 60 + 60


def _stamps(path: Path) -> list[float]:
    return [float(line) for line in path.read_text().split()]


async def _fired(system: System) -> list[float]:
    rows: list[Any] = await system.database.fetch("SELECT output_tail FROM runs WHERE state = 'completed'")
    return [float(row["output_tail"]) for row in rows]


def lags(stamps: Sequence[float], second: int, begin: float, minutes: int) -> list[float]:
    """Return milliseconds of lag; raises PeerFailed unless each minute from `begin` on has all its fires."""
    found = []
    for minute in range(minutes):
        due = begin + 60 * minute + second
        within = [stamp - due for stamp in stamps if due <= stamp < due + 60]
        if len(within) != ENTRIES:
            raise PeerFailed(f"{len(within)} of {ENTRIES} fires in minute {minute + 1}")
        found += [lag * 1000 for lag in within]
    return found

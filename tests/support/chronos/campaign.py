"""One campaign: schedules and submissions go on while faults come and go; then all is healed, and read once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import psutil

from tests.support.chronos.checker import Report, check
from tests.support.chronos.history import Attempt, Execution, Fire, History, Planned, Run
from tests.support.chronos.kinds import KINDS
from tests.support.chronos.plan import Strike, schedules, strikes
from tests.support.chronos.stamps import read_stamps, stamping
from tests.support.cluster import Cluster
from tests.support.cluster.faults import Fault, restart

Say = Callable[[str], None]


class Campaign:
    """A campaign on a running system. Everything random comes from `seed`."""

    def __init__(self, cluster: Cluster, *, seed: int, seconds: float, lease: float, tasks: int, say: Say) -> None:
        self._cluster = cluster
        self._say = say
        self._stamps = cluster.home / "stamps"
        self._stamps.mkdir()
        self._stamps.chmod(0o777)
        self._began = time.time()
        self._planned = schedules(seed, count=tasks, begin=int(self._began) + 2, seconds=seconds)
        names = [member.name for member in cluster.members]
        self._strikes = strikes(seed, seconds=seconds, members=names, lease=lease)
        self._ids: dict[str, str] = {}
        self._submissions = _Submissions(cluster, self._stamps)
        self._excepted: list[tuple[float, float]] = []

    def run(self) -> Report:
        for planned in self._planned:
            self._create(planned)
        with self._submissions:
            self._strike()
        for member in self._cluster.members:
            restart(member)
        self._cluster.until_ready(60)
        self._settle()
        return check(self._read(), forgiveness=max((s.until - s.at for s in self._strikes), default=0) + 10)

    def _create(self, planned: Planned) -> None:
        half = planned.every / 2
        created = self._cluster.submit(
            stamping(self._stamps, planned.duration),
            name=planned.name,
            schedule=f"*/{planned.every} * * * * *",
            starts_at=_time(planned.start - half),
            ends_at=_time(planned.fires()[-1] + half),
            catchup="all",
            overlap="allow_all",
        )
        self._ids[created["id"]] = planned.name

    def _strike(self) -> None:
        events: list[tuple[float, bool, Strike]] = []
        for strike in self._strikes:
            events += [(strike.at, True, strike), (strike.until, False, strike)]
        faults: dict[Strike, Fault] = {}
        began = time.monotonic()
        for moment, injecting, strike in sorted(events, key=lambda event: event[:2]):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            if injecting:
                fault = faults[strike] = KINDS[strike.kind].make(self._cluster, strike.args)
                self._say(f"{time.monotonic() - began:7.2f}  + {fault}")
                if fault.excepted:
                    self._excepted.append((time.time(), time.time() + strike.until - strike.at + 30))
                with contextlib.suppress(LookupError, OSError, psutil.Error, AttributeError):
                    fault.inject()
            else:
                self._say(f"{time.monotonic() - began:7.2f}  - {faults[strike]}")
                faults[strike].heal()

    def _settle(self) -> None:
        last = max(planned.fires()[-1] for planned in self._planned)
        time.sleep(max(0.0, last + 1 - time.time()))
        self._cluster.until_quiet(90)

    def _read(self) -> History:
        cluster, names = self._cluster, self._ids
        once = [*self._submissions.acknowledged]
        runs = [
            Run(
                str(row["id"]),
                names.get(str(row["task_id"]), "once"),
                None if row["scheduled_for"] is None else round(row["scheduled_for"].timestamp()),
                row["state"],
                row["reason"],
                row["losses"],
            )
            for row in cluster.sql("SELECT * FROM runs")
        ]
        fires = [
            Fire(
                names.get(str(row["task_id"]), "?"),
                round(row["scheduled_for"].timestamp()),
                row["disposition"],
                None if row["run_id"] is None else str(row["run_id"]),
                row["count"],
            )
            for row in cluster.sql("SELECT * FROM fires")
        ]
        attempts = [
            Attempt(str(row["run_id"]), row["attempt"], row["fence"], row["outcome"], row["reason"])
            for row in cluster.sql("SELECT * FROM attempts")
        ]
        return History(self._planned, once, fires, runs, attempts, self._executions())

    def _executions(self) -> list[Execution]:
        return [
            _excepted(execution, self._excepted) if execution.shared else execution
            for execution in read_stamps(self._stamps)
        ]


def _excepted(execution: Execution, spans: Sequence[tuple[float, float]]) -> Execution:
    inside = any(begin <= execution.begin <= end for begin, end in spans)
    return msgspec.structs.replace(execution, excepted=inside)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class _Submissions:
    """One-off tasks, submitted one after the other for as long as the block lasts."""

    def __init__(self, cluster: Cluster, stamps: Path) -> None:
        self.acknowledged: list[str] = []
        self._cluster = cluster
        self._stamps = stamps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._submit)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _submit(self) -> None:
        body: dict[str, Any] = {"name": "once", "command": stamping(self._stamps, 0.05)}
        with httpx2.Client(timeout=5) as client:
            while not self._stop.wait(0.3):
                # Refused or without an answer: nothing was promised.
                with contextlib.suppress(httpx2.HTTPError):
                    answer = client.post(f"{self._cluster.url()}/api/tasks", json=body)
                    if answer.status_code == 201:
                        self.acknowledged.append(answer.json()["last_run"]["id"])

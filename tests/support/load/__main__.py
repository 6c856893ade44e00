"""`python -m tests.support.load --minutes 30`: most of what the system can do, for long, with faults.

First the highest rate is measured, then 70 % of it is submitted while a fault strikes every half minute. In the end
everything acknowledged must have completed once, no two executions of a run may have overlapped, and no role may grow
by more than 1 MB a minute after its first two minutes (a quarter of a shorter run). A line for each of these says
whether it held; the exit code is 1 if one did not. `--help` lists what can be chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from datetime import datetime
from pathlib import Path
from random import Random
from uuid import UUID

import msgspec

from tests.support.chronos.checker import Report, check
from tests.support.chronos.history import Attempt, History, Run
from tests.support.chronos.kinds import KINDS
from tests.support.chronos.stamps import read_stamps
from tests.support.cluster import Cluster, cluster
from tests.support.cluster.faults import restart
from tests.support.load.feeding import Feeder
from tests.support.load.memory import Memory
from tests.support.servers import session_servers
from tests.system.faults.support import reachable_directory

_SLOPE = 1.0
_EXCEPTED = {"kill guard and worker", "freeze everything"}
"""Kinds after which two executions may overlap, as the promises say."""


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.support.load")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--share", type=float, default=0.7, help="of the measured maximum")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease", type=float, default=15.0)
    parser.add_argument("--lock-ttl", type=float, default=5.0)
    parser.add_argument("--measure", type=float, default=10.0, help="seconds for finding the maximum")
    parser.add_argument("--rate", type=float, help="tasks a second, instead of a share of the measured maximum")
    parser.add_argument("--every", type=float, default=30.0, help="seconds from fault to fault; 0 for none")
    parser.add_argument("--samples", type=Path, help="file for what was seen of memory: seconds,process,pid,megabytes")
    chosen = parser.parse_args()
    with (
        session_servers() as servers,
        reachable_directory() as home,
        cluster(
            servers,
            home,
            apis=2,
            schedulers=2,
            workers=2,
            lease=chosen.lease,
            lock_ttl=chosen.lock_ttl,
            network="relay",
            worker__concurrency=16,
        ) as system,
    ):
        stamps = home / "stamps"
        stamps.mkdir()
        stamps.chmod(0o777)
        return _Run(system, stamps, chosen).run()


class Point(msgspec.Struct, frozen=True):
    """One of the things that are judged in the end."""

    promise: str
    seen: str
    held: bool


class _Run:
    def __init__(self, system: Cluster, stamps: Path, chosen: argparse.Namespace) -> None:
        self._system = system
        self._stamps = stamps
        self._chosen = chosen
        self._seconds = chosen.minutes * 60
        self._since: datetime
        self._memory = Memory(warm_up=min(120.0, self._seconds * 0.25), least=min(300.0, self._seconds * 0.3))

    def run(self) -> int:
        rate = self._chosen.rate or self._maximum() * self._chosen.share
        say(f"{rate:.0f} tasks/s for {self._chosen.minutes:g} minutes")
        self._since = self._system.sql("SELECT now()")[0][0]
        feeder = Feeder(self._some_api, rate, self._stamps)
        with feeder:
            self._strike()
        for member in self._system.members:
            restart(member)
        self._system.until_ready(60)
        began = time.monotonic()
        self._system.until_quiet(300)
        say(f"all done {time.monotonic() - began:.1f} s after the last fault")
        return self._judge(feeder)

    def _some_api(self) -> str:
        """Return an API that lives, as a load balancer would."""
        apis = self._system.of("api")
        return self._system.url(next((api for api in apis if api.alive), apis[0]))

    def _maximum(self) -> float:
        """Return how many tasks a second complete while there always are some to do."""

        def completed() -> int:
            return self._system.sql("SELECT count(*) FROM attempts WHERE outcome = 'completed'")[0][0]

        feeder = Feeder(
            self._some_api, 20000, self._stamps, ahead=lambda: len(feeder.acknowledged) - completed() < 3000
        )
        with feeder:
            time.sleep(3)
            began, before = time.monotonic(), completed()
            time.sleep(self._chosen.measure)
            rate = (completed() - before) / (time.monotonic() - began)
        self._system.until_quiet(120)
        return rate

    def _strike(self) -> None:
        random = Random(f"load {self._chosen.seed}")
        kinds = [kind for name, kind in KINDS.items() if name not in _EXCEPTED]
        spared = {self._system.of(role)[-1].name for role in ("api", "scheduler", "worker")}
        names = [member.name for member in self._system.members if member.name not in spared]
        began = time.monotonic()
        next_strike, sampled, fault, until = began + 5 if self._chosen.every else math.inf, 0.0, None, 0.0
        while (now := time.monotonic()) < began + self._seconds or fault is not None:
            if fault is not None and now >= until:
                say(f"{now - began:7.1f} - {fault}")
                fault.heal()
                fault = None
            if fault is None and now >= next_strike and now < began + self._seconds - 10:
                kind = random.choices(kinds, [each.weight for each in kinds])[0]
                fault = kind.make(self._system, kind.draw(random, names))
                lasts = random.uniform(*kind.span) * (self._chosen.lease if kind.in_leases else 1.0)
                say(f"{now - began:7.1f} + {fault}")
                with contextlib.suppress(LookupError, OSError):
                    fault.inject()
                until, next_strike = now + lasts, now + max(self._chosen.every, lasts + 5)
            if now - sampled > 2:
                self._memory.sample(self._system, now - began)
                sampled = now
            time.sleep(0.1)

    def _judge(self, feeder: Feeder) -> int:
        system, lost = self._system, 0
        for start in range(0, len(feeder.acknowledged), 10_000):
            ids = [UUID(bytes=each) for each in feeder.acknowledged[start : start + 10_000]]
            done = system.sql("SELECT count(*) FROM runs WHERE id = ANY($1::uuid[]) AND state = 'completed'", ids)
            lost += len(ids) - done[0][0]
        twice = system.sql(
            "SELECT count(*) FROM"
            " (SELECT FROM attempts WHERE outcome = 'completed' GROUP BY run_id HAVING count(*) > 1) AS twice"
        )[0][0]
        outcomes = dict(system.sql("SELECT outcome, count(*) FROM attempts GROUP BY outcome"))
        waits = system.sql(
            "SELECT percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP"
            " (ORDER BY extract(epoch FROM first_started_at - created_at)) FROM runs WHERE created_at >= $1",
            self._since,
        )[0][0]
        report = self._checked(feeder)
        say(f"acknowledged {len(feeder.acknowledged)}, refused or not answered {feeder.refused}")
        say(
            f"attempts {outcomes}, submit to start p50 {waits[0]:.3f} s, p99 {waits[1]:.3f} s, longest {waits[2]:.1f} s"
        )
        say(str(report))
        if self._chosen.samples is not None:
            self._memory.write(self._chosen.samples)
        points = [
            Point("acknowledged and lost", f"{lost} of {len(feeder.acknowledged)}", lost == 0),
            Point("completed twice", str(twice), twice == 0),
            Point("executions that overlap", f"{report.overlap_seconds:.3f} s", report.overlap_seconds == 0),
            Point("other violations", str(len(report.violations)), not report.violations),
        ]
        slopes = self._memory.slopes()
        for role in ("api", "scheduler", "worker", "guard"):
            if role not in slopes:
                points.append(Point(f"memory of {role}", "none lived long enough to be judged", False))
                continue
            worst, size, count = slopes[role]
            text = f"{worst:+.2f} MB/min at most ({_SLOPE:g} allowed), {size:.0f} MB in the end, {count} processes"
            points.append(Point(f"memory of {role}", text, worst <= _SLOPE))
        for point in points:
            say(f"{'held  ' if point.held else 'BROKEN'} {point.promise}: {point.seen}")
        return 0 if all(point.held for point in points) else 1

    def _checked(self, feeder: Feeder) -> Report:
        """Judge those tasks that stamped their executions."""
        executions = read_stamps(self._stamps)
        ids = sorted({execution.run for execution in executions} | set(feeder.stamped))
        query = "SELECT * FROM {} WHERE {} = ANY($1::text[]::uuid[])"
        runs = [
            Run(str(row["id"]), "stamped", None, row["state"], row["reason"], row["losses"])
            for row in self._system.sql(query.format("runs", "id"), ids)
        ]
        attempts = [
            Attempt(str(row["run_id"]), row["attempt"], row["fence"], row["outcome"], row["reason"])
            for row in self._system.sql(query.format("attempts", "run_id"), ids)
        ]
        return check(History([], feeder.stamped, [], runs, attempts, executions), forgiveness=0)


if __name__ == "__main__":
    sys.exit(main())

"""Random faults while schedules run: whatever happens, every promise holds.

`DTS_TEST_CHAOS_SECONDS` and `DTS_TEST_CHAOS_SEED` choose how long, and which plan; a failure prints both.
Who chooses how long without a plan gets a new one, whoever chooses nothing always the same.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tests.support.chronos.campaign import Campaign
from tests.support.cluster import cluster
from tests.support.servers import Servers

SECONDS = float(os.environ.get("DTS_TEST_CHAOS_SECONDS", "10"))
SEED = int(
    os.environ.get("DTS_TEST_CHAOS_SEED")
    or (secrets.randbelow(1_000_000) if "DTS_TEST_CHAOS_SECONDS" in os.environ else 1)
)
LEASE = 5.0


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what a failure needs, and who waits for minutes wants to see


def test_random_faults_break_no_promise(servers: Servers, home: Path) -> None:
    say(f"seed {SEED}, {SECONDS:g} s: DTS_TEST_CHAOS_SEED={SEED} DTS_TEST_CHAOS_SECONDS={SECONDS:g} repeats the plan")
    with cluster(
        servers, home, schedulers=2, workers=3, lease=LEASE, network="relay", worker__concurrency=8, log__level="info"
    ) as system:
        report = Campaign(system, seed=SEED, seconds=SECONDS, lease=LEASE, tasks=8, say=say).run()
    say(str(report))
    assert not report.violations, f"seed {SEED}\n{report}"

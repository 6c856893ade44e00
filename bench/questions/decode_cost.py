"""What it costs to read a task: from the bytes of the body to a checked and normalised task, in this process.

The body is a typical one: a command of a few words, an environment, a schedule's worth of fields, retry rules and tags.
Decoding checks every type and every field's name; then every field's meaning is checked and durations become seconds.

Held against `json.loads` of the same bytes, which yields the same values and checks nothing.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from bench.model import Against, Bound, Sample
from bench.question import Question
from scheduler.domain.task import TaskSpec, decode_spec
from scheduler.domain.validation import normalise

BODY = msgspec.json.encode(
    {
        "name": "nightly-report",
        "command": ["/usr/bin/python3", "-m", "reports.build", "--day", "yesterday"],
        "env": {"REPORT_HOME": "/srv/reports", "LANG": "C.UTF-8", "DATABASE": "warehouse"},
        "queue": "reports",
        "priority": 7,
        "timeout": "45m",
        "retry": {"max_attempts": 5, "initial_interval": "10s", "rules": [{"exit_codes": [2], "action": "fail"}]},
        "tags": ["nightly", "finance"],
        "labels": {"team": "data", "cost-centre": "4711"},
        "workdir": "/srv/reports",
        "kill_timeout": "30s",
    }
)


class DecodeCost(Question):
    """Times the two steps of reading a body."""

    name = "decode_cost"
    title = "Reading a request: bytes to a checked task"

    async def ask(self) -> list[Sample]:
        """Time each step over many bodies."""
        count = 2_000 if self.bench.quick else 20_000
        now = datetime(2030, 1, 31, tzinfo=UTC)
        spec: TaskSpec = decode_spec(BODY)
        self.note(f"the body has {len(BODY)} bytes")
        decode = _cost(lambda: decode_spec(BODY), count)
        whole = decode + _cost(lambda: normalise(spec, now), count)
        peer = _cost(lambda: json.loads(BODY), count)
        limit = Bound("value", most=50.0)
        return [
            Sample(name="decode", value=decode, unit="µs", better="lower", against=Against("json.loads", peer)),
            Sample(name="decode, check, normalise", value=whole, unit="µs", better="lower", reach=limit),
        ]


def _cost(call: Callable[[], object], count: int) -> float:
    """Return the microseconds of one call, without the collector."""
    gc.disable()
    try:
        started = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - started) / count * 1e6
    finally:
        gc.enable()

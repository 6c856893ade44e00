from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from scheduler import telemetry
from scheduler.metrics import MAX_SERIES, Metrics


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    telemetry.configure(role="r", layout="json", stream=stream)
    yield stream
    telemetry.configure(role="test", level="warning", layout="console")


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_role_component_and_context(out: io.StringIO) -> None:
    with telemetry.bind(run="7"):
        telemetry.get_logger("c").info("hello\nworld", n=1, odd={1, 2})
    telemetry.get_logger("c").debug("not shown")
    (line,) = lines(out)
    assert line["message"] == "hello\nworld"
    assert (line["role"], line["component"], line["level"], line["run"], line["n"]) == ("r", "c", "info", "7", 1)


def test_the_level_changes_in_a_running_process(out: io.StringIO) -> None:
    log = telemetry.get_logger("c")
    log.debug("one")
    telemetry.set_level("debug")
    log.debug("two")
    telemetry.set_level("error")
    log.warning("three")
    assert [line["message"] for line in lines(out)] == ["two"]


def test_libraries_logs_and_tracebacks_arrive_as_json(out: io.StringIO) -> None:
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("asyncpg").exception("lost %d", 3)
    logging.getLogger("asyncpg").info("chatter")
    (line,) = lines(out)
    assert (line["component"], line["message"]) == ("asyncpg", "lost 3")
    assert "ValueError: inner" in str(line["exception"])


def test_logging_does_not_import_rich() -> None:
    code = "import sys, scheduler.telemetry; sys.exit('rich.console' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_metrics_are_rendered_for_prometheus() -> None:
    metrics = Metrics()
    metrics.counter("a_total", "A.", "queue").labels("q").inc(2)
    metrics.gauge("b", "B.").labels().set(1.5)
    metrics.histogram("c_seconds", "C.", bounds=(0.1, 1.0)).labels().observe(0.5)
    text = metrics.render()[0].decode()
    for line in (
        'a_total{queue="q"} 2',
        "b 1.5",
        'c_seconds_bucket{le="0.1"} 0.0',
        'c_seconds_bucket{le="1.0"} 1.0',
        'c_seconds_bucket{le="+Inf"} 1.0',
        "c_seconds_count 1.0",
        "c_seconds_sum 0.5",
    ):
        assert line in text.splitlines()


def test_a_label_cannot_break_the_scrape() -> None:
    metrics = Metrics()
    metrics.counter("a_total", "A.", "queue").labels('q"\n\\' + "x" * 500 + "\ud800").inc()
    (line,) = [line for line in metrics.render()[0].decode().splitlines() if not line.startswith("#")]
    assert line.startswith('a_total{queue="q\\"\\n\\\\xxx')
    assert len(line) < 200


def test_a_metric_has_so_many_series_and_no_more() -> None:
    metrics = Metrics()
    counter = metrics.counter("a_total", "A.", "queue")
    for n in range(MAX_SERIES + 50):
        counter.labels(str(n)).inc()
    lines = [line for line in metrics.render()[0].decode().splitlines() if not line.startswith("#")]
    assert len(lines) == MAX_SERIES + 1
    assert 'a_total{queue="other"} 50' in lines

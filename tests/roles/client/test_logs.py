from __future__ import annotations

import pytest

from scheduler.client.errors import BadAnswer, NotFound, Unreachable
from scheduler.client.exchange import Fault, Reply
from scheduler.client.logs import LogAttempt, LogChunk, LogGap, LogStream
from scheduler.client.retry import RetryPolicy

CUT = Fault(sent=True, detail="cut")


@pytest.fixture
def stream() -> LogStream:
    return LogStream("r", policy=RetryPolicy(attempts=3, base=1.0))


def test_events_become_output_until_the_end(stream: LogStream) -> None:
    data = (
        b"retry: 1000\n\n"
        b'id: 1:3\nevent: stdout\ndata: {"text":"abc","position":0}\n\n'
        b'id: 1:9\nevent: gap\ndata: {"bytes":6,"position":9}\n\n'
        b'id: 2:0\nevent: attempt\ndata: {"attempt":2}\n\n'
        b'id: 2:1\nevent: stderr\ndata: {"text":"e","position":0}\n\n'
        b"id: 2:1\nevent: novelty\ndata: {}\n\n"
        b'id: 2:1\nevent: end\ndata: {"state":"completed"}\n\n'
    )
    assert list(stream.feed(data)) == [
        LogChunk(stream="stdout", text="abc", position=0),
        LogGap(bytes=6),
        LogAttempt(attempt=2),
        LogChunk(stream="stderr", text="e", position=0),
    ]
    assert stream.finished


def test_after_a_cut_it_goes_on_behind_the_last_whole_event(stream: LogStream) -> None:
    assert "last-event-id" not in stream.request().headers
    list(stream.feed(b'id: 1:3\nevent: stdout\ndata: {"text":"abc","position":0}\n\nid: 1:4\nevent: std'))
    assert not stream.finished
    assert stream.cut_off(CUT, 1.0) == 1.0
    assert stream.request().headers["last-event-id"] == "1:3"
    assert list(stream.feed(b'out\ndata: {"text":"d","position":3}\n\n')) == [], "half an event of the old connection"


def test_what_it_was_asked_for_holds_after_a_cut_too() -> None:
    stream = LogStream("r", attempt=2, stream="stderr", policy=RetryPolicy())
    list(stream.feed(b'id: 2:1\nevent: stderr\ndata: {"text":"e","position":0}\n\n'))
    stream.cut_off(CUT, 1.0)
    assert stream.request().target == "/api/runs/r/logs?follow=true&attempt=2&stream=stderr"


def test_the_servers_wish_for_a_pause_is_respected(stream: LogStream) -> None:
    list(stream.feed(b"retry: 7000\n\n"))
    assert stream.cut_off(CUT, 0.0) == 7.0


def test_it_gives_up_when_nothing_comes_any_more_but_not_while_something_does(stream: LogStream) -> None:
    for _ in range(5):
        list(stream.feed(b": still here\n\n"))
        stream.cut_off(CUT, 0.0)
    stream.cut_off(CUT, 0.0)
    with pytest.raises(Unreachable):
        stream.cut_off(CUT, 0.0)


def test_a_refusal_is_final(stream: LogStream) -> None:
    with pytest.raises(NotFound):
        stream.cut_off(Reply(404, {}, b"{}"), 0.0)


def test_rubbish_is_a_bad_answer(stream: LogStream) -> None:
    with pytest.raises(BadAnswer):
        list(stream.feed(b"event: stdout\ndata: rubbish\n\n"))

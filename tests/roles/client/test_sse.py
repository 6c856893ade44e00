from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.client.sse import Event, EventParser

STREAM = (
    b": keep-alive\n\n"
    b"id: 1\nevent: stdout\ndata: one\ndata:  two\n\n"
    b"id: 2\r\ndata: caf\xc3\xa9\r\n\r\n"
    b"retry: 1500\nevent: nothing\n\n"
    b"data\n\n"
    b"event: end\ndata: {}\rid\n\n"
    b"data: unfinished\n"
)
EVENTS = [
    Event("stdout", "one\n two", "1"),
    Event("message", "café", "2"),
    Event("message", "", "2"),
    Event("end", "{}", ""),
]


def test_events_are_read_as_the_standard_says() -> None:
    parser = EventParser()
    assert list(parser.feed(STREAM)) == EVENTS
    assert parser.retry == 1.5


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_where_the_stream_is_cut_makes_no_difference(cuts: list[int]) -> None:
    parser = EventParser()
    edges = [0, *sorted(cuts), len(STREAM)]
    events = [event for a, b in itertools.pairwise(edges) for event in parser.feed(STREAM[a:b])]
    assert events == EVENTS


@pytest.mark.parametrize("line", [b"id: a\0b\n\n", b"retry: soon\n\n", b"unknown: x\n\n"])
def test_lines_that_mean_nothing_change_nothing(line: bytes) -> None:
    parser = EventParser()
    assert list(parser.feed(line)) == []
    assert parser.last_id is None
    assert parser.retry is None

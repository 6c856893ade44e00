"""What is kept of what a command prints, before it is stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.worker import capture as module
from scheduler.worker.capture import Capture, Stream

STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")


def kept(capture: Capture) -> bytes:
    return b"".join(piece.data for piece in capture.take(1 << 30))


def test_a_small_limit_keeps_the_newest_bytes_up_to_the_limit() -> None:
    capture = Capture(1000)
    capture.feed("stdout", b"a" * 600)
    capture.feed("stdout", b"b" * 600)
    assert kept(capture) == b"a" * 400 + b"b" * 600
    assert not capture.waiting


@pytest.mark.parametrize("in_memory", [50, 10_000])
@given(st.integers(0, 700), st.lists(st.tuples(st.sampled_from(STREAMS), st.integers(0, 900)), max_size=20))
def test_whatever_is_fed_the_newest_bytes_are_kept(in_memory: int, limit: int, feeds: list[tuple[Stream, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "IN_MEMORY", in_memory)  # the rest is spilled
        capture = Capture(limit)
        printed = b""
        for number, (stream, size) in enumerate(feeds):
            data = bytes((number + place) % 256 for place in range(size))
            capture.feed(stream, data)
            printed += data
        try:
            assert kept(capture) == printed[max(0, len(printed) - limit) :]
            assert not capture.waiting
        finally:
            capture.close()


def test_pieces_are_small_beside_the_limit_so_that_one_more_byte_takes_few_of_the_stored() -> None:
    capture = Capture(1000)
    capture.feed("stdout", b"a" * 1000)
    stored = capture.take(1 << 30)
    capture.feed("stdout", b"b")
    left = sum(len(piece.data) for piece in stored if piece.position >= capture.oldest_kept)
    assert 1000 - 125 <= left < 1000

"""Names of signals, and sizes as people write them."""

from __future__ import annotations

import signal

import pytest

from scheduler.domain.signals import name_of, signal_name, signal_number
from scheduler.domain.sizes import parse_size


@pytest.mark.parametrize("text", ["TERM", "SIGTERM", "term", " sigterm "])
def test_a_signal_is_known_with_and_without_its_prefix(text: str) -> None:
    assert signal_name(text) == "TERM"
    assert signal_number(text) == signal.SIGTERM


@pytest.mark.parametrize("text", ["", "SIG", "TERMINATE", "15", "SIGSIGTERM", "TERM\0"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no signal: write a name such as TERM"):
        signal_name(text)


def test_numbers_have_their_usual_names() -> None:
    numbers = (signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGCHLD)
    assert [name_of(number) for number in numbers] == ["ABRT", "KILL", "SEGV", "TERM", "CHLD"]
    assert name_of(63) == "63"  # a real-time signal


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        ("1", 1),
        ("64M", 64 << 20),
        ("1.5G", 3 << 29),
        ("512 KiB", 512 << 10),
        ("2T", 2 << 40),
        (1 << 60, 1 << 60),
    ],
)
def test_a_size_is_a_number_of_bytes(text: int | str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", 0, -1, "-1", "64MB", "64m", "M", "1e3", "9" * 30, "9" * 4000, "٣M", 1 << 61])
def test_what_is_no_size_is_refused(text: int | str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)

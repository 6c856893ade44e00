"""Signals by name: what a task may ask for, and what an end by signal is called."""

from __future__ import annotations

import signal

_NUMBERS = {name.removeprefix("SIG"): int(member) for name, member in signal.Signals.__members__.items()}
_NAMES = {int(member): member.name.removeprefix("SIG") for member in signal.Signals}  # without aliases such as CLD


def signal_name(text: str) -> str:
    """Return the name without `SIG`, in upper case, for "TERM", "SIGTERM" or "term". Raises ValueError."""
    name = text.strip().upper().removeprefix("SIG")
    if name not in _NUMBERS:
        raise ValueError(f"{text!r} is no signal: write a name such as TERM, INT, HUP, QUIT, USR1 or KILL")
    return _NAMES[_NUMBERS[name]]


def signal_number(name: str) -> int:
    """Return the number of a signal that `signal_name` accepts."""
    return _NUMBERS[signal_name(name)]


def name_of(number: int) -> str:
    """Return what `signal:NAME` says for a number; real-time signals without a name of their own keep the number."""
    return _NAMES.get(number, str(number))

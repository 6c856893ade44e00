from __future__ import annotations

from datetime import datetime

from scheduler.broker.circuit import Circuit
from tests.broker.support import NOON


class HandClock:
    seconds = 100.0

    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return self.seconds

    def boottime(self) -> float:
        return self.seconds


def test_a_failure_keeps_callers_out_until_one_may_look() -> None:
    clock = HandClock()
    circuit = Circuit(clock)
    assert circuit.admit()
    assert circuit.admit()
    circuit.failed()
    assert not circuit.closed
    assert not circuit.admit()
    clock.seconds += 0.1
    assert circuit.admit()
    assert not circuit.admit()  # one at a time
    assert circuit.worked()  # it had been away
    assert not circuit.worked()
    assert circuit.closed
    assert circuit.admit()
    assert circuit.admit()


def test_failed_probes_lengthen_the_pause_up_to_a_second() -> None:
    clock = HandClock()
    circuit = Circuit(clock)
    circuit.failed()
    pauses = []
    for _ in range(6):
        begun = clock.seconds
        while not circuit.admit():
            clock.seconds += 0.01
        pauses.append(round(clock.seconds - begun, 1))
        circuit.failed()
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_calls_that_were_under_way_do_not_lengthen_the_pause() -> None:
    clock = HandClock()
    circuit = Circuit(clock)
    for _ in range(10):
        circuit.failed()
    clock.seconds += 0.1
    assert circuit.admit()


def test_a_cancelled_probe_leaves_room_for_the_next() -> None:
    clock = HandClock()
    circuit = Circuit(clock)
    circuit.failed()
    clock.seconds += 0.1
    assert circuit.admit()
    circuit.abandoned()
    assert circuit.admit()

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from scheduler.domain.gates import (
    FAIR_WINDOW,
    Contender,
    Gate,
    Head,
    Standing,
    Verdicts,
    Waiting,
    admit,
    contend,
    gate_of,
    in_turn,
    room_for,
)
from scheduler.domain.task import Concurrency, RateLimit, TaskSpec

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
ROOM = {("default", priority): 1000 for priority in range(10)}


def gate(name: str = "g", **rules: Any) -> Gate:
    return Gate(gate=name, namespace="default", **rules)


def limited(name: str = "g", most: int = 1, on_conflict: Any = "queue", key: str = "k") -> Gate:
    return gate(name, concurrency_key=key, max_runs=most, on_conflict=on_conflict)


def rated(name: str = "g", n: int = 1, per: float = 60.0, key: str = "r") -> Gate:
    return gate(name, rate_key=key, rate_n=n, rate_per=per)


def waiting(number: int, behind: str = "g", *, priority: int = 5, lane: str = "default") -> Waiting:
    return Waiting(
        id=UUID(int=number), lane=lane, gate=behind, priority=priority, run_at=NOON + timedelta(seconds=number)
    )


def decide(runs: list[Waiting], *gates: Gate, rooms: Mapping[tuple[str, int], int] = ROOM, **counts: Any) -> Verdicts:
    zero: dict[str, Any] = {
        "active": {g.concurrency: 0 for g in gates if g.concurrency},
        "used": {g.rate: 0 for g in gates if g.rate},
        "yielding": {},
        "served": {},
        "queued": {},
    }
    for name, given in counts.items():
        zero[name] = {**zero[name], **given}
    return admit(runs, {g.gate: g for g in gates}, Standing(**zero), rooms)


def replace(runs: list[Waiting], rule: Gate, *active: int) -> Verdicts:
    """Decide where these are active."""
    key = ("default", "k")
    return decide(runs, rule, active={key: len(active)}, yielding={key: [UUID(int=n) for n in active]})


def making_way(verdicts: Verdicts) -> list[int]:
    return [run_id.int for run_id in verdicts.make_way[("default", "k")]]


def numbers(runs: list[Waiting]) -> list[int]:
    return [run.id.int for run in runs]


def test_plain_tasks_stand_behind_no_gate_and_equal_rules_behind_the_same_one() -> None:
    plain = TaskSpec(name="a", command="true")
    one = TaskSpec(name="a", command="true", concurrency=Concurrency(key="k"))
    assert gate_of("default", plain) is None
    same = gate_of("default", TaskSpec(name="b", command="x", priority=9, concurrency=Concurrency(key="k")))
    assert gate_of("default", one) == same
    others = [
        gate_of("other", one),
        gate_of("default", TaskSpec(name="a", command="true", concurrency=Concurrency(key="k", max_runs=2))),
        gate_of("default", TaskSpec(name="a", command="true", rate_limit=RateLimit(key="k", n=1, per=1.0))),
        gate_of("default", TaskSpec(name="a", command="true", fairness_key="k")),
    ]
    assert len({g.gate for g in [same, *others] if g}) == 5


def test_no_more_are_admitted_than_the_key_has_places_the_oldest_and_most_urgent_first() -> None:
    runs = [waiting(3), waiting(1), waiting(2), waiting(9, priority=9)]
    assert numbers(decide(runs, limited(most=3)).admitted) == [9, 1, 2]
    assert numbers(decide(runs, limited(most=3), active={("default", "k"): 2}).admitted) == [9]
    assert numbers(decide(runs, limited(most=3), active={("default", "k"): 4}).admitted) == []


def test_gates_that_share_a_key_count_together_and_each_obeys_its_own_number() -> None:
    narrow, wide = limited("narrow", most=1), limited("wide", most=3)
    runs = [waiting(1, "narrow"), waiting(2, "narrow"), waiting(3, "wide"), waiting(4, "wide"), waiting(5, "wide")]
    assert numbers(decide(runs, narrow, wide).admitted) == [1, 3, 4]


def test_a_full_key_stops_nobody_else() -> None:
    runs = [*(waiting(n, "full", priority=9) for n in range(1, 50)), waiting(60, "free")]
    verdicts = decide(runs, limited("full"), limited("free", key="other"), active={("default", "k"): 1})
    assert numbers(verdicts.admitted) == [60]


def test_what_is_queued_and_what_started_in_the_time_take_the_places_of_a_rate() -> None:
    rule = rated(n=3)
    runs = [waiting(n) for n in range(1, 6)]
    assert numbers(decide(runs, rule).admitted) == [1, 2, 3]
    assert numbers(decide(runs, rule, used={rule.rate: 2}).admitted) == [1]
    assert numbers(decide(runs, rule, used={rule.rate: 3}).admitted) == []


def test_rates_of_one_key_count_together() -> None:
    second, minute = rated("s", n=1, per=1.0), rated("m", n=2, per=60.0)
    runs = [waiting(1, "s"), waiting(2, "m"), waiting(3, "m"), waiting(4, "s")]
    assert numbers(decide(runs, second, minute).admitted) == [1, 2]


def test_a_run_takes_every_place_that_it_needs_or_none() -> None:
    both = gate("both", concurrency_key="k", max_runs=5, on_conflict="queue", rate_key="r", rate_n=1, rate_per=1.0)
    runs = [waiting(1, "both"), waiting(2, "both"), waiting(3, "k")]
    assert numbers(decide(runs, both, limited("k", most=2)).admitted) == [1, 3]


def test_a_lane_takes_no_more_than_it_has_room_for() -> None:
    runs = [waiting(1), waiting(2), waiting(3, lane="narrow"), waiting(4, lane="paused")]
    rooms = {("default", 5): 1, ("narrow", 5): 1}
    assert numbers(decide(runs, limited(most=9), rooms=rooms).admitted) == [1, 3]


def test_the_newest_is_cancelled_where_the_rule_says_so_and_no_place_is_free() -> None:
    rule = limited(most=2, on_conflict="cancel_newest")
    verdicts = decide([waiting(1), waiting(2), waiting(3)], rule, active={("default", "k"): 1})
    assert (numbers(verdicts.admitted), numbers(verdicts.cancelled)) == ([1], [2, 3])


def test_a_run_that_waits_for_something_else_than_its_key_is_not_cancelled() -> None:
    rule = limited(most=2, on_conflict="cancel_newest")
    assert numbers(decide([waiting(1)], rule, rooms={}).cancelled) == []


def test_the_oldest_make_way_for_the_newest_where_the_rule_says_so() -> None:
    rule = limited(most=2, on_conflict="cancel_running")
    one = replace([waiting(7)], rule, 2, 3)
    assert (numbers(one.admitted), numbers(one.cancelled), making_way(one)) == ([], [], [2])
    many = replace([waiting(n) for n in (5, 6, 7)], rule, 2, 3)
    assert (numbers(many.cancelled), making_way(many)) == ([5], [2, 3])


def test_an_older_run_that_comes_back_never_ends_a_newer_one() -> None:
    rule = limited(most=2, on_conflict="cancel_running")
    oldest = replace([waiting(1)], rule, 2, 3)
    assert (numbers(oldest.cancelled), making_way(oldest)) == ([1], [])
    between = replace([waiting(2), waiting(4)], rule, 1, 3)
    assert (numbers(between.cancelled), making_way(between)) == ([2], [1])
    admitted = decide([waiting(1), waiting(2)], limited(on_conflict="cancel_running"))
    assert (numbers(admitted.admitted), numbers(admitted.cancelled), making_way(admitted)) == ([1], [], [1])


def test_who_was_asked_to_end_gives_way_already() -> None:
    rule = limited(most=2, on_conflict="cancel_running")
    verdicts = decide([waiting(7)], rule, active={("default", "k"): 2}, yielding={("default", "k"): [UUID(int=2)]})
    assert (numbers(verdicts.cancelled), making_way(verdicts)) == ([], [])


def test_the_key_with_the_fewest_runs_under_way_has_its_turn() -> None:
    big, small = gate("big", fairness_key="big"), gate("small", fairness_key="small")
    runs = [*(waiting(n, "big") for n in range(1, 7)), *(waiting(n, "small") for n in range(10, 13))]
    verdicts = decide(runs, big, small, rooms={("default", 5): 6})
    assert numbers(verdicts.admitted) == [1, 10, 2, 11, 3, 12]
    served = {("default", "big"): 2}
    assert numbers(decide(runs, big, small, rooms={("default", 5): 4}, served=served).admitted) == [10, 11, 1, 12]


def test_priority_goes_before_fairness() -> None:
    big, small = gate("big", fairness_key="big"), gate("small", fairness_key="small")
    runs = [waiting(1, "small", priority=4), waiting(2, "big", priority=5), waiting(3, "big", priority=5)]
    assert numbers(decide(runs, big, small).admitted) == [2, 3, 1]


def test_few_stand_queued_for_fairness_so_that_another_key_has_its_turn_soon() -> None:
    rule = gate("big", fairness_key="big")
    verdicts = decide([waiting(n, "big") for n in range(1, 9)], rule, queued={("default", 5): FAIR_WINDOW - 2})
    assert numbers(verdicts.admitted) == [1, 2]
    assert [room_for(waiting(1), rule, {("default", 5): FAIR_WINDOW - n}, ROOM) for n in (0, 2)] == [0, 2]
    assert room_for(waiting(1), limited(), {("default", 5): FAIR_WINDOW}, ROOM) == 1000


def test_a_run_with_a_fairness_key_stands_back_for_its_own_lane_and_priority_alone() -> None:
    fair, plain = gate("fair", fairness_key="a"), limited("plain", most=1000)
    runs = [*(waiting(n, "plain") for n in range(1, FAIR_WINDOW + 1)), waiting(500, "fair")]
    assert len(decide(runs, fair, plain).admitted) == len(runs), "runs without a fairness key count"
    full = {("default", 0): FAIR_WINDOW, ("other", 5): FAIR_WINDOW}
    urgent, same = waiting(1, "fair"), waiting(2, "fair", priority=0)
    assert numbers(decide([urgent, same], fair, queued=full).admitted) == [1]


def fair(number: int, key: str, *, served: int = 0, places: int = 1000, **fields: Any) -> Contender:
    return Contender(waiting(number, key, **fields), gate(key, fairness_key=key), places, served)


def turns(contenders: list[Contender], room: int) -> list[tuple[int, int]]:
    """Return whose turn it is where there is so much room: the number of the first run, and how many."""
    return [(c.run.id.int, c.places) for c in in_turn(contenders, {("default", 5): FAIR_WINDOW - room}, ROOM)]


def test_no_key_has_a_second_turn_before_those_with_fewer_runs_under_way_have_had_theirs() -> None:
    many = [fair(n, f"key{n}") for n in range(1, 1000)]
    assert turns(many, 100) == [(n, 1) for n in range(1, 101)]
    assert turns([fair(1, "a", served=3), fair(2, "b", served=1), fair(3, "c", served=9)], 5) == [(2, 3), (1, 2)]
    assert turns([fair(1, "a"), fair(2, "b", places=1)], FAIR_WINDOW) == [(1, 64), (2, 1)]


def test_a_key_has_its_turns_whichever_of_its_gates_they_are_for_and_urgent_ones_first() -> None:
    two = [fair(1, "a"), Contender(waiting(2, "other"), gate("other", fairness_key="a"), 1000, 0), fair(3, "b")]
    assert turns(two, 2) == [(1, 1), (2, 1), (3, 1)], "which of the two runs of a key it is, only the decision knows"
    urgent = [fair(9, "a", priority=6), fair(1, "a"), fair(2, "b")]
    assert turns(urgent, 1) == [(9, FAIR_WINDOW), (2, 1)]
    assert turns(urgent, 2) == [(9, FAIR_WINDOW), (1, 1), (2, 1)], "it is not known whether more than one is urgent"


def test_what_has_no_fairness_key_stands_in_line_by_its_priority_and_age() -> None:
    plain = [Contender(waiting(n, priority=p), limited(), 1, 0) for n, p in ((1, 0), (2, 5), (3, 9))]
    assert turns([*plain, fair(4, "a", served=1)], 1) == [(3, 1), (2, 1), (4, 1), (1, 1)]


def test_gates_that_are_full_do_not_contend_unless_their_runs_have_to_end() -> None:
    rule = rated(n=3)
    used = {("default", "r", 3, 60.0): 1}
    standing = Standing(active={("default", "k"): 2}, used=used, yielding={}, served={}, queued={})
    gates = [limited("full", 2), limited("wide", 3), limited("ends", 2, "cancel_newest"), rule]
    heads = [Head(waiting(n, g.gate), g, 0.0) for n, g in enumerate(gates)]
    assert [(c.gate.gate, c.places) for c in contend(heads, standing, 100)] == [("wide", 1), ("ends", 100), ("g", 2)]

from __future__ import annotations

import msgspec
import pytest

from scheduler.broker import Broker, BrokerUnavailable, LaneStats
from tests.broker.support import connected, drain, offer, queued, raw, worker
from tests.support.lanes import lane_state


async def test_the_most_urgent_run_leaves_first_then_the_oldest_then_the_smallest_id(broker: Broker) -> None:
    late, early, urgent, idle = (
        queued(3, after=60),
        queued(3),
        queued(2, priority=9, after=90),
        queued(1, priority=0, after=-90),
    )
    twins = [msgspec.structs.replace(run, run_at=early[0].run_at, priority=4) for run in queued(3)]
    await broker.push([*late, *idle, *reversed(twins), *early, *urgent])
    expected = [*urgent, *early, *late, *twins, *idle]
    assert await drain(broker, free=1) == [(run.run_id, 1) for run in expected]


async def test_an_urgent_run_in_the_last_chunk_of_a_push_leaves_before_the_first_chunk(broker: Broker) -> None:
    reader = worker()
    await offer(broker, reader, 1)
    urgent = queued(1, priority=9)
    await broker.push(queued(1200) + urgent)
    (delivery,) = await broker.read(["default"], reader, 1, 0.5)
    assert delivery.run.run_id == urgent[0].run_id


async def test_pushing_twice_does_not_duplicate(broker: Broker) -> None:
    runs = queued(3)
    await broker.push(runs)
    await broker.push(runs)
    await broker.push([*runs, *runs])
    assert await drain(broker) == [(run.run_id, 1) for run in runs]


async def test_a_run_that_was_delivered_but_not_settled_is_not_added_again(broker: Broker) -> None:
    runs = queued(1)
    await broker.push(runs)
    deliveries = await broker.read(["default"], worker(), 1, 0.5)
    await broker.push(runs)
    assert await drain(broker) == []
    await broker.settle(deliveries)
    await broker.push(runs)
    assert len(await drain(broker)) == 1


async def test_an_older_seq_is_ignored_and_a_newer_one_replaces(broker: Broker) -> None:
    (run,) = queued(1, seq=5)
    older, newer = (msgspec.structs.replace(run, seq=seq) for seq in (4, 2**53 - 1))
    await broker.push([run])
    await broker.push([older])
    assert (await broker.stats(["default"]))["default"].ready[5] == 1
    await broker.push([newer, run])
    assert await drain(broker) == [(run.run_id, 2**53 - 1)]


async def test_settling_an_old_offer_keeps_the_newer_one(broker: Broker) -> None:
    (run,) = queued(1)
    await broker.push([run])
    old = await broker.read(["default"], worker(), 1, 0.5)
    await broker.push([msgspec.structs.replace(run, seq=2)])
    await broker.settle(old)
    assert await drain(broker) == [(run.run_id, 2)]


async def test_the_traceparent_travels_with_the_run(broker: Broker) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await broker.push([*queued(1, trace=trace), *queued(1, after=1)])
    deliveries = await broker.read(["default"], worker(), 2, 0.5)
    assert [delivery.run.traceparent for delivery in deliveries] == [trace, None]


async def test_what_does_not_fit_into_the_window_is_left_out_and_closes_the_lane(redis_url: str) -> None:
    async with connected(redis_url, window=10) as broker:
        await broker.mark_open("default")
        first, second = queued(9), queued(4, after=1)
        assert await broker.push(first) == {"default": True}
        assert await broker.push(second) == {"default": False}
        assert await broker.is_open(["default"]) == set()
        assert await drain(broker) == [(run.run_id, 1) for run in [*first, second[0]]]


async def test_urgent_work_never_meets_a_full_window_of_another_priority(redis_url: str) -> None:
    async with connected(redis_url, window=10) as broker:
        await broker.push(queued(10))
        await broker.push(queued(1, priority=9))
        await broker.push(queued(1))
        assert (await broker.stats(["default"]))["default"].ready == (0, 0, 0, 0, 0, 10, 0, 0, 0, 1)


async def test_the_push_that_fills_the_window_exactly_closes_the_lane(redis_url: str) -> None:
    async with connected(redis_url, window=600) as broker:
        await broker.mark_open("default")
        assert await broker.push(queued(600)) == {"default": False}
        assert (await broker.stats(["default"]))["default"].ready[5] == 600


async def test_a_lane_opens_and_closes_by_itself_only(broker: Broker) -> None:
    await broker.mark_open("a")
    assert await broker.is_open(["a", "b"]) == {"a"}
    assert await broker.push([*queued(1, lane="a"), *queued(1, lane="b")]) == {"a": True, "b": False}
    await broker.mark_closed("a")
    assert await broker.is_open(["a", "b"]) == set()


async def test_a_push_of_nothing_asks_nothing(broker: Broker) -> None:
    assert await broker.push([]) == {}


async def test_stats_count_what_is_ready_and_neither_what_is_offered_nor_what_is_taken(broker: Broker) -> None:
    await broker.push([*queued(5), *queued(2, priority=9)])
    await offer(broker, worker(), 3)
    taken = await broker.read(["default"], worker(), 1, 0.5)
    assert await broker.stats(["default"]) == {"default": LaneStats((0, 0, 0, 0, 0, 3, 0, 0, 0, 0), open=False)}
    assert (await lane_state(broker))[1:] == (3, 1, 4, 2)
    await broker.settle(taken)
    assert (await lane_state(broker)).pending == 0


async def test_a_cleared_lane_takes_runs_with_older_seqs_again(broker: Broker) -> None:
    (run,) = queued(1, seq=7)
    await broker.push([run])
    await broker.clear("default")
    await broker.push([msgspec.structs.replace(run, seq=1)])
    assert await drain(broker) == [(run.run_id, 1)]


async def test_when_memory_is_full_pushes_are_refused_but_what_is_there_drains(own_broker: Broker) -> None:
    runs = queued(3)
    await own_broker.push(runs)
    await raw(own_broker, "CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(BrokerUnavailable, match="maxmemory"):
        await own_broker.push(queued(1))
    assert own_broker.available
    assert await drain(own_broker) == [(run.run_id, 1) for run in runs]


async def test_any_number_of_runs_can_be_pushed_at_once(broker: Broker) -> None:
    runs = [run for lane in ("a", "b") for run in queued(11_000, lane=lane)]
    assert await broker.push(runs) == {"a": False, "b": False}
    stats = await broker.stats(["a", "b"])
    assert [state.ready[5] for state in stats.values()] == [11_000, 11_000]

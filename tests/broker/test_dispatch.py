from __future__ import annotations

import random

import anyio
import anyio.lowlevel
import msgspec

from scheduler.broker import CREDIT_TTL, Broker, Delivery
from scheduler.broker.keys import lane_keys, stream_key
from tests.broker.support import connected, drain, offer, queued, raw, worker
from tests.support.lanes import lane_state
from tests.support.waiting import until

LANE = ["default"]


async def undelivered(broker: Broker) -> int:
    return (await lane_state(broker)).undelivered


async def blocked(broker: Broker, count: int = 1) -> bool:
    info = await raw(broker, "INFO", "clients")
    return f"blocked_clients:{count}\r\n".encode() in info


async def test_no_more_is_offered_than_all_workers_have_free_slots(broker: Broker) -> None:
    first, second = worker(), worker()
    await broker.push(queued(20))
    assert await undelivered(broker) == 0
    await offer(broker, first, 3)
    await offer(broker, second, 4)
    assert await undelivered(broker) == 7
    await offer(broker, second, 4)  # absolute: said twice, it counts once
    await broker.push(queued(5))
    assert await undelivered(broker) == 7
    deliveries = await broker.read(LANE, first, 3, 0.5)
    assert len(deliveries) == 3
    await broker.settle(deliveries)
    await offer(broker, first, 0)
    await broker.push(queued(1))
    assert await undelivered(broker) == 4


async def test_expired_credit_does_not_count(broker: Broker) -> None:
    await offer(broker, worker(), 5, 0.001)

    async def expired() -> bool:
        return (await lane_state(broker)).credit == 0

    await until(expired)
    await broker.push(queued(3))
    assert await undelivered(broker) == 0
    assert await raw(broker, "EXISTS", lane_keys("default")[3]) == 0


async def test_credit_that_expires_is_taken_off_the_sum(broker: Broker) -> None:
    await offer(broker, worker(), 1)
    await offer(broker, worker(), 5, 1.0)
    await broker.push(queued(2))
    assert await undelivered(broker) == 2

    async def expired() -> bool:
        return (await lane_state(broker)).credit == 1

    await until(expired)
    await broker.push(queued(9))
    assert await undelivered(broker) == 2  # one more than there is credit for: offered before it expired
    assert len(await broker.read(LANE, worker(), 1, 0.5)) == 1
    await broker.push(queued(1))
    assert await undelivered(broker) == 2


async def test_a_blocked_readers_credit_outlives_its_block(broker: Broker, other: Broker) -> None:
    reader = worker()
    async with anyio.create_task_group() as group:
        group.start_soon(broker.read, LANE, reader, 1, 2.0)
        await until(lambda: blocked(other))
        _, expiry = (await raw(other, "HGET", lane_keys("default")[3], str(reader))).split()
        seconds, _ = await raw(other, "TIME")
        assert int(expiry) / 1000 - int(seconds) > CREDIT_TTL
        await other.push(queued(1))


async def test_a_new_urgent_run_waits_behind_no_more_than_what_is_undelivered(broker: Broker) -> None:
    reader = worker()
    await offer(broker, reader, 2)
    plain = queued(10)
    await broker.push(plain)
    (urgent,) = queued(1, priority=9)
    await broker.push([urgent])
    order = [run_id for run_id, _ in await drain(broker, free=1)]
    assert order.index(urgent.run_id) == 2


async def test_a_blocked_reader_gets_work_as_soon_as_it_is_pushed(broker: Broker, other: Broker) -> None:
    got: list[Delivery] = []

    async def read() -> None:
        got.extend(await broker.read(["a", "b"], worker(), 4, 60.0))

    (run,) = queued(1, lane="b")
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await until(lambda: blocked(other))
            await other.push([run])
    assert [(delivery.lane, delivery.run.run_id) for delivery in got] == [("b", run.run_id)]


async def test_a_read_without_work_returns_empty_after_its_block(broker: Broker) -> None:
    assert await broker.read(LANE, worker(), 1, 0.001) == []


async def test_two_workers_never_get_the_same_entry(broker: Broker, other: Broker) -> None:
    runs = queued(600)
    seen: list[Delivery] = []

    async def work(mine: Broker) -> None:
        me = worker()
        while deliveries := await mine.read(LANE, me, 7, 0.05):
            seen.extend(deliveries)
            await mine.settle(deliveries)

    async with anyio.create_task_group() as group:
        group.start_soon(work, broker)
        group.start_soon(work, other)
        for i in range(0, 600, 60):
            await broker.push(runs[i : i + 60])
    assert sorted(delivery.run.run_id for delivery in seen) == [run.run_id for run in runs]


async def test_what_many_lanes_deliver_beyond_the_free_slots_is_given_back(broker: Broker) -> None:
    lanes = ["a", "b", "c"]
    runs = [run for lane in lanes for run in queued(3, lane=lane)]
    await broker.push(runs)
    reader = worker()
    deliveries = await broker.read(lanes, reader, 2, 0.5)
    assert len(deliveries) == 2
    states = [await lane_state(broker, lane) for lane in lanes]
    assert sum(state.pending for state in states) == 2
    assert sum(state.undelivered + sum(state.ready) for state in states) == 7
    await broker.settle(deliveries)
    rest = [await drain(broker, lane) for lane in lanes]
    assert sum(map(len, rest)) == 7


async def test_every_lane_is_served_although_one_never_runs_dry(broker: Broker) -> None:
    await broker.push([*queued(50, lane="a"), *queued(1, lane="b")])
    reader, lanes = worker(), []
    for _ in range(2):
        deliveries = await broker.read(["a", "b"], reader, 1, 0.5)
        await broker.settle(deliveries)
        lanes += [delivery.lane for delivery in deliveries]
    assert sorted(lanes) == ["a", "b"]


async def test_what_is_given_back_takes_its_old_place(broker: Broker) -> None:
    reader = worker()
    first, second, third = queued(3, trace="t")
    await broker.push([first, second, third])
    deliveries = await broker.read(LANE, reader, 2, 0.5)
    await broker.give_back(deliveries, reader)
    state = await lane_state(broker)
    assert (state.ready[5], state.undelivered, state.pending) == (3, 0, 0)
    again = await broker.read(LANE, worker(), 3, 0.5)
    assert [d.run for d in again][:2] == [d.run for d in deliveries]


async def test_a_run_that_got_a_newer_offer_is_not_given_back(broker: Broker) -> None:
    reader = worker()
    (run,) = queued(1)
    await broker.push([run])
    deliveries = await broker.read(LANE, reader, 1, 0.5)
    await broker.push([msgspec.structs.replace(run, seq=2)])
    await broker.give_back(deliveries, reader)
    assert await drain(broker) == [(run.run_id, 2)]


async def test_a_read_settles_what_came_before_in_the_same_round_trip(broker: Broker) -> None:
    runs, reader, seen, before = queued(5), worker(), [], []
    await broker.push(runs)
    for _ in runs:
        before = await broker.read(LANE, reader, 1, 0.5, settle=before)
        seen += [delivery.run.run_id for delivery in before]
        assert (await lane_state(broker)).pending == 1
    await raw(broker, "FUNCTION", "FLUSH")
    assert await broker.read(LANE, reader, 1, 0.001, settle=before) == []
    assert (await lane_state(broker)).pending == 0
    assert seen == [run.run_id for run in runs]


async def test_settling_twice_or_what_is_gone_changes_nothing(broker: Broker) -> None:
    await broker.push(queued(2))
    deliveries = await broker.read(LANE, worker(), 1, 0.5)
    await broker.settle(deliveries)
    await broker.settle(deliveries)
    await broker.settle([])
    assert len(await drain(broker)) == 1


async def test_rubbish_in_the_stream_is_deleted(broker: Broker) -> None:
    (run,) = queued(1)
    stream = stream_key("default")
    await raw(broker, "XADD", stream, "*", "m", b"\xff\x00 no message")
    await raw(broker, "XADD", stream, "*", "x", "y")
    await raw(broker, "XADD", stream, "*", "m", msgspec.msgpack.encode([2, str(run.run_id), 1, None, "future"]))
    await raw(broker, "XADD", stream, "*", "m", msgspec.msgpack.encode([1, "not-a-uuid", "x"]))
    await broker.push([run])
    assert await drain(broker) == [(run.run_id, 1)]
    assert await raw(broker, "XLEN", stream) == 0
    # The future message spoke of this run, so the run is forgotten here; the reconciler may bring it again.
    await broker.push([run])
    assert await drain(broker) == [(run.run_id, 1)]


async def test_a_cancelled_read_loses_nothing_and_leaves_no_broken_connection(broker: Broker, other: Broker) -> None:
    reader = worker()
    got: list[Delivery] = []

    async def read() -> None:
        got.extend(await broker.read(LANE, reader, 2, 3.0))

    async def read_the_rest() -> None:
        while deliveries := await broker.read(LANE, reader, 64, 0.001):
            got.extend(deliveries)
            await broker.settle(deliveries)

    await read_the_rest()  # the first read of all makes the group, and does not wait
    broken_off = 0
    for patience in range(24):
        async with anyio.create_task_group() as group, anyio.create_task_group() as reading:
            reading.start_soon(read)
            await until(lambda: blocked(other))
            group.start_soon(other.push, queued(2))
            for _ in range(patience // 4):  # the push is under way, and the reply may be, too
                await anyio.lowlevel.checkpoint()
            reading.cancel_scope.cancel()
        broken_off += reader in broker.streams._unsure
        await read_the_rest()
    assert broken_off
    assert len({delivery.run.run_id for delivery in got}) == 48


async def test_after_a_lost_reply_the_next_read_brings_what_was_delivered(broker: Broker) -> None:
    reader = worker()
    runs = queued(3)
    await broker.push(runs)
    held = await broker.read(LANE, reader, 1, 0.5)
    # Deliver one to this worker behind its back: the reply that got lost.
    await raw(broker, "XREADGROUP", "GROUP", "workers", str(reader), "COUNT", 1, "STREAMS", stream_key("default"), ">")
    await offer(broker, reader, 1)
    await raw(broker, "XREADGROUP", "GROUP", "workers", str(reader), "COUNT", 1, "STREAMS", stream_key("default"), ">")
    broker.streams._unsure.add(reader)
    (missed,) = await broker.read(LANE, reader, 1, 0.5)
    assert missed.run.run_id == runs[1].run_id
    assert missed.entry_id != held[0].entry_id
    (rest,) = await broker.read(LANE, reader, 8, 0.5)
    assert rest.run.run_id == runs[2].run_id


async def test_idle_deliveries_are_dropped_and_their_runs_may_come_again(broker: Broker) -> None:
    (run,) = queued(1)
    await broker.push([run])
    await broker.read(LANE, worker(), 1, 0.5)
    assert await broker.reclaim_idle(LANE, 3600) == 0
    assert await broker.reclaim_idle(["default", "empty"], 0) == 1
    await broker.push([run])
    assert await drain(broker) == [(run.run_id, 1)]


async def test_entries_of_a_consumer_deleted_by_hand_do_not_use_up_credit_for_ever(broker: Broker) -> None:
    runs, reader = queued(3), worker()
    await broker.push(runs)
    await broker.read(LANE, reader, 2, 0.5)
    await raw(broker, "XGROUP", "DELCONSUMER", stream_key("default"), "workers", str(reader))
    assert await undelivered(broker) > 1
    await broker.reclaim_idle(LANE, 3600)
    await broker.push(runs[:2])
    assert len(await drain(broker)) == 3


async def test_a_dead_worker_leaves_no_credit_no_deliveries_and_no_consumer(broker: Broker) -> None:
    runs, dead = queued(1200), worker()
    await broker.push(runs)
    assert len(await broker.read(LANE, dead, 1100, 0.5)) == 1100
    assert await broker.forget_worker(["default", "empty"], dead) == 1100
    state = await lane_state(broker)
    assert (state.pending, state.credit, state.workers) == (0, 0, 0)
    assert await raw(broker, "XINFO", "CONSUMERS", stream_key("default"), "workers") == []
    await broker.push(runs)
    assert len(await drain(broker)) == 1200


async def test_credit_never_bounds_a_lane_wrongly_whatever_happens(redis_url: str) -> None:
    """Random reads, settles, returns, deaths and pushes: nothing is lost, nothing is offered beyond credit."""
    rng = random.Random(7)
    async with connected(redis_url) as broker:
        workers = [worker() for _ in range(3)]
        held: list[Delivery] = []
        credit = dict.fromkeys(workers, 0)
        pushed, settled = 0, set()
        for _ in range(300):
            action, who = rng.randrange(5), rng.choice(workers)
            if action == 0:
                runs = queued(rng.randrange(1, 9), priority=rng.randrange(10))
                pushed += len(runs)
                await broker.push(runs)
            elif action == 1:
                credit[who] = rng.randrange(1, 6)
                held += await broker.read(LANE, who, credit[who], 0.001)
            elif action == 2:
                settled |= {delivery.run.run_id for delivery in held}
                await broker.settle(held)
                held = []
            elif action == 3 and held:
                credit[who] = 0
                await broker.give_back([held.pop()], who)
            else:
                credit[who] = rng.randrange(0, 6)
                await offer(broker, who, credit[who])
            state = await lane_state(broker)
            assert state.credit == sum(credit.values())
            kept = await raw(broker, "HGET", lane_keys("default")[3], "=")
            assert kept is None or int(kept.split()[0]) == state.credit
            assert state.pending == len(held)
            assert sum(state.ready) + state.undelivered + state.pending + len(settled) == pushed
        await broker.settle(held)
        settled |= {delivery.run.run_id for delivery in held}
        settled |= {run_id for run_id, _ in await drain(broker)}
        assert len(settled) == pushed

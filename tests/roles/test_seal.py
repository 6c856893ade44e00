"""The leader's sealing of the audit log, step by step."""

from __future__ import annotations

from contextlib import suppress

from scheduler.broker import Broker
from scheduler.control.seal import Sealer
from scheduler.domain.audit import Seal
from scheduler.store.audit import Audit, Entry, Mark, write_audit
from scheduler.store.database import Database, StoreUnavailable
from tests.support.recurring import lead, leading
from tests.support.waiting import until

ENTRY = Entry(namespace="default", actor="key:x", action="create_task", object="o", request_id="r", status=201)


class LosesAnAnswer(Audit):
    """Its first seal is committed, and nobody hears of it."""

    lost = False

    async def seal(self, epoch: int, mark: Mark) -> Seal | None:
        seal = await super().seal(epoch, mark)
        if seal is not None and not self.lost:
            self.lost = True
            raise StoreUnavailable("the connection broke before the answer")
        return seal


async def test_a_seal_whose_answer_was_lost_is_not_made_again(database: Database, broker: Broker) -> None:
    audit = LosesAnAnswer(database)
    sealer = Sealer(leading(database, broker, await lead(database)), audit)
    await write_audit(database, [ENTRY])

    async def loses_it() -> bool:
        with suppress(StoreUnavailable):
            await sealer.step()
        return audit.lost

    await until(loses_it)
    await write_audit(database, [ENTRY])

    async def sealed_again() -> bool:
        await sealer.step()
        head = await audit.head()
        return head is not None and head.number == 2

    await until(sealed_again)

"""What every duty of a leader works with."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from scheduler.broker import Broker
from scheduler.control.settings import ControlSettings
from scheduler.domain.clock import Clock
from scheduler.domain.ids import IdSource
from scheduler.health import Health
from scheduler.store.dispatch import Dispatch


class Leading(msgspec.Struct, frozen=True):
    """One term at work. `promote` makes the promoter look now, `reconcile` the reconciler."""

    epoch: int
    settings: ControlSettings
    broker: Broker
    dispatch: Dispatch
    ids: IdSource
    clock: Clock
    health: Health
    promote: Callable[[], None]
    reconcile: Callable[[], None]

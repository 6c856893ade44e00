"""Redis or Valkey as an accelerator: ready sets, dispatch streams, election lock, heartbeats and wake-ups.

`Broker` is the way in. Losing all of Redis at any moment costs latency, never a run: PostgreSQL has them all.
"""

from scheduler.broker.broker import Broker
from scheduler.broker.channels import Listener
from scheduler.broker.dispatch import CREDIT_TTL, Delivery
from scheduler.broker.errors import BrokerUnavailable, BrokerUnfit
from scheduler.broker.lanes import WINDOW, LaneStats

__all__ = [
    "CREDIT_TTL",
    "WINDOW",
    "Broker",
    "BrokerUnavailable",
    "BrokerUnfit",
    "Delivery",
    "LaneStats",
    "Listener",
]

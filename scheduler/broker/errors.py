"""What can go wrong with Redis, as the rest of the system sees it."""

from __future__ import annotations

from scheduler.service import Unavailable


class BrokerUnavailable(Unavailable):
    """Redis is away, refuses or answers nonsense. Retryable; a command sent may or may not have been carried out."""


class BrokerUnfit(BrokerUnavailable):
    """Redis answers, but must not be used as it is configured. Looked at anew with every new connection."""

"""When to send again, and after how long.

A request that the server cannot have seen, or that it says it did not take, may always be repeated. Where the outcome
is unknown (the answer was lost, a dependency failed half-way), only a repeatable request is: one that is idempotent by
its nature, or that carries an idempotency key. Waits are capped exponential with full jitter, on top of the server's
Retry-After.
"""

from __future__ import annotations

import msgspec

from scheduler.client.errors import ApiError, Unreachable

_TRANSIENT = frozenset({408, 429, 502, 503, 504})
_UNDER_WAY = "in_flight"  # the code of the 409 for a request that our own earlier try still carries out


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`attempts` counts the first try; times in seconds. A Retry-After above `patience` is not waited for.

    `keyed`: a POST that would do its work again when sent again carries an `Idempotency-Key`, so that it may be. That
    costs the server a row for each; without it, such a request is not repeated once it may have arrived.
    """

    attempts: int = 5
    base: float = 0.1
    cap: float = 5.0
    patience: float = 30.0
    keyed: bool = True

    def wait(self, error: ApiError | Unreachable, *, tries: int, repeatable: bool, noise: float) -> float | None:
        """Return the seconds to wait before sending again, None to give up. `noise` is from 0 to 1."""
        at_least = 0.0
        if isinstance(error, ApiError):
            at_least = error.retry_after or 0.0
            passing = error.status in _TRANSIENT or error.problem.code == _UNDER_WAY
            if not passing or at_least > self.patience:
                return None
        if tries >= self.attempts or (error.in_doubt and not repeatable):
            return None
        return at_least + noise * min(self.cap, self.base * 2.0 ** (tries - 1))


NO_RETRIES = RetryPolicy(attempts=1)

PATIENT = RetryPolicy(attempts=15)
"""Bridges half a minute, such as the restart of a server, for what has begun well and goes on for long."""

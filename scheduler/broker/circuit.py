"""A circuit breaker: while Redis is away, callers learn so at once, and only one at a time goes to look.

A pure state machine over injected time.
"""

from __future__ import annotations

from scheduler.domain.clock import Clock

_FIRST_PAUSE = 0.1  # seconds
_LONGEST_PAUSE = 1.0


class Circuit:
    """Closed while all is well. A failure opens it for a while, after which one caller may probe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pause = 0.0  # 0 while closed
        self._retry_at = 0.0
        self._probing = False

    @property
    def closed(self) -> bool:
        """Say whether the last that was heard of the server was good."""
        return self._pause == 0

    def admit(self) -> bool:
        """Return whether this caller may go ahead; it must then call `worked`, `failed` or `abandoned`."""
        if self._pause == 0:
            return True
        if self._probing or self._clock.monotonic() < self._retry_at:
            return False
        self._probing = True
        return True

    def worked(self) -> bool:
        """Take note that the server answered; return whether it had been away."""
        returned = self._pause > 0
        self._pause = 0.0
        self._probing = False
        return returned

    def failed(self) -> None:
        """Take note that it did not. Calls already under way when the circuit opened do not lengthen the pause."""
        now = self._clock.monotonic()
        if self._pause == 0 or self._probing:
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._retry_at = now + self._pause
        self._probing = False

    def abandoned(self) -> None:
        """Take note that the caller was cancelled and learnt nothing; somebody else may probe."""
        self._probing = False

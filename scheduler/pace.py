"""When a loop looks again at what falls due by itself."""

from __future__ import annotations

from typing import Final

_SOON: Final = 0.002  # seconds
_SHARE: Final = 20.0
"""What takes long is not repeated for so many times as long …"""
_LONGEST: Final = 30.0
"""… but for no more seconds than this: it may have taken long because the database stood still for once."""


def rest_after(seconds: float, usual: float) -> float:
    """Return the seconds between a step that took so many and the next: `usual`, or more if that one was dear."""
    return max(usual, min(_SHARE * seconds, _LONGEST))


class Pace:
    """Turns "the next one is due in so many seconds" into a delay of at most `poll` seconds.

    `soon` is the first of the delays after looks in vain, each twice as long as the one before.
    """

    def __init__(self, poll: float, soon: float = _SOON) -> None:
        self._poll = poll
        self._soon = soon
        self._in_vain = 0

    def until(self, due: float | None) -> float:
        """Return the seconds until the next look; `due` is None if nothing waits, zero or less if it is due already.

        What is due right after everything due was dealt with has fallen due in between, so the loop looks again at
        once. It may also be held by somebody's transaction, so it then looks less and less often.
        """
        if due is None or due > 0:
            self._in_vain = 0
            return self._poll if due is None else min(due, self._poll)
        delay = min(self._soon * 2.0**self._in_vain, self._poll)
        self._in_vain = min(self._in_vain + 1, 32)
        return delay

"""What a worker makes of the answer to a renewal: which of the runs that are its own on paper it will never hear of.

A claim is answered over one connection, a renewal over another. A run that PostgreSQL calls the worker's, and that the
worker does not hold, may be on its way in the answer to a claim; once every call that claims has ended which was under
way when the run was first missed, it is not, and may be given back.
"""

from __future__ import annotations

from collections.abc import Container, Iterable


class ClaimCalls:
    """Which calls that claim are under way; calls are numbered as they begin."""

    def __init__(self) -> None:
        self.begun = 0
        self._open: set[int] = set()

    @property
    def none(self) -> bool:
        """Whether no call is under way."""
        return not self._open

    def begin(self) -> int:
        """Note that a call begins; return its number."""
        self.begun += 1
        self._open.add(self.begun)
        return self.begun

    def end(self, number: int) -> None:
        """Note that a call has ended, and that what it brought is held."""
        self._open.discard(number)

    def ended_before(self, number: int) -> bool:
        """Say whether all calls numbered up to `number` have ended."""
        return not self._open or min(self._open) > number


class MissingRuns:
    """Runs that are the worker's own and that it does not hold, by fence."""

    def __init__(self) -> None:
        self._first_missed: dict[int, int] = {}  # fence → claims begun when it was first missed

    def given_up(self, lacking: Iterable[int], held: Container[int], calls: ClaimCalls) -> list[int]:
        """Take the fences that one answer calls lacking, now that it has come; return those that never will arrive.

        `held`: the fences held by now. What the answer saw may have been claimed after the renewal was sent, so every
        claim counts that has begun by now.
        """
        known, self._first_missed = self._first_missed, {}
        never = []
        for fence in lacking:
            if fence in held:
                continue
            first_missed = known.get(fence)
            if first_missed is not None and calls.ended_before(first_missed):
                never.append(fence)
            else:
                self._first_missed[fence] = calls.begun if first_missed is None else first_missed
        return never

"""Random schedules and a random plan of faults, both from a seed and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from tests.support.chronos.history import Planned
from tests.support.chronos.kinds import KINDS, Arguments

_PERIODS = (2, 3, 4, 5, 6, 10, 12, 15)
"""Seconds that divide a minute: `*/n` of the seconds then fires at whole multiples since 1970."""


class Strike(msgspec.Struct, frozen=True):
    """One fault, of a kind in `KINDS`, in force from `at` to `until`, seconds after the beginning."""

    kind: str
    args: Arguments
    at: float
    until: float

    def __str__(self) -> str:
        return f"{self.at:7.2f}-{self.until:7.2f}  {self.kind} {' '.join(map(str, self.args))}"


def schedules(seed: int, *, count: int, begin: int, seconds: float) -> list[Planned]:
    """Return tasks whose fires lie within `seconds` from `begin`; the fires of one are far enough apart not to meet."""
    random = Random(f"schedules {seed}")
    made = []
    for number in range(count):
        every = random.choice(_PERIODS)
        start = (begin // every + 1 + random.randrange(2)) * every
        most = max(1, int(begin + seconds - start) // every)
        made.append(
            Planned(
                name=f"chronos-{number}",
                start=start,
                every=every,
                count=random.randint(max(1, most // 2), most),
                duration=round(random.uniform(0, min(every - 1.0, 6.0)), 2),
                epsilon=random.uniform(10, 30),
            )
        )
    return made


def strikes(seed: int, *, seconds: float, members: Sequence[str], lease: float, at_once: int = 2) -> list[Strike]:
    """Return faults for `seconds`, at most `at_once` in force at the same moment, none of them after the end.

    `members` are names that begin with their role.
    """
    random = Random(f"strikes {seed}")
    made: list[Strike] = []
    free_at = [random.uniform(0.5, 2.0) for _ in range(at_once)]
    while True:
        slot = free_at.index(min(free_at))
        at = free_at[slot]
        name, kind = random.choices(list(KINDS.items()), [each.weight for each in KINDS.values()])[0]
        until = at + random.uniform(*kind.span) * (lease if kind.in_leases else 1.0)
        if until > seconds:
            return sorted(made, key=lambda strike: strike.at)
        made.append(Strike(name, kind.draw(random, members), round(at, 2), round(until, 2)))
        free_at[slot] = until + random.uniform(0.2, 2.0)

"""What a new run of a task does about the runs of that task which have not ended: the overlap policy.

"Active" is any non-terminal run, one that waits for a retry included. Planned fires and manual triggers ask here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from scheduler.domain.task import Overlap

BUFFER_LIMIT = 1000
"""Active runs that one task may have under `buffer_all`, and during catch-up."""

CancelKind = Literal["cancel", "terminate"]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What becomes of the new run.

    `refused`: no run is made; what stands after the colon in `skipped:<reason>`. `waits`: the run is made, but may
    start only when every run of the task that is older and active has ended. `cancel`: what to do at once to all active
    runs: "cancel" asks with the kill signal and waits for the end (so the new run waits too), "terminate" kills and
    lets the new run start beside the dying one.
    """

    refused: str | None = None
    waits: bool = False
    cancel: CancelKind | None = None


_FREE = Verdict()
_WAIT = Verdict(waits=True)
_CANCEL = Verdict(waits=True, cancel="cancel")
_TERMINATE = Verdict(cancel="terminate")
_OVERLAP = Verdict(refused="overlap")
_FULL = Verdict(refused="buffer_full")


def admit(overlap: Overlap, active: int) -> Verdict:
    """Decide about one new run of a task that has `active` runs.

    `skip`: none beside another. `buffer_one`: one runs, one waits. `buffer_all`: they wait in line, 1000 at most.
    `cancel_other`, `terminate_other`: the newest wins. `allow_all`: side by side.
    """
    if active == 0 or overlap == "allow_all":
        return _FREE
    match overlap:
        case "skip":
            return _OVERLAP
        case "buffer_one":
            return _WAIT if active == 1 else _OVERLAP
        case "buffer_all":
            return _WAIT if active < BUFFER_LIMIT else _FULL
        case "cancel_other":
            return _CANCEL
        case "terminate_other":
            return _TERMINATE


def admit_in_turn(overlap: Overlap, active: int) -> Verdict:
    """Decide about one run of catch-up `all`: they run one by one, whatever else the policy says of overlaps."""
    if active == 0 or overlap == "allow_all":
        return _FREE
    return _WAIT if active < BUFFER_LIMIT else _FULL

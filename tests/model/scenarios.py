"""Histories that once went wrong, or would if a rule of the protocol were left out, each with what goes wrong then."""

from __future__ import annotations

from typing import Final

import msgspec

from tests.model.world import Fault, Job, Plan

LONG = Job(at=0.5, takes=40.0, stubborn=True)
SHORT = Job(at=0.5, takes=1.0)


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A plan to be run with many seeds. With `bug`, one of them must break the promises `breaks`; without it, none."""

    name: str
    bug: str
    breaks: tuple[int, ...]
    plan: Plan


def _plan(*faults: Fault, jobs: tuple[Job, ...] = (LONG,), **settings: object) -> Plan:
    until = max(fault.at + fault.lasts for fault in faults) + 3.0 if faults else 12.0
    return Plan(**({"seed": 0, "jobs": jobs, "faults": faults, "machines": 1, "until": until} | settings))  # type: ignore[arg-type]


SCENARIOS: Final = (
    # A worker that is stopped between a renewal and its answer must not count from the answer.
    Scenario(
        name="the deadline counts from the sending",
        bug="deadline from the answer",
        breaks=(5,),
        plan=_plan(Fault("worker stopped waiting", 2.0, 8.0, 0), Fault("worker cut", 6.0, 40.0, 0)),
    ),
    Scenario(
        name="the guard holds a stopped worker to its deadline",
        bug="no guard",
        breaks=(5,),
        plan=_plan(Fault("worker stopped", 2.0, 30.0, 0)),
    ),
    # A claim was under way, slowly, when its worker died and the next one buried it.
    Scenario(
        name="a dead incarnation claims nothing",
        bug="incarnation not flipped",
        breaks=(5,),
        plan=_plan(
            Fault("worker killed", 2.0, 0.0, 0),
            jobs=tuple(Job(at=n * 0.5, takes=0.5) for n in range(8)), slow=0.5, slowest=6.0,
        ),
    ),
    Scenario(
        name="an old fence changes nothing",
        bug="fence not checked",
        breaks=(2, 5, 7, 8, 11),
        plan=_plan(Fault("worker cut", 2.0, 30.0, 0), machines=2),
    ),
    Scenario(
        name="a renewal saves the worker at the last moment",
        bug="lease number not compared",
        breaks=(6,),
        plan=_plan(Fault("requests lost", 2.0, 16.0, 0), slow=0.6, slowest=2.0),
    ),
    Scenario(
        name="an outage of the database is nobody's death",
        bug="gaps count",
        breaks=(6, 11),
        plan=_plan(Fault("database down", 2.0, 20.0, 0), machines=2),
    ),
    Scenario(
        name="a run whose claim is still to be answered is not given back",
        bug="missing at once",
        breaks=(5, 8),
        plan=_plan(jobs=(Job(at=0.5, takes=5.0), SHORT, SHORT), slow=0.6, slowest=6.0, machines=2),
    ),
    # Found by search: the claim had been sent after the renewal, but reached the database before it.
    Scenario(
        name="a claim that overtakes a renewal is waited for",
        bug="claims counted at the sending",
        breaks=(5, 8),
        plan=_plan(jobs=(Job(at=0.5, takes=5.0), SHORT, SHORT), slow=0.6, slowest=6.0, machines=2, until=30.0),
    ),
    # Found by search: the worker goes on shortly before its deadline and hears first that its command has ended.
    Scenario(
        name="what the guard has asked to end has not failed",
        bug="guard's TERM charged",
        breaks=(7,),
        plan=_plan(Fault("worker stopped", 2.0, 9.0, 0), jobs=(Job(at=0.5, takes=40.0),)),
    ),
    Scenario(
        name="a deposed leader commits nothing",
        bug="term not held",
        breaks=(4,),
        plan=_plan(
            Fault("worker killed", 1.0, 0.0, 0), jobs=(SHORT, SHORT), slow=0.4, slowest=6.0, schedulers=2, fires=(2.0,)
        ),
    ),
    Scenario(
        name="a fire is decided once",
        bug="fires not guarded",
        breaks=(3,),
        plan=_plan(jobs=(SHORT,), slow=0.4, slowest=6.0, schedulers=2, fires=(2.0, 3.0, 4.0)),
    ),
    Scenario(
        name="the outcome follows the end of the command",
        bug="reported before the end",
        breaks=(8,),
        plan=_plan(jobs=(SHORT,)),
    ),
)  # fmt: skip

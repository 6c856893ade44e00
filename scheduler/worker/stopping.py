"""Making an attempt end: politely first, surely in the end."""

from __future__ import annotations

import asyncio

from scheduler.domain.signals import signal_number
from scheduler.service import sleep
from scheduler.worker.attempt import Attempt
from scheduler.worker.executors import Execution
from scheduler.worker.keeping import Keeper

_LOOK = 0.05
"""Seconds between looks for a checkpoint that was asked for."""

_STUBBORN = 5.0
"""Seconds after which what survived being killed is killed again."""


async def bring_to_end(attempt: Attempt, keeper: Keeper) -> None:
    """Ask for a checkpoint if the task wants that, send its kill signal, kill what its kill timeout leaves."""
    execution = attempt.execution
    if execution is None:
        return
    spec = attempt.spec
    if attempt.stop in {"drained", "timeout"} and spec.checkpoint is not None and execution.running:
        await _ask_for_checkpoint(attempt, keeper)
    if execution.running:
        execution.signal(signal_number(spec.kill_signal))
        # Not `await gone`: this is not the only one who waits for it, and being cancelled must not cancel it.
        await asyncio.wait([execution.gone], timeout=float(spec.kill_timeout))
    await kill_until_gone(execution)


async def kill_until_gone(execution: Execution) -> None:
    """Leave nothing of a command, however often it takes."""
    while not execution.gone.done():
        execution.kill()
        await asyncio.wait([execution.gone], timeout=_STUBBORN)


async def _ask_for_checkpoint(attempt: Attempt, keeper: Keeper) -> None:
    wanted = attempt.spec.checkpoint
    execution = attempt.execution
    assert wanted is not None
    assert execution is not None
    before = keeper.checkpoint_version(attempt)  # stored or not, this one was not asked for
    execution.signal(signal_number(wanted.signal))
    left = float(wanted.wait)
    while left > 0 and execution.running:
        await sleep(_LOOK)
        left -= _LOOK
        if keeper.checkpoint_version(attempt) not in {before, None}:
            break
    await keeper.keep_live(attempt)

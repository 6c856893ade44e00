"""What an attempt leaves in the store besides its outcome: what it prints, its checkpoint, its outputs."""

from __future__ import annotations

import anyio

from scheduler.broker import Broker, BrokerUnavailable
from scheduler.store.checkpoints import MAX_CHECKPOINT, Checkpoints
from scheduler.store.database import PASSING
from scheduler.store.outputs import Outputs
from scheduler.telemetry import get_logger
from scheduler.worker.attempt import Attempt
from scheduler.worker.results import MAX_OUTPUTS, InvalidOutputs, parse_outputs
from scheduler.worker.scratch import Scratch, Unreadable, Version

_AT_ONCE = 1024 * 1024
"""Bytes of output written in one go: while a command runs, also about the most in a second."""

_log = get_logger("worker")


class Keeper:
    """Writes down what attempts produce. What it may not keep it says on the attempt's own standard error."""

    def __init__(self, outputs: Outputs, checkpoints: Checkpoints, scratch: Scratch, broker: Broker) -> None:
        self._outputs = outputs
        self._checkpoints = checkpoints
        self._scratch = scratch
        self._broker = broker

    def has_news(self, attempt: Attempt) -> bool:
        """Say whether a running attempt has anything to keep."""
        if attempt.unkept:
            return False
        return (attempt.capture is not None and attempt.capture.waiting) or self._checkpoint_changed(attempt)

    def checkpoint_version(self, attempt: Attempt) -> Version | None:
        """Return what changes with the attempt's checkpoint; None while there is none."""
        return None if attempt.files is None else self._scratch.checkpoint_version(attempt.files)

    async def keep_live(self, attempt: Attempt) -> None:
        """Write what a running attempt has to keep now; what the database does not take is kept for later."""
        if attempt.lock is None:
            attempt.lock = anyio.Lock()
        if attempt.lock.locked():
            return
        async with attempt.lock:
            try:
                await self._save_checkpoint(attempt)
                if await self._write_output(attempt):
                    await self._broker.publish(f"logs:{attempt.claim.run_id}")
            except (*PASSING, BrokerUnavailable):
                return  # at the next look
            except Exception as error:  # noqa: BLE001  # other attempts have nothing to do with it
                attempt.unkept = True
                _log.error(
                    "nothing more is kept of a run until it ends", run_id=str(attempt.claim.run_id), exc_info=error
                )

    async def keep_rest(self, attempt: Attempt, *, checkpoint: bool) -> None:
        """Write what is left once the command has ended. Raises what is `PASSING`: call it again."""
        if attempt.lock is None:
            await self._keep_rest(attempt, checkpoint)
            return
        async with attempt.lock:
            await self._keep_rest(attempt, checkpoint)
        try:
            await self._broker.publish(f"logs:{attempt.claim.run_id}")
        except BrokerUnavailable:
            return  # whoever follows asks now and then

    def outputs_of(self, attempt: Attempt) -> bytes | None:
        """Return the run's outputs as JSON, None if it wrote none."""
        if attempt.files is None:
            return None
        try:
            text = self._scratch.outputs(attempt.files, MAX_OUTPUTS)
            needles = () if attempt.capture is None else attempt.capture.needles
            return None if text is None else parse_outputs(text, needles)
        except (Unreadable, InvalidOutputs) as error:
            self.complain(attempt, f"the outputs were not stored: {error}")
            return None

    def complain(self, attempt: Attempt, text: str) -> None:
        """Tell the user of a task something, among what it printed."""
        _log.warning("task", run_id=str(attempt.claim.run_id), problem=text)
        if attempt.capture is not None:
            attempt.capture.feed("stderr", f"dts: {text}\n".encode())

    async def _keep_rest(self, attempt: Attempt, checkpoint: bool) -> None:
        if checkpoint:
            await self._save_checkpoint(attempt)
        while await self._write_output(attempt):
            pass

    async def _write_output(self, attempt: Attempt) -> bool:
        capture = attempt.capture
        if capture is None or not capture.waiting:
            return False
        claim = attempt.claim
        pieces = capture.take(_AT_ONCE)
        try:
            await self._outputs.append(claim.run_id, claim.attempt, pieces)
        except BaseException:
            capture.put_back(pieces)
            raise
        if (oldest := capture.oldest_kept) > attempt.trimmed:  # it may print more meanwhile
            await self._outputs.trim(claim.run_id, claim.attempt, oldest)
            attempt.trimmed = oldest
        return True

    def _checkpoint_changed(self, attempt: Attempt) -> bool:
        return attempt.files is not None and self.checkpoint_version(attempt) != attempt.files.seen

    async def _save_checkpoint(self, attempt: Attempt) -> None:
        files = attempt.files
        if files is None or not self._checkpoint_changed(attempt):
            return
        version = self.checkpoint_version(attempt)
        try:
            data = self._scratch.checkpoint(files, MAX_CHECKPOINT)
        except Unreadable as error:
            files.seen = version
            self.complain(attempt, f"the checkpoint was not stored: {error}")
            return
        if data is not None:
            await self._checkpoints.save(attempt.claim.run_id, attempt.claim.fence, data)
        files.seen = version

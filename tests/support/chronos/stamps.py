"""The command of a task under test: it stamps when it began and ended, and finds out whether it is alone.

Being alone is told by a lock on a file of its run, which the kernel gives back when the last process of an execution is
gone. So an execution that was cut off leaves no doubt of how long it lasted.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.support.chronos.history import Execution

_SCRIPT = """
umask 0; cd {directory} || exit 1
file="$DTS_RUN_ID.$DTS_ATTEMPT.$DTS_FENCE.$$"
exec 9>>"$DTS_RUN_ID.lock"
if flock -n 9; then
  echo "begin $(date +%s.%N)" >>"$file"
else
  echo "shares $(date +%s.%N)" >>"$file"; flock 9; echo "alone $(date +%s.%N)" >>"$file"
fi
[ "$DTS_ATTEMPT" = 1 ] && sleep {duration} || sleep {again}
echo "end $(date +%s.%N)" >>"$file"
"""


def stamping(directory: Path, duration: float, again: float | None = None) -> str:
    """Return a command that stamps into `directory` and takes `duration` seconds, `again` in later attempts."""
    later = duration if again is None else again
    return _SCRIPT.format(directory=shlex.quote(str(directory)), duration=duration, again=later)


def read_stamps(directory: Path) -> list[Execution]:
    """Return every execution that began, once nothing executes any more."""
    executions = []
    for path in directory.iterdir():
        if path.suffix == ".lock":
            continue
        run, attempt, fence, _ = path.name.split(".")
        stamps = dict(line.split() for line in path.read_text().splitlines() if len(line.split()) == 2)
        began = stamps.get("begin") or stamps.get("shares")
        if began is None:  # killed before the first stamp
            continue
        end = stamps.get("end")
        shared = 0.0
        if "shares" in stamps:  # without "alone" it was ended while it waited: how long is not known
            shared = max(1e-6, float(stamps.get("alone", began)) - float(began))
        executions.append(
            Execution(run, int(attempt), int(fence), float(began), None if end is None else float(end), shared)
        )
    return executions

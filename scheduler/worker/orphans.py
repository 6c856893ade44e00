"""Processes that outlive their parents: whose they are, and their end.

The worker is the reaper of all that descend from it, so whatever a command leaves behind becomes a child of the
worker's first thread. An orphan is found in that thread's list of children. It belongs to the attempt whose session
or cgroup it is in, else to the one whose fence it was started with, else to the one it was once seen to descend from;
if nothing tells, to every attempt that was running when it appeared, and then it dies with the last of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from scheduler.worker import tree
from scheduler.worker.watch import Watcher

if TYPE_CHECKING:
    from scheduler.worker.processes import Process
    from scheduler.worker.spawners import Spawners


_MOST_SEEN = 10_000
_MOST_PASSES = 20
"""Lists of children that are read at a time: a fork bomb would keep us reading for as long as it goes on."""


class _Orphan:
    __slots__ = ("killed", "owners", "pidfd", "stat")

    def __init__(self, stat: tree.Stat, pidfd: int, owners: set[Process]) -> None:
        self.stat = stat
        self.pidfd = pidfd
        self.owners = owners
        self.killed = False


class _Look:
    """All processes at one moment, and how they hang together."""

    __slots__ = ("_children", "_groups", "stats")

    def __init__(self, stats: Mapping[int, tree.Stat]) -> None:
        self.stats = stats
        self._children = tree.children_of(stats)
        self._groups: dict[int, list[int]] = {}
        for stat in stats.values():
            for number in {stat.session, stat.group}:
                self._groups.setdefault(number, []).append(stat.pid)

    def group(self, number: int) -> Sequence[int]:
        """Return who is in the session or the group of this number."""
        return self._groups.get(number, ())

    def trees(self, roots: Sequence[int]) -> list[int]:
        """Return the roots and all that descends from them."""
        return [*roots, *tree.below(roots, self._children)]


class Orphans:
    """The orphans of all attempts. `live` maps pids to attempts that are not gone; `freed` hears of last ones' ends.

    `spawners` start the commands; they themselves are nobody's orphans.
    """

    def __init__(
        self,
        live: Mapping[int, Process],
        watcher: Watcher,
        freed: Callable[[Process], None],
        spawners: Spawners,
        *,
        sole: bool,
    ) -> None:
        self._live = live
        self._watcher = watcher
        self._freed = freed
        self._spawners = spawners
        self._sole = sole
        self._orphans: dict[int, _Orphan] = {}
        self._bereft: set[Process] = set()  # who has lost an orphan since the last look
        self._seen: dict[tuple[int, int], set[Process]] = {}  # (pid, start time) of descendants met on other occasions
        self._recent: _Look | None = None  # that of this turn of the event loop
        self._unknown: dict[tuple[int, int], int] = {}  # orphans of nobody, and how many orders there were at that time
        try:
            path = f"/proc/self/task/{os.getpid()}/children"
            self._children_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # a kernel without that list
            self._children_fd = -1

    @property
    def alive(self) -> bool:
        """Whether any orphan lives, or may have left others."""
        return bool(self._orphans or self._bereft)

    def look(self, *, again: bool = False) -> None:
        """Adopt new orphans, and kill those whose attempts have all ended; `again`: also those killed before."""
        bereft, self._bereft = self._bereft, set()
        self._adopt_new()
        doomed: set[frozenset[Process]] = set()
        for orphan in self._orphans.values():
            if any(owner.running for owner in orphan.owners):
                bereft |= self._leave_to_the_running(orphan)
            elif again or not orphan.killed:
                orphan.killed = True
                doomed.add(frozenset(orphan.owners))
        if doomed:
            self._kill_orphans_of(doomed)
        for owner in bereft:
            if not owner.orphans:
                self._freed(owner)
        if not self._live or len(self._seen) > _MOST_SEEN:
            self._seen.clear()
        if self._spawners.answered == self._spawners.given:
            self._unknown.clear()

    def signal(self, process: Process, *numbers: int) -> None:
        """Signal every process of the tree once, parents first: a shell whose command ends would start its next one.

        To look at every process of a large machine takes tens of milliseconds: one look serves all commands that are
        signalled in the same turn of the event loop, or a drain of hundreds would cost the lease.
        """
        if self._recent is None or process.pid not in self._recent.stats:
            self._recent = self._take_look()
            asyncio.get_running_loop().call_soon(self._forget_recent)
        members = self._members(process, self._recent)
        for number in numbers:
            for stat in members:
                tree.send(stat, number)

    def kill_trees(self, processes: Sequence[Process]) -> None:
        """Kill whole trees, also if they fork as fast as they can; each look serves all of them, as above."""

        def find() -> Iterator[tree.Stat]:
            look = self._take_look()
            for process in processes:
                yield from self._members(process, look)

        tree.kill_all(find)

    def close(self) -> None:
        """Release what it holds."""
        if self._children_fd >= 0:
            os.close(self._children_fd)
        for orphan in self._orphans.values():
            self._watcher.remove(orphan.pidfd)
            os.close(orphan.pidfd)

    def _children(self) -> Iterable[int]:
        if self._children_fd < 0:
            me = os.getpid()
            return [s.pid for s in tree.all_processes().values() if s.parent == me and not self._spawners.owns(s.pid)]
        text = os.pread(self._children_fd, 4096, 0)
        if not text:
            return ()
        more = text
        while more:
            more = os.pread(self._children_fd, 4096, len(text))
            text += more
        return [pid for pid in map(int, text.split()) if not self._spawners.owns(pid)]

    def _adopt_new(self) -> None:
        """Adopt all there are. A dead one may have left others after the list was read: then it is read again.

        Once a process is seen to be dead its children have been given away.
        """
        dead: set[int] = set()
        for _ in range(_MOST_PASSES):
            known = self._orphans.keys() | dead
            met = {pid for pid in self._children() if pid not in known and self._adopt(pid)}
            if not met:
                return
            dead |= met

    def _leave_to_the_running(self, orphan: _Orphan) -> set[Process]:
        """Let attempts that have ended wait no more for an orphan that may be that of another, who still runs."""
        ended = {owner for owner in orphan.owners if not owner.running}
        for owner in ended:
            owner.orphans.discard(orphan.stat.pid)
        orphan.owners -= ended
        return ended

    def _adopt(self, pid: int) -> bool:
        """Take an orphan into the books if it lives and is a task's; say whether it was dead."""
        stat = tree.read_stat(pid)
        if stat is None:
            return False
        owners = self._owners_of(stat)
        if not owners and not self._sole:
            return stat.dead  # some other part of this process may have started it
        if stat.dead:
            _reap(pid)
            return True
        if not owners:
            if self._may_be_of_a_starting_one(stat):
                return False
            owners = {process for process in self._live.values() if process.running}
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # no descriptors: found again at the next look
            return False
        self._orphans[pid] = _Orphan(stat, pidfd, owners)
        for owner in owners:
            owner.orphans.add(pid)
        self._watcher.add(pidfd, partial(self._on_exit, pid))
        return False

    def _may_be_of_a_starting_one(self, stat: tree.Stat) -> bool:
        """Whether it may come from a command of which the spawners have not told yet: found again at the next look."""
        given = self._unknown.setdefault((stat.pid, stat.started), self._spawners.given)
        if self._spawners.answered < given:
            return True
        del self._unknown[stat.pid, stat.started]
        return False

    def _owners_of(self, stat: tree.Stat) -> set[Process]:
        by_session = self._live.get(stat.session)
        if by_session is not None:
            return {by_session}
        for process in self._live.values():
            if process.cell is not None and process.cell.holds(stat.pid):
                return {process}
        fence = tree.environment_value(stat.pid, "DTS_FENCE")
        if fence is not None:
            by_fence = {process for process in self._live.values() if str(process.fence) == fence}
            if by_fence:
                return by_fence
        return self._seen.get((stat.pid, stat.started), set())

    def _on_exit(self, pid: int) -> None:
        orphan = self._orphans.pop(pid)
        self._watcher.remove(orphan.pidfd)
        os.close(orphan.pidfd)
        _reap(pid)
        # Its attempts are freed after a look for what it leaves: one look for all that end together, or putting out a
        # fork bomb would take the square of its size.
        for owner in orphan.owners:
            owner.orphans.discard(pid)
        self._bereft |= orphan.owners

    def _forget_recent(self) -> None:
        self._recent = None

    def _members(self, process: Process, look: _Look) -> list[tree.Stat]:
        own = [pid for pid in process.orphans if self._orphans[pid].owners == {process}]
        main = [process.pid] if self._runs(process, look) else []
        pids = dict.fromkeys(look.trees([*main, *own]))
        if main or process.pid not in look.stats:  # while it has members, no other process gets a group's number
            pids.update(dict.fromkeys(look.group(process.pid)))
        pids.pop(os.getpid(), None)
        return self._found(pids, look, {process})

    def _found(self, pids: Iterable[int], look: _Look, owners: Collection[Process]) -> list[tree.Stat]:
        """Return those that are there, and remember whose they are."""
        found = [look.stats[pid] for pid in pids if pid in look.stats]
        for stat in found:
            self._seen[stat.pid, stat.started] = set(owners)
        return found

    def _runs(self, process: Process, look: _Look) -> bool:
        """Whether the pid is still that of the main process: its spawner may have reaped it a moment ago."""
        stat = look.stats.get(process.pid)
        return process.running and stat is not None and self._spawners.owns(stat.parent)

    def _take_look(self) -> _Look:
        """Look at all processes, and adopt what has lost its parent by the end of that.

        What forks and exits again and again is in nobody's descent for a moment; it would outrun the killing for ever.
        """
        processes = tree.all_processes()
        self._bury(processes)
        self._adopt_new()
        for pid, orphan in self._orphans.items():
            processes.setdefault(pid, orphan.stat)
        return _Look(processes)

    def _bury(self, processes: Mapping[int, tree.Stat]) -> None:
        """Reap the dead that nobody awaits: while a fork bomb is put out, they would fill the process table."""
        for pid in self._children():
            stat = processes.get(pid)
            if stat is None or not stat.dead or pid in self._orphans:
                continue
            if self._sole or (pid, stat.started) in self._seen:
                _reap(pid)

    def _kill_orphans_of(self, doomed: set[frozenset[Process]]) -> None:
        def find() -> Iterator[tree.Stat]:
            look = self._take_look()
            roots: dict[frozenset[Process], list[int]] = {}
            for pid, orphan in self._orphans.items():
                roots.setdefault(frozenset(orphan.owners), []).append(pid)
            for owners in doomed:
                yield from self._found(look.trees(roots.get(owners, [])), look, owners)

        tree.kill_all(find)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return

"""Becoming another user for the length of one spawn.

A child inherits the credentials, working directory and umask of the thread that spawns it. So the spawning thread
takes them on, spawns, and goes back to its own, which it keeps as its saved ids meanwhile. That is a few system calls
instead of a fork. Nothing else is done on that thread, see `scheduler.worker.spawner`.
"""

from __future__ import annotations

import os

from scheduler.worker import linux


class Disguise:
    """Takes on an identity, working directory and umask, and comes back. One thread's; not reentrant.

    `directory` and `umask` become those of this process, so that only a command that asks for others pays for them.
    """

    def __init__(self, directory: str, umask: int) -> None:
        self._uid = os.geteuid()
        self._group: tuple[int, tuple[int, ...]] | None = None
        os.chdir(directory)
        os.umask(umask)
        self._directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._umask = umask
        self._changed_directory = False
        self._changed_umask = False

    def put_on(self, uid: int, gid: int, groups: tuple[int, ...], directory: bytes | None, umask: int | None) -> None:
        """Become this user, then enter `directory`. Raises OSError if it may not; call `take_off` either way."""
        if self._uid == 0:
            if self._group != (gid, groups):  # kept from spawn to spawn: root needs no group
                linux.set_thread_groups(groups)
                linux.set_thread_gid(gid)
                self._group = (gid, groups)
            linux.set_thread_uid(uid, self._uid)
        if umask is not None and umask != self._umask:
            os.umask(umask)
            self._changed_umask = True
        if directory is not None:
            self._changed_directory = True
            os.chdir(directory)

    def take_off(self) -> None:
        """Be the worker again. A failure ends the process: it must not go on as somebody else."""
        try:
            if self._uid == 0:
                linux.set_thread_uid(self._uid, self._uid)
            if self._changed_umask:
                os.umask(self._umask)
                self._changed_umask = False
            if self._changed_directory:
                os.fchdir(self._directory)
                self._changed_directory = False
        except OSError:
            os.abort()

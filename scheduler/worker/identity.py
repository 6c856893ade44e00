"""Who a command runs as."""

from __future__ import annotations

import os
import pwd
from functools import lru_cache
from pathlib import Path

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """A user of this machine. `directory` is where its commands start: its home if it can be entered, else `/`."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str
    directory: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that tell a command who it is."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


class UnknownUser(LookupError):
    """There is no such user on this machine."""


@lru_cache(maxsize=256)
def identity_of(user: str) -> Identity:
    """Return the identity of a user given by name or number. Raises UnknownUser."""
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError) as error:
        raise UnknownUser(user) from error
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    home = entry.pw_dir or "/"
    shell = entry.pw_shell
    if not shell or shell.endswith(("/nologin", "/false")):  # accounts that nobody logs in to still run scripts
        shell = "/bin/sh"
    return Identity(
        entry.pw_uid, entry.pw_gid, groups, entry.pw_name, home, shell, _start_directory(home, entry.pw_uid)
    )


def current_identity() -> Identity:
    """Return who this process is, whether or not the user database knows it (containers)."""
    uid = os.geteuid()
    try:
        return identity_of(str(uid))
    except UnknownUser:
        return Identity(uid, os.getegid(), tuple(os.getgroups()), str(uid), "/", "/bin/sh", "/")


def _start_directory(home: str, uid: int) -> str:
    try:
        status = Path(home).stat()
    except OSError:
        return "/"
    return home if status.st_uid == uid and status.st_mode & 0o100 else "/"

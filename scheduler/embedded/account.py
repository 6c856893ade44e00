"""Whom the servers run as. PostgreSQL refuses to run as root, and commands must not be able to touch its files."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

CANDIDATES = ("postgres", "daemon", "bin")

# Either lets a process pass through directories that are closed to its user; the weaker one first.
_PASSES = (("dac_read_search", 2), ("dac_override", 1))


class NoAccount(Exception):
    """Started as root, the servers cannot be run by anybody else; the message says why and what helps."""


class Account(msgspec.Struct, frozen=True):
    """An unprivileged user of this machine; `capability` is what it keeps to reach files below closed directories."""

    name: str
    uid: int
    gid: int
    capability: str | None = None

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` as this user with its capability."""
        if self.capability is None:
            return list(argv)
        kept = [f"--inh-caps=+{self.capability}", f"--ambient-caps=+{self.capability}"]
        user = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        return ["setpriv", *user, *kept, "--", *argv]


def server_account(*, task_user: str, home: Path) -> Account | None:
    """Return who runs the servers below `home` when we are root: never who runs the commands. None when we are not.

    Raises NoAccount.
    """
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0 and name != task_user:
            return _reaching(Account(name, entry.pw_uid, entry.pw_gid), home)
    raise NoAccount(f"root needs one of the users {', '.join(CANDIDATES)} to run PostgreSQL and Valkey as")


def _reaching(account: Account, home: Path) -> Account:
    closed = unreachable(home, account)
    if closed is None:
        return account
    if shutil.which("setpriv"):
        for capability, bit in _PASSES:
            if _capabilities() >> bit & 1:
                return msgspec.structs.replace(account, capability=capability)
    raise NoAccount(
        f"the user {account.name}, who runs PostgreSQL and Valkey, cannot pass through {closed}: "
        f"choose another --data-dir, or chmod o+x {closed}"
    )


def _capabilities() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:")), 0)


def give(path: Path, account: Account | None) -> None:
    """Make the directory `path` for `account` alone (None: for us)."""
    path.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.chmod(0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid)


def unreachable(path: Path, account: Account | None) -> Path | None:
    """Return the first directory on the way to `path`, or itself, that `account` may not pass through, or None.

    What a capability opens is not asked: programs look for themselves by means that it does not help.
    """
    if account is None:
        return None
    path = path.resolve()
    for directory in [*reversed(path.parents), path]:
        try:
            status = directory.stat()
        except FileNotFoundError:
            return None
        if status.st_uid == account.uid:
            passes = status.st_mode & stat.S_IXUSR
        elif status.st_gid == account.gid:
            passes = status.st_mode & stat.S_IXGRP
        else:
            passes = status.st_mode & stat.S_IXOTH
        if not passes:
            return directory
    return None

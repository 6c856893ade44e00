"""The data directory of `dts up`: where it is, what is in it, and the lock that lets one supervisor use it."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import pwd
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from scheduler.embedded.account import Account, unreachable

LONGEST_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
_ROOT_HOME = Path("/var/lib/dts")
_LONGEST_SOCKET_NAME = len("/.s.PGSQL.5432.lock")


class InUse(Exception):
    """Another supervisor uses the data directory; the message names its process."""


def default_data_dir() -> Path:
    """Return where the current user's data belongs: root's in /var/lib/dts, others' with their state."""
    if os.geteuid() == 0:
        return _ROOT_HOME
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local/state") / "dts"


class DataDir:
    """A data directory, locked while used as a context manager. Raises InUse, or OSError when it cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock: int | None = None

    @property
    def postgres(self) -> Path:
        """Return PostgreSQL's directory."""
        return self.path / "postgres"

    @property
    def valkey(self) -> Path:
        """Return Valkey's directory."""
        return self.path / "valkey"

    @property
    def logs(self) -> Path:
        """Return where the servers' logs are."""
        return self.path / "logs"

    def master_key(self) -> Path:
        """Return the file of what secrets are encrypted with, made when it is first asked for. Raises OSError."""
        path = self.path / "master.key"
        if not path.exists():
            draft = path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(base64.b64encode(os.urandom(32)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
        return path

    def programs(self, account: Account | None) -> Path:
        """Return where copies of programs go that the servers' user could not read in place."""
        return (self.path if unreachable(self.path, account) is None else _ROOT_HOME) / "programs"

    def worker(self, task_user: str) -> Path:
        """Return where workers keep files of running attempts: where `task_user`, too, can reach them."""
        if os.geteuid() == 0:
            try:
                entry = pwd.getpwnam(task_user)
            except KeyError:
                return self.path / "worker"  # and the worker will say that there is no such user
            if unreachable(self.path, Account(task_user, entry.pw_uid, entry.pw_gid)) is not None:
                return Path("/run", f"{self._short_name}-worker")
        return self.path / "worker"

    @property
    def _short_name(self) -> str:
        return "dts-" + hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]

    def sockets(self, account: Account | None) -> Path:
        """Return a directory for sockets: short enough for their address, and reachable for `account`."""
        inside = self.path / "run"
        if len(os.fsencode(inside)) + _LONGEST_SOCKET_NAME <= LONGEST_SOCKET_PATH and not unreachable(inside, account):
            return inside
        name = self._short_name
        if os.geteuid() == 0 and Path("/run").is_dir():
            return Path("/run", name)
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        if runtime and len(os.fsencode(runtime)) + len(name) + _LONGEST_SOCKET_NAME < LONGEST_SOCKET_PATH:
            return Path(runtime, name)
        return Path(tempfile.gettempdir(), f"{name}-{os.geteuid()}")

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o755)
        if os.geteuid() == 0 and self.path.stat().st_uid == 0:
            # The servers' user has to pass through, and so have commands, to their working directories.
            self.path.chmod(self.path.stat().st_mode | 0o711)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise InUse(f"{self.path} is in use by another dts up (process {holder})") from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)  # and with it the lock; the file stays, or two could lock two files of one name
            self._lock = None

    def abandon(self) -> None:
        """Let go of the lock in a forked child: it belongs to the supervisor, and must not outlive it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

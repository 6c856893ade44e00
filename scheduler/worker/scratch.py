"""The two files through which a command talks to its worker: its checkpoint and its outputs.

They lie in a directory that only the command's user may enter, under names that cannot be guessed, and exist only if
the command writes them. What is read back was made by the command and is not trusted: only a plain file of its own
user counts, links are not followed, and no more is read than may be stored.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import msgspec

from scheduler.worker.housekeeping import Strays, discard, make_directory, remove_abandoned
from scheduler.worker.identity import Identity

Version = tuple[int, int, int]
"""What changes with a checkpoint."""


class Unreadable(Exception):
    """There is a file, but it cannot be taken; the text says why."""


class Files(msgspec.Struct, gc=False):
    """The paths of one attempt's files, which begin with `name`, and what was last seen of its checkpoint."""

    name: str
    checkpoint: str
    outputs: str
    seen: Version | None = None


class Scratch:
    """Directories for the files of attempts, one per user."""

    def __init__(self, state_dir: str, task_uid: int) -> None:
        if state_dir:
            Path(state_dir).mkdir(parents=True, exist_ok=True)
        parent = state_dir if state_dir and (task_uid == os.geteuid() or _open_to_others(Path(state_dir))) else None
        self.path, self._lock = make_directory(parent)
        remove_abandoned(self.path.parent)
        self.path.chmod(0o711)
        self._directories: dict[int, str] = {}
        self._strays: list[Strays] = []
        self._live: set[str] = set()

    def files_for(self, identity: Identity) -> Files:
        """Return new names for one attempt."""
        directory = self._directories.get(identity.uid)
        if directory is None:
            path = self.path / str(identity.uid)
            path.mkdir(mode=0o700)
            if identity.uid != os.geteuid():
                os.chown(path, identity.uid, identity.gid)
            directory = self._directories[identity.uid] = str(path)
            self._strays.append(Strays(directory))
        name = os.urandom(16).hex()
        self._live.add(name)
        return Files(name, f"{directory}/{name}.checkpoint", f"{directory}/{name}.outputs")

    def restore(self, files: Files, data: bytes, identity: Identity) -> None:
        """Put a checkpoint where the command will look for it. Raises OSError."""
        fd = os.open(files.checkpoint, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor
            if identity.uid != os.geteuid():
                os.fchown(fd, identity.uid, identity.gid)
            file.write(data)
            file.flush()
            files.seen = _version(os.fstat(fd))

    def checkpoint_version(self, files: Files) -> Version | None:
        """Return what changes with the checkpoint; None while there is none."""
        if not os.access(files.checkpoint, os.F_OK):
            return None
        try:
            return _version(os.lstat(files.checkpoint))
        except OSError:  # gone in between
            return None

    def checkpoint(self, files: Files, limit: int) -> bytes | None:
        """Return the checkpoint, None if there is none. Raises Unreadable."""
        if not os.access(files.checkpoint, os.F_OK):
            return None
        return _read(files.checkpoint, limit, Path(files.checkpoint).parent)

    def outputs(self, files: Files, limit: int) -> bytes | None:
        """Return what the command wrote as its outputs, None if nothing. Raises Unreadable."""
        if not os.access(files.outputs, os.F_OK):
            return None
        return _read(files.outputs, limit, Path(files.outputs).parent)

    def forget(self, files: Files) -> None:
        """Remove the files, if they exist."""
        self._live.discard(files.name)
        for path in (files.checkpoint, files.outputs):
            if os.access(path, os.F_OK):
                discard(path)

    def tidy(self) -> None:
        """Remove what commands that have ended left beside their files; to be called now and then."""
        for strays in self._strays:
            strays.tidy(self._live)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _version(status: os.stat_result) -> Version:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _open_to_others(path: Path) -> bool:
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path.resolve(), *path.resolve().parents))


def _read(path: str, limit: int, directory: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(error.strerror or "cannot be opened") from error
    with open(fd, "rb") as file:  # noqa: PTH123  # a descriptor
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("it is not a plain file")
        if status.st_uid != directory.stat().st_uid or status.st_nlink > 1:
            raise Unreadable("it belongs to somebody else")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Unreadable(f"it is longer than {limit} bytes")
    return data

"""Starting one command: `posix_spawn`, whatever user, directory and umask it asks for.

`posix_spawn` shares the memory of the process with the child until it executes, so its price does not grow with it.
What it lacks (user, directory, umask) the child inherits from the thread that spawns it, see `disguise`; for a cell and
resource limits there is a fork, see `bounded`.
Where that is not possible (macOS), `subprocess` does the same at ten times the price.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from typing import NamedTuple

from scheduler.worker import linux
from scheduler.worker.bounded import BoundedStart, NotEntered
from scheduler.worker.disguise import Disguise
from scheduler.worker.orders import Order
from scheduler.worker.posix import SpawnAttributes

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_UMASK = 0o022

_REASONS = {
    errno.ENOENT: "executable_not_found",
    errno.ENOTDIR: "executable_not_found",
    errno.EACCES: "not_executable",
    errno.EPERM: "not_permitted",
    errno.ENOEXEC: "not_executable",
    errno.ELOOP: "executable_not_found",
    errno.ENAMETOOLONG: "executable_not_found",
    errno.EISDIR: "not_executable",
    errno.ETXTBSY: "busy",
    errno.E2BIG: "arguments_too_long",
    errno.EAGAIN: "too_many_processes",
    errno.ENOMEM: "out_of_memory",
    errno.EMFILE: "too_many_files",
    errno.ENFILE: "too_many_files",
}
_WORKDIR_REASONS = {errno.EACCES: "workdir_not_permitted", errno.ENOTDIR: "workdir_not_a_directory"}


class SpawnError(Exception):
    """The command could not be started. `what` is a short cause for machines; the text says it to people."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__(text)
        self.what = what


class Child(NamedTuple):
    """A started command: leader of a session and group of its own. `stdout`, `stderr` are the reading ends."""

    pid: int
    stdout: int
    stderr: int


class Spawner:
    """Starts commands from the thread that made it, in `directory` unless they ask for another.

    Raises OSError if that cannot be entered.
    """

    def __init__(self, directory: str) -> None:
        self._disguise = Disguise(directory, DEFAULT_UMASK)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        # Caught signals are reset by executing, ignored ones (Python ignores SIGPIPE; nohup, SIGHUP) are not.
        ignored = [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN]
        self._attributes = SpawnAttributes(ignored) if linux.SUPPORTED else None
        self._bounded = BoundedStart(ignored)

    def spawn(self, order: Order, cell: Sequence[int] = ()) -> Child:
        """Start the command in `cell`, which is where whoever writes `0` to each of these descriptors is.

        Raises SpawnError; nothing is left behind then.
        """
        stdin = self._null if order.stdin is None else _file_with(order.stdin)
        opened: list[int] = []
        try:
            out = _pipe()
            opened += out
            err = _pipe()
            opened += err
            pid = self._start(order, (stdin, out[1], err[1]), cell)
            opened = [out[1], err[1]]
            return Child(pid, out[0], err[0])
        except OSError as error:  # no descriptors for pipes
            raise SpawnError(_REASONS.get(error.errno or 0, "failed"), str(error)) from error
        finally:
            for fd in opened:
                os.close(fd)
            if stdin != self._null:
                os.close(stdin)

    def _start(self, order: Order, stdio: tuple[int, ...], cell: Sequence[int]) -> int:
        disguise = self._disguise
        path = order.words[0]
        try:
            try:
                disguise.put_on(order.uid, order.gid, order.groups, order.directory, order.umask)
            except OSError as error:
                if error.filename is None:
                    raise
                what = _WORKDIR_REASONS.get(error.errno or 0, "workdir_not_found")
                text = f"working directory {_shown(order.directory or b'')}: {error.strerror}"
                raise SpawnError(what, text) from error
            if order.search_path:
                path = _look_up(path, order.search_path)
            try:
                return self._execute(path, order.words, order, stdio, cell)
            except OSError as error:
                if error.errno != errno.ENOEXEC:
                    raise
            # A script without `#!`: as a shell, `execvp` and every cron do, hand it to /bin/sh.
            return self._execute(b"/bin/sh", [b"/bin/sh", path, *order.words[1:]], order, stdio, cell)
        except NotEntered as error:
            raise SpawnError("limits_not_set", f"the cgroup for its limits: {error}") from error
        except OSError as error:
            raise _explained(error, path) from error
        finally:
            disguise.take_off()

    def _execute(
        self, path: bytes, words: Sequence[bytes], order: Order, stdio: tuple[int, ...], cell: Sequence[int]
    ) -> int:
        if cell or order.limits:
            return self._bounded.start(path, words, order.variables, stdio, cell, order.limits)
        if self._attributes is None:
            return _portable_execute(path, words, order.variables, stdio)
        return self._attributes.spawn(path, words, order.variables, stdio)


def _portable_execute(path: bytes, words: Sequence[bytes], variables: Sequence[bytes], stdio: tuple[int, ...]) -> int:
    import subprocess  # noqa: PLC0415  # a third of a spawner's memory, for platforms that it is not made for

    process = subprocess.Popen(
        list(words),
        executable=path,
        env=dict(variable.split(b"=", 1) for variable in variables),
        stdin=stdio[0],
        stdout=stdio[1],
        stderr=stdio[2],
        start_new_session=True,
    )
    process.returncode = 0  # whoever watches the pid reaps it, not this object
    return process.pid


def _look_up(name: bytes, search_path: str) -> bytes:
    """Return the first executable called `name` on the path, as the user that we are now sees it."""
    denied = None
    for directory in search_path.split(":"):
        candidate = os.fsencode(directory or ".") + b"/" + name
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):  # noqa: PTH112  # hot
            return candidate
        if denied is None and os.access(candidate, os.F_OK):
            denied = candidate
    if denied is not None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), denied)
    raise SpawnError("executable_not_found", f"{_shown(name)}: not found on PATH {search_path}")


def _explained(error: OSError, path: bytes) -> SpawnError:
    what = _REASONS.get(error.errno or 0, "failed")
    text = f"{_shown(path)}: {error.strerror}"
    if what == "executable_not_found":
        interpreter = _interpreter_of(path)
        if interpreter is not None:
            return SpawnError("interpreter_not_found", f"{_shown(path)}: its interpreter {interpreter} does not exist")
    return SpawnError(what, text)


def _interpreter_of(path: bytes) -> str | None:
    """Return what stands behind `#!`; None if the file does not exist or is no script."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # same shape as the rest of this module
            line = file.readline(256)
    except OSError:
        return None
    if not line.startswith(b"#!"):
        return None
    words = line[2:].split(maxsplit=1)
    return words[0].decode("utf-8", "replace") if words else None


def _pipe() -> tuple[int, int]:
    """Return the ends of a pipe for a command to print to.

    Who runs as the command's user may read from it too, through /proc: reading must not block us when they are quicker.
    The command itself may open it to write (`> /dev/stderr`) though it is root's. Others get no such way to it: only
    who may trace a process may follow the links to what it has open.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    if os.geteuid() == 0:
        os.fchmod(writing, 0o622)
    return reading, writing


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "replace")


def _file_with(content: bytes) -> int:
    """Return a descriptor of an unnamed file that holds `content`, at its beginning: nobody has to feed it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    else:
        import tempfile  # noqa: PLC0415  # as above

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd

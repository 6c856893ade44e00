"""Starting one command: `posix_spawn`, whatever user, directory and umask it asks for.

`posix_spawn` shares the worker's memory with the child until it executes, so its price does not grow with the worker.
What it lacks (user, directory, umask) the child inherits from the thread that spawns it, see `identity.Disguise`.
Where that is not possible (macOS), `subprocess` does the same at ten times the price.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

import msgspec

from scheduler.worker import linux
from scheduler.worker.identity import Disguise, Identity
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
_pipe = linux.pipe if linux.SUPPORTED else os.pipe
_close = linux.close if linux.SUPPORTED else os.close

_WORKDIR_REASONS = {errno.EACCES: "workdir_not_permitted", errno.ENOTDIR: "workdir_not_a_directory"}


class SpawnError(Exception):
    """The command could not be started. `what` is a short cause for machines; the text says it to people."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__(text)
        self.what = what


class Launch(msgspec.Struct, frozen=True, gc=False):
    """A command ready to start. `directory` and `umask` are None for the worker's own; `stdin` None reads nothing.

    `prefix` are the words of a program that executes the command when it has prepared itself for it; `descriptors`
    (numbers from 10 on) are 3, 4, … there.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    identity: Identity
    directory: str | None = None
    umask: int | None = None
    stdin: bytes | None = None
    prefix: Sequence[str] = ()
    descriptors: Sequence[int] = ()


class Child(msgspec.Struct, gc=False):
    """A started command: leader of a session and group of its own. `stdout`, `stderr` are the reading ends.

    `pidfd` is -1 where the platform has none.
    """

    pid: int
    pidfd: int
    stdout: int
    stderr: int


class Spawner:
    """Starts commands from the thread that made it."""

    def __init__(self, directory: str = "/") -> None:
        self._disguise = Disguise(directory, DEFAULT_UMASK)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        # Caught signals are reset by executing, ignored ones (Python ignores SIGPIPE; nohup, SIGHUP) are not.
        ignored = [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN]
        self._attributes = SpawnAttributes(ignored) if linux.SUPPORTED else None

    def spawn(self, launch: Launch) -> Child:
        """Start the command. Raises SpawnError; nothing is left behind then."""
        stdin = self._null if launch.stdin is None else _file_with(launch.stdin)
        out = err = (-1, -1)
        try:
            out = _pipe()
            err = _pipe()
            pid = self._start(launch, (stdin, out[1], err[1]))
            return Child(pid, _pidfd_of(pid) if linux.SUPPORTED else -1, out[0], err[0])
        except BaseException as error:
            for fd in (out[0], err[0]):
                if fd >= 0:
                    _close(fd)
            if isinstance(error, OSError):  # no descriptors for pipes
                raise SpawnError(_REASONS.get(error.errno or 0, "failed"), str(error)) from error
            raise
        finally:
            for fd in (out[1], err[1]):
                if fd >= 0:
                    _close(fd)
            if stdin != self._null:
                os.close(stdin)

    def _start(self, launch: Launch, stdio: tuple[int, int, int]) -> int:
        disguise = self._disguise
        path = launch.arguments[0]
        try:
            try:
                disguise.put_on(launch.identity, launch.directory, launch.umask)
            except OSError as error:
                if error.filename is None:
                    raise
                what = _WORKDIR_REASONS.get(error.errno or 0, "workdir_not_found")
                raise SpawnError(what, f"working directory {launch.directory}: {error.strerror}") from error
            if "/" not in path:
                path = _look_up(path, launch.environment.get("PATH", DEFAULT_PATH))
            return self._execute(path, launch, stdio)
        except OSError as error:
            raise _explained(error, path) from error
        except ValueError as error:  # a NUL byte, or a lone surrogate, or `=` in a variable's name
            raise SpawnError("invalid_argument", f"the command or its environment: {error}") from error
        finally:
            disguise.take_off()

    def _execute(self, path: str, launch: Launch, stdio: tuple[int, ...]) -> int:
        if launch.prefix:
            if not os.access(path, os.X_OK):  # said now, since the prefix would only exit with some number
                raise OSError(errno.EACCES if os.access(path, os.F_OK) else errno.ENOENT, "cannot be executed")
            stdio = (*stdio, *launch.descriptors)
            arguments = [*launch.prefix, path, *launch.arguments[1:]]
            launch = msgspec.structs.replace(launch, arguments=arguments, prefix=())
            path = arguments[0]
        if self._attributes is None:
            return _portable_execute(path, launch, stdio)
        try:
            return self._attributes.spawn(path, launch.arguments, launch.environment, stdio)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
        # A script without `#!`: as a shell, `execvp` and every cron do, hand it to /bin/sh.
        return self._attributes.spawn("/bin/sh", ["/bin/sh", path, *launch.arguments[1:]], launch.environment, stdio)

    def close(self) -> None:
        """Release what it holds."""
        os.close(self._null)
        self._disguise.close()


def _pidfd_of(pid: int) -> int:
    try:
        return linux.open_process(pid)
    except OSError:  # no descriptors left: a process that cannot be watched must not run
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _portable_execute(path: str, launch: Launch, stdio: tuple[int, ...]) -> int:
    process = subprocess.Popen(
        list(launch.arguments),
        executable=path,
        env=dict(launch.environment),
        stdin=stdio[0],
        stdout=stdio[1],
        stderr=stdio[2],
        start_new_session=True,
    )
    process.returncode = 0  # whoever watches the pid reaps it, not this object
    return process.pid


def _look_up(name: str, search_path: str) -> str:
    """Return the first executable called `name` on the path, as the user that we are now sees it."""
    denied = None
    for directory in search_path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):  # noqa: PTH112  # hot
            return candidate
        if denied is None and os.access(candidate, os.F_OK):
            denied = candidate
    if denied is not None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), denied)
    raise SpawnError("executable_not_found", f"{name}: not found on PATH {search_path}")


def _explained(error: OSError, path: str) -> SpawnError:
    what = _REASONS.get(error.errno or 0, "failed")
    text = f"{path}: {error.strerror}"
    if what == "executable_not_found":
        interpreter = _interpreter_of(path)
        if interpreter is not None:
            return SpawnError("interpreter_not_found", f"{path}: its interpreter {interpreter} does not exist")
    return SpawnError(what, text)


def _interpreter_of(path: str) -> str | None:
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


def _file_with(content: bytes) -> int:
    """Return a descriptor of an unnamed file that holds `content`, at its beginning: nobody has to feed it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd

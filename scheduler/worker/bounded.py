"""Starting a command within bounds: by a fork, since `posix_spawn` has no place for what that takes.

The child goes into its cell and lowers its resource limits, and only then executes the command. Until then nothing that
the task has chosen is loaded or read (its environment can make a shell or a loader do anything), and nobody may inspect
the child. So nothing of the task's begins outside of its bounds, nor holds the descriptors through which processes are
moved into a cell: the kernel asks who has opened these, not who writes to them.

The child does nothing but call the C library, with what was prepared before: a third of what `os.fork` costs, which
readies the interpreter for a life that this child does not have. It must not let go of the interpreter lock, since no
other thread is there to give it back.

Linux and macOS, 64 bits; imports the standard library only, and little of it, since every worker has spawners.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Sequence

_ENTERING, _EXECUTING = b"e", b"x"
_SET_MASK = int(signal.SIG_SETMASK)

_Signals = ctypes.c_char * 128  # larger than any C library's
_Limit = ctypes.c_uint64 * 2

_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter lock
_fork, _write, _setsid, _dup2 = _libc.fork, _libc.write, _libc.setsid, _libc.dup2
_signal, _sigmask, _setrlimit, _execve = _libc.signal, _libc.pthread_sigmask, _libc.setrlimit, _libc.execve
_write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
_signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
_execve.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]


class NotEntered(Exception):
    """A command could not go into its cell; the text says why."""


class BoundedStart:
    """Starts commands in sessions of their own, no signal blocked, and those of `defaults` no longer ignored."""

    def __init__(self, defaults: Iterable[int]) -> None:
        self._defaults = [int(number) for number in defaults]
        self._none = _Signals()
        _libc.sigemptyset(self._none)

    def start(
        self,
        path: bytes,
        words: Sequence[bytes],
        variables: Sequence[bytes],
        stdio: Sequence[int],
        cell: Sequence[int],
        limits: Iterable[tuple[int, int]],
    ) -> int:
        """Start `path` with these descriptors as 0, 1, 2; return its pid once it executes.

        It writes `0` to each of `cell`. `limits` are pairs of `RLIMIT_…` and the most of it; one that is lower already
        stays. Raises NotEntered, and OSError as executing it would.
        """
        argv = (ctypes.c_char_p * (len(words) + 1))(*words)
        envp = (ctypes.c_char_p * (len(variables) + 1))(*variables)
        bounds = [(which, _Limit(most, most)) for which, most in limits]
        listening, telling = os.pipe()
        try:
            pid: int = _fork()
            if pid == 0:
                self._become(path, argv, envp, stdio, cell, bounds, telling)
            if pid < 0:
                raise _error(ctypes.get_errno())
        except OSError:
            os.close(listening)
            raise
        finally:
            os.close(telling)
        with open(listening, "rb", 0) as said:  # noqa: PTH123  # a descriptor
            problem = said.read(32)  # nothing: it is closed by executing
        if not problem:
            return pid
        os.waitpid(pid, 0)
        error = _error(int(problem[1:]))
        if problem[:1] == _ENTERING:
            raise NotEntered(error.strerror)
        raise error

    def _become(
        self,
        path: bytes,
        argv: object,
        envp: object,
        stdio: Sequence[int],
        cell: Sequence[int],
        bounds: Sequence[tuple[int, object]],
        telling: int,
    ) -> None:
        """Execute the command, or say why not and end; never returns."""
        step = _ENTERING
        try:
            for fd in cell:
                if _write(fd, b"0", 1) < 0:
                    return
            step = _EXECUTING
            _setsid()
            for number in self._defaults:
                _signal(number, None)
            _sigmask(_SET_MASK, self._none, None)
            for number, fd in enumerate(stdio):
                _dup2(fd, number)
            for which, most in bounds:
                _setrlimit(which, most)
            _execve(path, argv, envp)
        finally:
            try:
                said = step + b"%d" % ctypes.get_errno()
                _write(telling, said, len(said))
            finally:
                os._exit(127)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))

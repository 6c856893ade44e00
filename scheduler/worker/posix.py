"""`posix_spawn` without the interpreter lock.

`os.posix_spawn` keeps the lock until the child executes. On a busy machine the child first waits for a processor, and
with it the whole worker. This binding lets the lock go, so that only the calling thread waits. glibc and musl, Linux.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Mapping, Sequence

_SETSIGDEF = 0x04
_SETSIGMASK = 0x08
_SETSID = 0x80

# Larger than glibc's and musl's: opaque structures that only the C library looks into.
_Opaque = ctypes.c_char * 512
_Signals = ctypes.c_char * 128

_short = ctypes.PyDLL(None)  # calls that take less time than letting the lock go
_posix_spawn = ctypes.CDLL(None).posix_spawn
_posix_spawn.argtypes = [ctypes.c_void_p, ctypes.c_char_p, *[ctypes.c_void_p] * 4]
_init_actions = _short.posix_spawn_file_actions_init
_add_dup2 = _short.posix_spawn_file_actions_adddup2
_destroy_actions = _short.posix_spawn_file_actions_destroy


class SpawnAttributes:
    """A session of its own, no signal blocked, and those of `defaults` no longer ignored. Made once, used often."""

    def __init__(self, defaults: Iterable[int]) -> None:
        self._attributes = _Opaque()
        masked, reset = _Signals(), _Signals()
        _short.sigemptyset(masked)
        _short.sigemptyset(reset)
        for number in defaults:
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                _short.sigaddset(reset, int(number))
        _short.posix_spawnattr_init(self._attributes)
        _short.posix_spawnattr_setsigmask(self._attributes, masked)
        _short.posix_spawnattr_setsigdefault(self._attributes, reset)
        _short.posix_spawnattr_setflags(self._attributes, ctypes.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID))

    def spawn(self, path: str, arguments: Sequence[str], environment: Mapping[str, str], stdio: Sequence[int]) -> int:
        """Start `path` with these descriptors as 0, 1, 2 …; return its pid.

        Raises OSError as executing it would, ValueError for what cannot be passed (a NUL, a `=` in a name).
        """
        words = [word.encode("utf-8", "surrogateescape") for word in arguments]
        variables = [f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in environment.items()]
        if b"\0" in b"".join(words) or b"\0" in b"".join(variables):
            raise ValueError("embedded null byte")
        for name in environment:
            if not name or "=" in name:
                raise ValueError(f"{name!r} is no name of a variable")
        argv = (ctypes.c_char_p * (len(words) + 1))(*words)
        envp = (ctypes.c_char_p * (len(variables) + 1))(*variables)
        program = path.encode("utf-8", "surrogateescape")
        pid = ctypes.c_int()
        actions = _Opaque()
        _init_actions(actions)
        try:
            for number, fd in enumerate(stdio):
                if _add_dup2(actions, fd, number):
                    raise OSError(9, os.strerror(9))
            error = _posix_spawn(ctypes.byref(pid), program, actions, self._attributes, argv, envp)
        finally:
            _destroy_actions(actions)
        if error:
            raise OSError(error, os.strerror(error), path)
        return pid.value

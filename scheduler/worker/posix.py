"""`posix_spawn` by what was prepared once: `os.posix_spawn` takes signals and variables apart at every call.

glibc and musl, Linux.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Sequence

_SETSIGDEF = 0x04
_SETSIGMASK = 0x08
_SETSID = 0x80

# Larger than glibc's and musl's: opaque structures that only the C library looks into.
_Opaque = ctypes.c_char * 512
_Signals = ctypes.c_char * 128

_libc = ctypes.PyDLL(None)  # keeps the interpreter lock, which nobody else wants where this is used
_posix_spawn = _libc.posix_spawn
_posix_spawn.argtypes = [ctypes.c_void_p, ctypes.c_char_p, *[ctypes.c_void_p] * 4]
_init_actions = _libc.posix_spawn_file_actions_init
_add_dup2 = _libc.posix_spawn_file_actions_adddup2
_destroy_actions = _libc.posix_spawn_file_actions_destroy


class SpawnAttributes:
    """A session of its own, no signal blocked, and those of `defaults` no longer ignored. Made once, used often."""

    def __init__(self, defaults: Iterable[int]) -> None:
        self._attributes = _Opaque()
        masked, reset = _Signals(), _Signals()
        _libc.sigemptyset(masked)
        _libc.sigemptyset(reset)
        for number in defaults:
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                _libc.sigaddset(reset, int(number))
        _libc.posix_spawnattr_init(self._attributes)
        _libc.posix_spawnattr_setsigmask(self._attributes, masked)
        _libc.posix_spawnattr_setsigdefault(self._attributes, reset)
        _libc.posix_spawnattr_setflags(self._attributes, ctypes.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID))

    def spawn(self, path: bytes, words: Sequence[bytes], variables: Sequence[bytes], stdio: Sequence[int]) -> int:
        """Start `path` with these descriptors as 0, 1, 2 …; return its pid. Raises OSError as executing it would."""
        argv = (ctypes.c_char_p * (len(words) + 1))(*words)
        envp = (ctypes.c_char_p * (len(variables) + 1))(*variables)
        pid = ctypes.c_int()
        actions = _Opaque()
        _init_actions(actions)
        try:
            for number, fd in enumerate(stdio):
                if _add_dup2(actions, fd, number):
                    raise OSError(9, os.strerror(9))
            error = _posix_spawn(ctypes.byref(pid), path, actions, self._attributes, argv, envp)
        finally:
            _destroy_actions(actions)
        if error:
            raise OSError(error, os.strerror(error), path)
        return pid.value

"""Exit codes, as in sysexits.h where it has one."""

from __future__ import annotations

OK = 0
FAILURE = 1
USAGE = 2
UNAVAILABLE = 69
RETRY = 75
CONFIG = 78

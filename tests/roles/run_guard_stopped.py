"""Runs a guard that is asked to end when it gets to a function: `MODULE FUNCTION COMMAND…`."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from functools import reduce
from typing import Any

from scheduler.worker.guard import Guard

module, function, *command = sys.argv[1:]
*path, name = function.split(".")
holder: Any = reduce(getattr, path, importlib.import_module(module))
original = getattr(holder, name)


def asked(*arguments: object, **options: object) -> object:
    os.kill(os.getpid(), signal.SIGTERM)
    return original(*arguments, **options)


setattr(holder, name, asked)
sys.exit(Guard(command).run())

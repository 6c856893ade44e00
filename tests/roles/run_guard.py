"""Runs a guard over the command given as arguments."""

from __future__ import annotations

import sys

from scheduler.worker.guard import Guard

sys.exit(Guard(sys.argv[1:]).run())

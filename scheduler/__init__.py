"""Runs commands on time, once, on many machines, and can always say what happened and why."""

__version__ = "0.1.0"

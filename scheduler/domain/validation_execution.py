"""Whether a command can be executed as asked: command line, environment, limits, signals, retry rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from scheduler.domain import text
from scheduler.domain.complaints import Complaints, quoted, step
from scheduler.domain.retry import REASONS
from scheduler.domain.signals import signal_name
from scheduler.domain.sizes import parse_size
from scheduler.domain.task import Checkpoint, Limits, Retry, RetryRule, SecretRef, TaskSpec

LONGEST_ARGUMENT = 128 * 1024 - 1
"""Bytes of one argument, or of one NAME=value, without its NUL: Linux's MAX_ARG_STRLEN."""

LONGEST_COMMAND = 1024 * 1024
"""Bytes of all arguments and the environment together."""

LARGEST_OUTPUT = 64 * 1024 * 1024
"""Bytes of output that may be kept of one attempt: a worker holds them in memory."""

LARGEST_NUMBER = 1_000_000
"""Cores, processes and open files that one attempt may ask for."""

_RESERVED = frozenset({"TRACEPARENT", "TRACESTATE"})
_NEVER_SEEN = frozenset({"KILL", "STOP"})
_NO_RETRY = Retry()
_NO_LIMITS = Limits()


def check_execution(spec: TaskSpec, found: Complaints, changes: dict[str, Any]) -> None:
    """Complain about what cannot be executed; put fields that have a normal form into `changes`."""
    _command(spec.command, found)
    if spec.env:
        _environment(spec.env, found)
    size = size_of(spec)
    if size > LONGEST_COMMAND:
        found.add("command", f"command and environment have {size} bytes: {LONGEST_COMMAND} at most")
    if spec.kill_signal != "TERM":
        changes["kill_signal"] = _signal(spec.kill_signal, "kill_signal", found)
    if spec.checkpoint is not None:
        changes["checkpoint"] = _checkpoint(spec.checkpoint, found)
    if spec.limits != _NO_LIMITS:
        changes["limits"] = _limits(spec.limits, found)
    if spec.retry != _NO_RETRY:
        changes["retry"] = _retry(spec.retry, found)
    if spec.user is not None:
        found.text("user", spec.user, text.user)
    if spec.workdir is not None:
        found.text("workdir", spec.workdir, text.absolute_path)
    if spec.stdin is not None:
        found.text("stdin", spec.stdin, text.storable)


def size_of(spec: TaskSpec) -> int:
    """Return how many bytes command and environment have together, as the system counts them."""
    arguments = [spec.command] if isinstance(spec.command, str) else spec.command
    return sum(text.byte_length(argument) + 1 for argument in arguments) + environment_size(spec.env)


def environment_size(env: Mapping[str, str | SecretRef]) -> int:
    """Return how many bytes the variables have whose values are known."""
    return sum(
        text.byte_length(name) + text.byte_length(value) + 2 for name, value in env.items() if isinstance(value, str)
    )


def check_not_reserved(name: str, place: str, found: Complaints) -> None:
    """Complain about a variable that the scheduler sets itself."""
    if name.startswith("DTS_") or name in _RESERVED:
        found.add(place, f"{quoted(name)} is set by the scheduler itself: choose another name")


def _command(command: list[str] | str, found: Complaints) -> None:
    if isinstance(command, str):
        if not command.strip():
            found.add("command", "is empty: write a command line for /bin/sh, or a list of a program and its arguments")
        _argument(command, "command", found)
        return
    if not command or not command[0]:
        found.add("command" if not command else "command/0", "is empty: a list begins with the program to execute")
    for i, argument in enumerate(command):
        _argument(argument, f"command/{i}", found)


def _argument(argument: str, place: str, found: Complaints) -> None:
    found.text(place, argument, text.storable)
    size = text.byte_length(argument)
    if size > LONGEST_ARGUMENT:
        found.add(place, f"has {size} bytes: one argument has {LONGEST_ARGUMENT} at most")


def _environment(env: Mapping[str, str | SecretRef], found: Complaints) -> None:
    for name, value in env.items():
        place = f"env/{step(name)}"
        if not name or "=" in name:
            found.add(place, "is no name of a variable: one or more characters, without '='")
        else:
            found.text(place, name, text.label)
        check_not_reserved(name, place, found)
        if isinstance(value, str):
            found.text(place, value, text.storable)
            length = text.byte_length(name) + text.byte_length(value) + 1
            if length > LONGEST_ARGUMENT:
                found.add(place, f"has {length} bytes with its name: {LONGEST_ARGUMENT} at most")


def _signal(name: str, place: str, found: Complaints) -> str:
    try:
        return signal_name(name)
    except ValueError as error:
        found.add(place, str(error))
        return name


def _checkpoint(checkpoint: Checkpoint, found: Complaints) -> Checkpoint:
    name = _signal(checkpoint.signal, "checkpoint/signal", found)
    if name in _NEVER_SEEN:
        found.add("checkpoint/signal", f"no process ever sees {name}: write a signal that it can catch, such as USR1")
    return Checkpoint(signal=name, wait=found.seconds("checkpoint/wait", checkpoint.wait))


def _limits(limits: Limits, found: Complaints) -> Limits:
    memory = None if limits.memory is None else _size(limits.memory, "limits/memory", found)
    output = None if limits.output is None else _size(limits.output, "limits/output", found)
    if output is not None and output > LARGEST_OUTPUT:
        found.add("limits/output", f"{output} bytes are too many to keep: {LARGEST_OUTPUT} (64M) at most")
    for field in ("cpu", "pids", "files"):
        if (getattr(limits, field) or 0) > LARGEST_NUMBER:
            found.add(f"limits/{field}", f"is more than any machine has: {LARGEST_NUMBER} at most")
    return structs.replace(limits, memory=memory, output=output)


def _size(size: int | str, place: str, found: Complaints) -> int:
    try:
        return parse_size(size)
    except ValueError as error:
        found.add(place, str(error))
        return 0


def _retry(retry: Retry, found: Complaints) -> Retry:
    first = found.seconds("retry/initial_interval", retry.initial_interval)
    longest = found.seconds("retry/max_interval", retry.max_interval)
    if longest < first:
        found.add("retry/max_interval", f"{longest:g} s are less than the {first:g} s of initial_interval: raise it")
    elapsed = retry.max_elapsed
    if elapsed is not None:
        elapsed = found.seconds("retry/max_elapsed", elapsed, positive=True)
    rules = [_rule(rule, f"retry/rules/{i}", found) for i, rule in enumerate(retry.rules)]
    return structs.replace(retry, initial_interval=first, max_interval=longest, max_elapsed=elapsed, rules=rules)


def _rule(rule: RetryRule, place: str, found: Complaints) -> RetryRule:
    for field in ("exit_codes", "signals", "reasons"):
        if getattr(rule, field) == []:
            found.add(f"{place}/{field}", "an empty list matches nothing: leave it out to match everything")
    for i, code in enumerate(rule.exit_codes or ()):
        if not 1 <= code <= 255:
            found.add(f"{place}/exit_codes/{i}", f"{code} is no exit code of a failure: 1 to 255")
    for i, reason in enumerate(rule.reasons or ()):
        if reason.partition(":")[0] not in REASONS:
            known = ", ".join(REASONS)
            found.add(f"{place}/reasons/{i}", f"{quoted(reason)} is no reason of a failure: write one of {known}")
        else:
            found.text(f"{place}/reasons/{i}", reason, text.label)
    if rule.signals is None:
        return rule
    names = [_signal(name, f"{place}/signals/{i}", found) for i, name in enumerate(rule.signals)]
    return structs.replace(rule, signals=names)

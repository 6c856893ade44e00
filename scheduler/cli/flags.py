"""The flags of the commands that run processes, and a parser for the plain way to write them.

Most starts of a process use few flags, or none, and start-up time counts: only for help, mistakes and unusual spellings
is the whole command line library loaded (`scheduler.cli.app`, which knows the same flags).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COMMON: dict[str, str] = {
    "--config": "config",
    "--database-url": "database.url",
    "--redis-url": "redis.url",
    "--log-level": "log.level",
    "--log-format": "log.format",
}
"""Flag → setting; `config` names the file and is no setting itself."""

PROCESSES: dict[str, dict[str, str]] = {
    "up": {
        "--data-dir": "up.data_dir",
        "--port": "api.port",
        "--workers": "up.workers",
        "--concurrency": "worker.concurrency",
        "--task-user": "worker.task_user",
    },
    "api": {
        "--host": "api.host",
        "--port": "api.port",
        "--drain-timeout": "api.drain_timeout",
        "--development": "auth.development",
    },
    "scheduler": {"--lock-ttl": "scheduler.lock_ttl"},
    "worker": {
        "--name": "worker.name",
        "--queues": "worker.queues",
        "--concurrency": "worker.concurrency",
        "--labels": "worker.labels",
        "--lease": "worker.lease",
        "--drain-timeout": "worker.drain_timeout",
        "--task-user": "worker.task_user",
        "--state-dir": "worker.state_dir",
        "--api-url": "worker.api_url",
    },
}


def parse(command: str, argv: Sequence[str]) -> dict[str, object] | None:
    """Return settings by name for `--flag value` and `--flag=value`; None for anything else."""
    known: Mapping[str, str] = COMMON | PROCESSES[command]
    found: dict[str, object] = {}
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        name = known.get(flag)
        if name is None or name in found:
            return None
        if not equals:
            value = next(words, "-")
            if value.startswith("-"):
                return None
        found[name] = value
    return found

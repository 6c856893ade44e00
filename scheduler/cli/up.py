"""`dts up`: everything in one process tree, quickly.

Python's imports are most of the start-up time, so they happen once: while a worker's guard already starts by itself,
this process imports what the roles share and forks the others, and only then starts the servers, for which the roles
wait. Later restarts are fresh processes.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from pathlib import Path

from scheduler import config as configuration
from scheduler import stderr
from scheduler.cli import exits
from scheduler.cli.launch import Launched, execute, fork
from scheduler.embedded.account import NoAccount
from scheduler.embedded.binaries import MissingBinary
from scheduler.embedded.datadir import DataDir, InUse, default_data_dir
from scheduler.embedded.plan import Plan

_PORT_PATIENCE = 3.0


def up(loaded: configuration.Loaded) -> int:
    """Run everything until stopped; return the exit code."""
    gc.disable()
    config = loaded.config
    home = Path(config.up.data_dir) if config.up.data_dir else default_data_dir()
    try:
        with DataDir(home) as data:
            plan = Plan(
                data,
                task_user=config.worker.task_user,
                database_url=config.database.url,
                redis_url=config.redis.url,
            )
            port = _free_port(config.api.host, config.api.port)
            return _Up(plan, loaded, port).run()
    except InUse as error:
        return _refuse(exits.RETRY, str(error))
    except (MissingBinary, NoAccount) as error:
        return _refuse(exits.UNAVAILABLE, str(error))
    except OSError as error:
        return _refuse(exits.UNAVAILABLE, f"{error.strerror}: {error.filename}" if error.filename else str(error))


def say(text: str) -> None:
    """Show progress to whoever started us."""
    stderr.say(f"dts: {text}")


def _refuse(code: int, why: str) -> int:
    say(why)
    return code


def _free_port(host: str, port: int) -> int:
    """Return the port to use, having seen that it is free; waits a moment for a predecessor to let go of it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + _PORT_PATIENCE
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if time.monotonic() > deadline:
                    raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from None
                time.sleep(0.05)
            else:
                return int(probe.getsockname()[1])


class _Up:
    def __init__(self, plan: Plan, loaded: configuration.Loaded, port: int) -> None:
        config = loaded.config
        given = loaded.given()
        self._plan = plan
        self._config = config
        self._port = port
        self._settings: dict[str, object] = {
            "auth.development": True,  # it is for this machine, unless told to ask for credentials
            **given,
            "database.url": plan.database_url,
            "redis.url": plan.redis_url,
            "api.port": port,
            "api.tls_certificate": "",  # for this machine, and it says http:// itself
            "api.tls_key": "",
            "worker.api_url": config.worker.api_url or f"http://{_bracketed(config.api.host)}:{port}",
            "worker.state_dir": config.worker.state_dir or str(plan.data.worker(config.worker.task_user)),
        }
        self._files = {name: path for name, path in loaded.files.items() if self._settings[name] == given[name]}
        if not config.secrets.master_key:
            self._files["secrets.master_key"] = str(plan.data.master_key())

    def run(self) -> int:
        for variable in configuration.variables(os.environ):
            del os.environ[variable]
        os.environ.update(configuration.to_environment(self._settings, self._files))
        early = {f"worker-{n + 1}": self._spawn(f"worker-{n + 1}") for n in range(self._config.up.workers)}

        from scheduler.cli.supervise import supervise  # noqa: PLC0415 - the worker starts meanwhile

        gc.freeze()
        started = {name: self._first(name) for name in ("api", "scheduler")}
        gc.enable()
        return supervise(
            self._plan,
            {**started, **early},
            respawn=self._spawn,
            url=f"http://{_bracketed(self._config.api.host)}:{self._port}",
            log=self._config.log,
            say=say,
        )

    def _spawn(self, name: str) -> Launched:
        return execute(name.partition("-")[0])

    def _first(self, name: str) -> Launched:
        if sys.platform != "linux":  # where forking without executing is not safe
            return self._spawn(name)

        def run() -> int:
            from scheduler.cli.processes import run_command  # noqa: PLC0415

            return run_command(name, {})

        return fork(run, self._plan.data.abandon)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

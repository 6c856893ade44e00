"""`dts up` from outside: a user's first minutes, and what must survive being killed."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.up import Up, dts_up
from tests.support.waiting import until_sync


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="dts-up-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def up(home: Path) -> Iterator[Up]:
    with dts_up(home) as running:
        assert running.url, "".join(running.log)
        yield running


def completed(up: Up, identifier: str) -> bool:
    status = up.task(identifier)["status"]
    assert status in {"pending", "queued", "running", "completed"}, status
    return bool(status == "completed")


def test_a_command_runs_and_everything_is_known_after_a_restart(home: Path) -> None:
    with dts_up(home) as up:
        done = up.submit(["/bin/true"])["id"]
        until_sync(lambda: completed(up, done))
        later = up.submit(["/bin/true"], delay="1h")["id"]
        family = up.family()
        assert up.stop() == 0
        assert not any(process.is_running() for process in family)
    with dts_up(home) as up:
        assert up.task(done)["status"] == "completed"
        assert up.task(later)["status"] == "pending"
        assert up.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("away", ["os.close(1)", "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"])
def test_it_goes_on_although_nobody_can_be_told_that_it_is_ready(home: Path, away: str) -> None:
    again = f"import os, sys; {away}; os.execv(sys.executable, [sys.executable, '-m', 'scheduler', *sys.argv[1:]])"
    with dts_up(home, program=("-c", again)) as up:
        assert up.url == ""
        up.url = until_sync(lambda: f"http://127.0.0.1:{listens_on(up.role('dts-api'))}", 30)
        until_sync(lambda: up.request("GET", "/health/ready").json()["workers"], 30)
        done = up.submit(["/bin/true"])["id"]
        until_sync(lambda: completed(up, done))
        assert up.stop() == 0, "".join(up.log)


def test_a_second_one_on_the_same_directory_is_refused(up: Up) -> None:
    with dts_up(up.data) as second:
        assert second.wait() == 75
        assert f"in use by another dts up (process {up.process.pid})" in "".join(second.log)
    up.task(up.submit(["/bin/true"])["id"])


def test_a_port_that_is_taken_is_said_to_be(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with dts_up(home, port=port) as up:
            assert up.wait() == 69
            assert f"cannot listen on 127.0.0.1:{port}" in "".join(up.log)


def test_a_server_that_cannot_start_is_said_to_be_and_why(home: Path) -> None:
    (home / "postgres").mkdir()
    (home / "postgres/PG_VERSION").write_text("18\n")
    with dts_up(home) as up:
        assert up.wait() == 69
        log = "".join(up.log)
        assert "before it was ready:\n" in log
        assert "could not access the server configuration file" in log
        assert "Traceback" not in log


def test_a_database_that_refuses_the_schema_is_said_to_and_why(home: Path, empty_database_url: str) -> None:
    with dts_up(home, "--database-url", f"{empty_database_url}&role=pg_monitor") as up:
        assert up.wait() == 1
        log = "".join(up.log)
        assert "permission denied for schema public" in log
        assert "Traceback" not in log


def test_wrong_settings_are_said_at_once(home: Path) -> None:
    with dts_up(home, "--workers", "many", "--log-level", "loud") as up:
        assert up.wait() == 78
        assert "up.workers" in "".join(up.log)
        assert "log.level" in "".join(up.log)


def test_roles_get_the_settings_that_it_was_given_and_secrets_stay_in_their_files(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    (home / "key").write_text(key)
    (home / "a.toml").write_text('[worker]\nlabels = {gpu = "a100,h100"}\n')
    (home / "b.toml").write_text('[worker]\nqueues = ["b"]\n')
    monkeypatch.setenv("DTS_CONFIG", str(home / "b.toml"))
    monkeypatch.setenv("DTS_SECRETS__MASTER_KEY_FILE", str(home / "key"))
    with dts_up(home / "data", "--config", str(home / "a.toml")) as up:
        assert up.url, "".join(up.log)
        (worker,) = up.request("GET", "/api/workers").json()["items"]
        assert (worker["queues"], worker["labels"]["gpu"]) == (["default"], "a100,h100")
        assert not any(key in value for value in up.role("dts-guard").environ().values())
        assert not (home / "data/master.key").exists()
        assert up.request("POST", "/api/secrets", json={"name": "s", "value": "hidden"}).status_code == 201


@pytest.mark.parametrize(
    ("role", "number"),
    [(role, signal.SIGKILL) for role in ("dts-api", "dts-scheduler", "dts-worker", "dts-guard")]
    + [("dts-guard", signal.SIGTERM)],
)
def test_a_role_that_is_killed_is_replaced_and_work_goes_on(up: Up, role: str, number: signal.Signals) -> None:
    victim = up.role(role)
    victim.send_signal(number)
    until_sync(lambda: up.role(role).pid != victim.pid, 20)
    identifier = until_sync(lambda: up.submit(["/bin/true"]), 20)["id"]
    until_sync(lambda: completed(up, identifier), 30)


def test_nothing_outlives_a_supervisor_that_is_killed_and_the_next_one_starts(home: Path) -> None:
    with dts_up(home) as up:
        done = up.submit(["/bin/true"])["id"]
        until_sync(lambda: completed(up, done))
        family = up.family()
        os.kill(up.process.pid, signal.SIGKILL)
        until_sync(lambda: not any(alive(process) for process in family), 30)
    with dts_up(home) as up:
        assert up.url, "".join(up.log)
        assert up.task(done)["status"] == "completed"


def test_an_interrupt_while_it_starts_ends_it(home: Path) -> None:
    # In this callback Python drops the exception that it makes of an interrupt.
    starting = (
        "import os, signal, sys; from scheduler.cli import main;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # whoever runs the tests may ignore it
        "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT));"
        "main(sys.argv[1:])"
    )
    with dts_up(home, program=("-c", starting)) as up:
        assert up.wait() == -signal.SIGINT
        until_sync(
            lambda: not any(str(home) in word for process in psutil.process_iter() for word in words(process)), 30
        )


def test_running_commands_may_finish_before_it_stops(up: Up, home: Path) -> None:
    marks = home / "marks"
    marks.mkdir()
    marks.chmod(0o777)
    wait = f"for i in $(seq 1200); do [ -e {marks}/go ] && exec touch {marks}/finished; sleep 0.05; done"
    script = f"touch {marks}/started; {wait}"
    up.submit(script)
    until_sync((marks / "started").exists)
    up.process.send_signal(signal.SIGTERM)
    until_sync(lambda: any("stopping" in line for line in up.log))
    (marks / "go").touch()
    assert up.wait() == 0
    assert (marks / "finished").exists()


def test_what_the_drain_left_running_has_its_kill_timeout(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = "import sys; from scheduler.cli import main, supervise; supervise._ROLE_PATIENCE = 1.0; main(sys.argv[1:])"
    marks = home / "marks"
    marks.mkdir()
    marks.chmod(0o777)
    monkeypatch.setenv("DTS_WORKER__DRAIN_TIMEOUT", "0")
    with dts_up(home / "data", program=("-c", hasty)) as up:
        assert up.url, "".join(up.log)
        trap = f"trap 'sleep 3; touch {marks}/finished; exit' TERM"
        up.submit(f"{trap}; touch {marks}/started; while :; do sleep 0.05; done", kill_timeout=20)
        until_sync((marks / "started").exists)
        assert up.stop() == 0
    assert (marks / "finished").exists()


def test_a_worker_that_was_drained_stays_away(up: Up) -> None:
    (worker,) = up.request("GET", "/api/workers").json()["items"]
    assert up.request("POST", f"/api/workers/{worker['id']}/drain").status_code == 202
    until_sync(lambda: any("role has left, and is not started again" in line for line in up.log), 30)
    assert not {"dts-guard", "dts-worker"} & {process.name() for process in up.family()}
    assert up.request("GET", "/api/workers").json()["items"][0]["state"] == "left"
    assert up.stop() == 0


def listens_on(process: psutil.Process) -> int:
    (port,) = {found.laddr.port for found in process.net_connections("tcp4") if found.status == psutil.CONN_LISTEN}
    return port


def words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False

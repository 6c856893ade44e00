"""Servers by name, and whose key goes where."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from scheduler.cli import exits
from tests.cli.conftest import Dts


class Listener(ThreadingHTTPServer):
    """Answers every request with no items, and remembers what headers came."""

    seen: list[dict[str, str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Listener)
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        body = b'{"items": [], "next_cursor": null}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener(("127.0.0.1", 0), _Handler) as server:
        server.seen = []
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def dts(dts: Dts, monkeypatch: pytest.MonkeyPatch) -> Dts:
    """Run `dts` where nothing says yet which server is meant."""
    for name in ("DTS_SERVER", "DTS_CONTEXT", "DTS_API_KEY", "DTS_API_KEY_FILE", "DTS_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return dts


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "dts"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text("dts_1.secret\n")
    file.chmod(0o600)
    return file


def test_the_first_context_is_used_until_another_is_chosen(dts: Dts, listener: Listener) -> None:
    assert dts("context", "list").items == []
    assert dts("context", "add", "here", listener.url, "--namespace", "team").code == exits.OK
    added = dts("context", "add", "there", "http://127.0.0.1:1")
    assert "still go to here" in added.err
    assert [(c["name"], c["current"]) for c in dts("context", "list").items] == [("here", True), ("there", False)]
    assert dts("queue", "list").code == exits.OK
    assert listener.seen[-1]["dts-namespace"] == "team"
    assert dts("context", "use", "there").code == exits.OK
    assert dts("queue", "list").code == exits.UNAVAILABLE
    assert dts("queue", "list", "--context", "here").code == exits.OK


def test_a_key_is_stored_for_its_owner_only_and_sent_to_its_server_only(
    dts: Dts, home: Path, listener: Listener, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with key_file.open() as keys:
        monkeypatch.setattr("sys.stdin", keys)
        assert dts("context", "add", "prod", listener.url, "--key").code == exits.OK
    stored = home / "keys" / "prod"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert "secret" not in (home / "contexts.toml").read_text()
    dts("queue", "list")
    assert listener.seen[-1]["authorization"] == "Bearer dts_1.secret"
    dts("queue", "list", "--server", listener.url)
    assert "authorization" not in listener.seen[-1]
    assert dts("context", "remove", "prod").code == exits.OK
    assert not stored.exists()


def test_what_is_not_said_again_stays_with_its_server_and_with_no_other(
    dts: Dts, home: Path, listener: Listener, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = home / "keys" / "prod"
    with key_file.open() as keys:
        monkeypatch.setattr("sys.stdin", keys)
        dts("context", "add", "prod", listener.url, "--key")
    assert dts("context", "add", "prod", f"{listener.url}/", "--namespace", "team").code == exits.OK
    dts("queue", "list")
    assert listener.seen[-1]["authorization"] == "Bearer dts_1.secret"
    assert listener.seen[-1]["dts-namespace"] == "team"
    dts("context", "add", "prod", listener.url, "--key-file", stored)
    assert stored.exists(), "it is used"
    assert dts("context", "add", "prod", listener.url.replace("127.0.0.1", "localhost")).code == exits.OK
    assert not stored.exists()
    dts("queue", "list")
    assert "authorization" not in listener.seen[-1]
    assert "dts-namespace" not in listener.seen[-1]


def test_removing_a_context_leaves_no_key_behind(dts: Dts, home: Path, key_file: Path) -> None:
    dts("context", "add", "prod", "https://x", "--key-file", key_file)
    stored = home / "keys" / "prod"
    stored.parent.mkdir()
    stored.write_text("dts_0.left\n")  # by a release that forgot it
    assert dts("context", "remove", "prod").code == exits.OK
    assert not stored.exists()
    assert key_file.exists()


def test_a_key_that_others_can_read_is_refused_with_what_to_do(dts: Dts, listener: Listener, key_file: Path) -> None:
    dts("context", "add", "prod", listener.url, "--key-file", key_file)
    key_file.chmod(0o644)
    done = dts("queue", "list")
    assert done.code == exits.CONFIG
    assert f"chmod 600 {key_file}" in done.err
    assert listener.seen == []


def test_the_environment_says_where_to_go_and_with_which_key(
    dts: Dts, listener: Listener, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dts("context", "add", "elsewhere", "http://127.0.0.1:1")
    monkeypatch.setenv("DTS_SERVER", listener.url)
    monkeypatch.setenv("DTS_API_KEY_FILE", str(key_file))
    assert dts("queue", "list").code == exits.OK
    assert listener.seen[-1]["authorization"] == "Bearer dts_1.secret"
    monkeypatch.setenv("DTS_API_KEY", "dts_2.other")
    both = dts("queue", "list")
    assert both.code == exits.CONFIG
    assert "leave one" in both.err


def test_inside_a_task_commands_go_to_its_own_server(
    dts: Dts, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTS_API_URL", listener.url)
    assert dts("queue", "list").code == exits.OK


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("queue", "list", "--context", "nope"), exits.CONFIG, "dts context add nope URL"),
        (("queue", "list", "--context", "a", "--server", "http://x"), exits.USAGE, "give one of them"),
        (("context", "use", "nope"), exits.USAGE, "dts context list"),
        (("context", "remove", "nope"), exits.USAGE, "dts context list"),
        (("context", "add", "../x", "http://x"), exits.USAGE, "no name for a context"),
        (("context", "add", "x", "example.org"), exits.USAGE, "http://host:port"),
        (("context", "add", "x", "https://x", "--ca-file", "/no/such"), exits.USAGE, "/no/such: No such file"),
    ],
)
def test_mistakes_are_said_with_what_would_be_right(
    dts: Dts, home: Path, words: tuple[str, ...], code: int, complaint: str
) -> None:
    done = dts(*words)
    assert done.code == code
    assert complaint in done.err
    assert not (home / "contexts.toml").exists()


def test_a_file_that_cannot_be_read_is_named(dts: Dts, home: Path) -> None:
    home.mkdir()
    (home / "contexts.toml").write_text("current = 3\n")
    done = dts("queue", "list")
    assert done.code == exits.CONFIG
    assert "contexts.toml: Expected `str" in done.err

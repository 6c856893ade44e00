from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scheduler.cli import exits
from tests.cli.conftest import Dts

CRONTAB = """\
# comment
CRON_TZ=Europe/Berlin
MAILTO=ops
0 3 * * * backup --all
*/5 * * * * mail -s %hello%world
@reboot start
61 * * * * wrong
"""


@pytest.fixture
def crontab(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A crontab under a name that no other test uses."""
    file = tmp_path / request.node.name.removeprefix("test_")[:40]
    file.write_text(CRONTAB)
    return file


def results(items: list[Any]) -> list[tuple[int, str]]:
    return [(item["line"], item["result"]) for item in items]


def test_a_dry_run_needs_no_server_and_says_what_cannot_be(dts: Dts, crontab: Path) -> None:
    done = dts("crontab", "import", "--dry-run", crontab)
    assert done.code == exits.FAILURE
    assert results(done.items) == [(4, "would make"), (5, "would make"), (6, "refused"), (7, "refused")]
    assert "2 of 4 lines could not be taken over" in done.err
    backup, mail, reboot, wrong = done.items
    assert (backup["timezone"], backup["schedule"]) == ("Europe/Berlin", "0 3 * * *")
    assert backup["next_fire_at"] is not None
    assert "standard input" in mail["notes"][0]
    assert "@reboot" in reboot["problem"]
    assert "61" in wrong["problem"]
    assert wrong["source"] == "61 * * * * wrong"


def test_a_crontab_comes_through_a_pipe(dts: Dts, crontab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with crontab.open() as piped:
        monkeypatch.setattr("sys.stdin", piped)
        done = dts("crontab", "import", "--dry-run", "-")
    assert results(done.items)[:2] == [(4, "would make"), (5, "would make")]
    assert done.items[0]["name"] == "stdin-4-backup"


@pytest.mark.parametrize(
    ("variable", "link", "file", "zone"),
    [
        (":Asia/Tokyo", "Europe/Paris", "Europe/Rome", "Asia/Tokyo"),
        ("", "Europe/Paris", "Europe/Rome", "Europe/Paris"),
        ("", "copy", "Europe/Rome\n", "Europe/Rome"),
        ("", "copy", None, None),
        ("", None, None, "UTC"),
    ],
)
def test_the_zone_is_this_machines_or_has_to_be_said(
    dts: Dts,
    crontab: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    link: str | None,
    file: str | None,
    zone: str | None,
) -> None:
    localtime, timezone = tmp_path / "localtime", tmp_path / "timezone"
    if link == "copy":
        localtime.write_bytes(b"TZif2")
    elif link is not None:
        localtime.symlink_to(f"/usr/share/zoneinfo/{link}")
    if file is not None:
        timezone.write_text(file)
    monkeypatch.setenv("TZ", variable)
    monkeypatch.setattr("scheduler.cli.crontab._LOCALTIME", localtime)
    monkeypatch.setattr("scheduler.cli.crontab._TIMEZONE", timezone)
    said = "CRON_TZ=Europe/Berlin\n0 3 * * * b\n"
    crontab.write_text(f"0 3 * * * a\n{said}")
    done = dts("crontab", "import", "--dry-run", crontab)
    if zone is not None:
        assert [item["timezone"] for item in done.items] == [zone, "Europe/Berlin"]
    else:
        assert (done.code, done.out) == (exits.USAGE, "")
        assert f"{crontab}:1: " in done.err
        assert "give --timezone" in done.err
        assert dts("crontab", "import", "--dry-run", "--timezone", "Asia/Tokyo", crontab).code == exits.OK
        crontab.write_text(said)
        assert dts("crontab", "import", "--dry-run", crontab).code == exits.OK


def test_a_file_without_mistakes_is_a_success(dts: Dts, crontab: Path) -> None:
    crontab.write_text("@daily true\n")
    assert dts("crontab", "import", "--dry-run", crontab).code == exits.OK


def test_tasks_are_made_once_however_often_a_file_is_imported(remote: Dts, crontab: Path) -> None:
    first = remote("crontab", "import", "--queue", "nobody-reads-this", crontab)
    assert results(first.items) == [(4, "created"), (5, "created"), (6, "refused"), (7, "refused")]
    task = remote("task", "show", first.items[1]["id"]).item
    assert (task["command"], task["stdin"]) == ("mail -s", "hello\nworld\n")
    assert (task["queue"], task["timezone"]) == ("nobody-reads-this", "Europe/Berlin")
    again = remote("crontab", "import", "--queue", "nobody-reads-this", crontab)
    assert results(again.items)[:2] == [(4, "unchanged"), (5, "unchanged")]
    assert [item["id"] for item in again.items] == [item["id"] for item in first.items]


def test_a_changed_file_changes_what_was_changed_in_it(remote: Dts, crontab: Path) -> None:
    crontab.write_text("0 1 * * * one\n0 2 * * * two\n0 3 * * * three\n0 4 * * * four\n")
    flags = ("crontab", "import", "--queue", "nobody-reads-this", crontab)
    one, two, three, four = (item["id"] for item in remote(*flags).items)
    crontab.write_text("0 0 * * * new\n0 1 * * * one\n0 3 * * * three\n30 4 * * * four\n")
    done = remote(*flags)
    assert [(item["line"], item["result"], item["id"]) for item in done.items[1:]] == [
        (2, "moved", one),
        (3, "unchanged", three),
        (4, "updated", four),
        (2, "left over", two),
    ]
    assert done.items[0]["result"] == "created"
    assert "--prune deletes them" in done.err
    assert remote("task", "show", two).code == exits.OK
    assert remote(*flags, "--prune").items[-1]["result"] == "deleted"
    assert remote("task", "show", two).code == exits.FAILURE
    assert {item["result"] for item in remote(*flags).items} == {"unchanged"}


def test_what_a_mistyped_line_was_made_into_is_not_pruned(remote: Dts, crontab: Path) -> None:
    flags = ("crontab", "import", "--queue", "nobody-reads-this", "--prune", crontab)
    crontab.write_text("0 1 * * * one\n0 2 * * * two\n@reboot three\n")
    one, two, _ = (item["id"] for item in remote(*flags).items)
    crontab.write_text("0 25 * * * one\n@reboot three\n")
    done = remote(*flags)
    assert results(done.items[:2]) == [(1, "refused"), (2, "refused")]
    assert sorted(results(done.items[2:])) == [(1, "left over"), (2, "left over")]
    assert "2 tasks may be of lines that could not be taken over" in done.err
    assert "--prune deletes them" not in done.err
    assert [remote("task", "show", task).code for task in (one, two)] == [exits.OK, exits.OK]
    crontab.write_text("0 3 * * * one\n@reboot three\n")
    mended = remote(*flags)
    assert results(mended.items) == [(1, "updated"), (2, "refused"), (2, "deleted")]
    assert [item["id"] for item in mended.items] == [one, None, two]


def test_what_an_edited_line_was_made_into_is_not_pruned_if_the_server_refuses_it(remote: Dts, crontab: Path) -> None:
    flags = ("crontab", "import", "--queue", "nobody-reads-this", "--prune", crontab)
    crontab.write_text("0 1 * * * one\n")
    one = remote(*flags).item["id"]
    remote("submit", "--name", f"{crontab.name}-1-two", "--schedule", "@yearly", "--", "true")
    crontab.write_text("0 1 * * * two\n")
    assert results(remote(*flags).items) == [(1, "refused"), (1, "left over")]
    assert remote("task", "show", one).code == exits.OK


def test_an_empty_file_prunes_nothing(remote: Dts, crontab: Path) -> None:
    flags = ("crontab", "import", "--queue", "nobody-reads-this", "--prune", crontab)
    crontab.write_text("0 1 * * * one\n")
    one = remote(*flags).item["id"]
    for nothing in ("", " \n\n"):
        crontab.write_text(nothing)
        done = remote(*flags)
        assert (done.code, done.out) == (exits.USAGE, "")
        assert f"{crontab} is empty" in done.err
    assert remote("task", "show", one).code == exits.OK
    crontab.write_text("# 0 1 * * * one\n")
    assert results(remote(*flags).items) == [(1, "deleted")]


def test_a_name_that_a_task_of_another_origin_has_is_refused_for_that_line_alone(remote: Dts, crontab: Path) -> None:
    crontab.write_text("0 1 * * * one\n0 2 * * * two\n")
    taken = f"{crontab.name}-1-one"
    remote("submit", "--name", taken, "--schedule", "@yearly", "--", "true")
    done = remote("crontab", "import", "--queue", "nobody-reads-this", crontab)
    assert results(done.items) == [(1, "refused"), (2, "created")]
    assert "already" in done.items[0]["problem"]


def test_two_files_of_one_name_are_told_apart_by_a_prefix(dts: Dts, tmp_path: Path) -> None:
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "tab").write_text("@daily x\n")
    both = (tmp_path / "a" / "tab", tmp_path / "b" / "tab")
    assert dts("crontab", "import", "--dry-run", *both).code == exits.USAGE
    assert dts("crontab", "import", "--dry-run", "--name-prefix", "b-", both[1]).item["name"] == "b-tab-1-x"


def test_system_crontabs_name_a_user(dts: Dts, crontab: Path) -> None:
    crontab.write_text("0 1 * * * root one\n")
    assert dts("crontab", "import", "--system", "--dry-run", crontab).item["problem"] is None
    assert "system format" in dts("crontab", "import", "--dry-run", crontab).item["notes"][0]


@pytest.mark.parametrize("words", [(), ("/no/such/file",), ("--name-prefix", "a/b", "x")])
def test_mistakes_are_usage_errors(dts: Dts, words: tuple[str, ...]) -> None:
    assert dts("crontab", "import", *words).code == exits.USAGE


def test_a_file_that_is_not_utf8_says_where(dts: Dts, crontab: Path) -> None:
    crontab.write_bytes(b"@daily x\n@daily caf\xe9\n")
    assert ":2: not UTF-8" in dts("crontab", "import", crontab).err

"""Crontabs as they are found, turned into tasks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from scheduler.domain.crontab import CrontabEntry, parse_crontab
from scheduler.domain.task import TaskSpec

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def read(text: str, *, system: bool = False, source: str = "jobs.crontab") -> list[CrontabEntry]:
    return parse_crontab(text, source=source, now=NOW, system=system)


def only(text: str, *, system: bool = False) -> TaskSpec:
    (entry,) = read(text, system=system)
    assert entry.task is not None, entry.problem
    return entry.task


def problem(text: str, *, system: bool = False) -> str:
    (entry,) = read(text, system=system)
    assert entry.problem is not None
    return entry.problem


def test_comments_blank_lines_and_variables_are_no_entries() -> None:
    text = "# a comment\n\n  \t\n  # another\nPATH=/bin\n0 5 * * *\t/bin/backup\n#last"
    (entry,) = read(text)
    assert (entry.line, entry.source) == (6, "0 5 * * *\t/bin/backup")
    assert entry.task is not None
    assert (entry.task.schedule, entry.task.command, entry.task.env) == ("0 5 * * *", "/bin/backup", {"PATH": "/bin"})
    assert entry.task.labels == {"crontab": "jobs.crontab:6"}
    assert entry.task.timeout is None


def test_a_last_line_without_its_end_and_dos_line_ends_are_read() -> None:
    assert [e.task.command for e in read("0 1 * * * one\r\n0 2 * * * two") if e.task] == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("A=b c", "A", "b c"),
        ("A = b", "A", "b"),
        ('A="b c"', "A", "b c"),
        ("A='b'", "A", "b"),
        ("'A'=b", "A", "b"),
        ('A=""  # nothing', "A", ""),
        ("A=b # c", "A", "b # c"),
        ("A=", "A", ""),
        ("A=unix:path=/run/bus", "A", "unix:path=/run/bus"),
        ("A=$HOME/x", "A", "$HOME/x"),
        ('A="b" and "c"', "A", '"b" and "c"'),
    ],
)
def test_a_variable_is_read_as_cron_reads_it(line: str, name: str, value: str) -> None:
    assert only(f"{line}\n@daily x").env == {name: value}


def test_variables_count_from_their_line_on() -> None:
    first, second = read("0 1 * * * one\nA=1\n0 2 * * * two")
    assert first.task is not None
    assert second.task is not None
    assert (first.task.env, second.task.env) == ({}, {"A": "1"})


def test_shell_home_zone_and_mail_have_their_own_meaning() -> None:
    task = only("SHELL=/bin/bash\nHOME=/srv\nCRON_TZ=America/New_York\nMAILTO=ops\n0 9 * * 1-5 echo $0")
    assert task.command == ["/bin/bash", "-c", "echo $0"]
    assert (task.workdir, task.timezone) == ("/srv", "America/New_York")
    assert task.env == {"SHELL": "/bin/bash", "HOME": "/srv"}
    assert only("SHELL=/bin/sh\n@daily x").command == "x"


def test_what_the_clock_leaves_out_runs_right_after_as_in_cron() -> None:
    assert only("30 2 * * * x").dst_gap == "shift"


@pytest.mark.parametrize("macro", ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"])
def test_macros_are_schedules(macro: str) -> None:
    task = only(f"{macro}   $GET x")
    assert (task.schedule, task.command) == (macro, "$GET x")


def test_every_takes_its_duration_along() -> None:
    task = only("@every 1m30s worker echo a; echo b", system=True)
    assert (task.schedule, task.user, task.command) == ("@every 1m30s", "worker", "echo a; echo b")


@pytest.mark.parametrize(
    ("line", "schedule", "command"),
    [
        ("* * * * * * * echo hello", "* * * * * * *", "echo hello"),
        ("*/5 * * * * * echo hello", "*/5 * * * * *", "echo hello"),
        ("0 30 9 ? * MON-FRI report", "0 30 9 ? * MON-FRI", "report"),
        ("0 0 0 1 1 ? 2030-2040 report", "0 0 0 1 1 ? 2030-2040", "report"),
        ("00 12 * * mon,Wed x", "00 12 * * mon,Wed", "x"),
        ("*/11\t*\t*  * *  /bin/x  y", "*/11 * * * *", "/bin/x  y"),
        ("0 22,23,0,1 1-31/2 9,10 7 x", "0 22,23,0,1 1-31/2 9,10 7", "x"),
        ("0 5 * * 1 7z a b", "0 5 * * 1", "7z a b"),
        ("0 5 * * 1 @x@ y", "0 5 * * 1", "@x@ y"),
    ],
)
def test_fields_end_where_the_command_begins(line: str, schedule: str, command: str) -> None:
    task = only(line)
    assert (task.schedule, task.command) == (schedule, command)


def test_in_the_system_format_a_user_stands_before_the_command() -> None:
    task = only("17 *\t* * *\twww-data   cd / && run-parts --report /etc/cron.hourly", system=True)
    assert (task.user, task.command) == ("www-data", "cd / && run-parts --report /etc/cron.hourly")
    assert only("*/5 * * * * * root x", system=True).user == "root"


@pytest.mark.parametrize(
    ("line", "command", "stdin"),
    [
        ("0 5 * * * mail x%Hello%World", "mail x", "Hello\nWorld\n"),
        ("0 5 * * * mail x%", "mail x", ""),
        ("0 5 * * * mail x%one%", "mail x", "one\n"),
        (r"0 5 * * * date +\%Y", "date +%Y", None),
        (r"0 5 * * * date +\%Y%a\%b\n", "date +%Y", "a%b\\n\n"),
        (r"0 5 * * * echo \\%x", "echo \\\\", "x\n"),
        ("0 0 5 * * * date +%Y", "date +%Y", None),  # seconds: not a dialect in which % means anything
        ("@every 1h date +%Y", "date +%Y", None),
        ("@daily cat%x", "cat", "x\n"),
        ("0 5 * * * x # not a comment", "x # not a comment", None),
    ],
)
def test_a_percent_sign_begins_standard_input_unless_escaped(line: str, command: str, stdin: str | None) -> None:
    task = only(line)
    assert (task.command, task.stdin) == (command, stdin)


def test_standard_input_is_pointed_out() -> None:
    (entry,) = read("0 5 * * * date +%Y")
    assert "standard input" in entry.notes[0]
    assert read(r"0 5 * * * date +\%Y")[0].notes == ()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("0 30 * * * x", "hour: 30 is out of range"),
        ("? 6 * * * x", "minute: '?' stands only for"),
        ("@reboot x", "@reboot is not a time"),
        ("@fortnightly x", "is unknown"),
        ("@every x y", "whole seconds"),
        ("* * * * x", "day of week: 'X' is not understood"),
        ("* * *", "3 fields are too few"),
        ("* * * * *", "there is no command"),
        ("@daily", "there is no command"),
        ("nonsense", "too few"),
        ("0 0 31 2 * x", "never comes"),
        ("0 5 * * * x\0y", "NUL"),
        ("CRON_TZ=Mars\n0 5 * * * x", "is no time zone"),
        ("DTS_FENCE=1\n0 5 * * * x", "set by the scheduler itself"),
        ("0 5 * * * %x", "is empty"),
    ],
)
def test_a_line_that_cannot_be_kept_says_why(line: str, complaint: str) -> None:
    assert complaint in problem(line)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("_ */3 * * * *     root    update", "minute: '_' is not understood"),
        ("* * * * someone echo x", "day of week: 'SOMEONE' is not understood"),
        ("0 5 * * * /bin/backup now", "is no user name"),
        ("0 5 * * * root", "there is no command"),
        ("0 5 * * *", "there is no user"),
        ("@daily", "there is no user"),
    ],
)
def test_a_system_line_that_cannot_be_kept_says_why(line: str, complaint: str) -> None:
    assert complaint in problem(line, system=True)


def test_a_user_in_a_users_crontab_is_pointed_out() -> None:
    (entry,) = read("0 5 * * * root /bin/backup")
    assert "system format" in entry.notes[0]


def test_one_bad_line_spoils_no_other() -> None:
    entries = read("0 30 * * * bad\n0 5 * * * good")
    assert [(e.line, e.task is not None) for e in entries] == [(1, False), (2, True)]


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("/usr/bin/backup --now", "backup"),
        ("cd /srv/app && ./run.sh x", "run.sh"),
        ('PATH="$PATH:/x y/" A=b pihole update', "pihole"),
        (". ~/.profile; $HOME/bin/job", "job"),
        ("(sleep 5; x)", "sleep"),
        ("/bin/sh -c 'a b'", "sh"),
        ("A=" + "a" * 5000, "A-" + "a" * 98),
    ],
)
def test_a_name_is_made_of_file_line_and_program(command: str, word: str) -> None:
    assert only(f"0 5 * * * {command}").name == f"jobs-1-{word}"


def test_names_are_unique_in_a_file_and_the_same_at_each_reading() -> None:
    text = "0 5 * * * x\n0 5 * * * x\n\n0 5 * * * x\n"
    names = [entry.task.name for entry in read(text) if entry.task]
    assert names == ["jobs-1-x", "jobs-2-x", "jobs-4-x"]
    assert read(text) == read(text)
    assert read("@daily x", source="/etc/cron.d/my jobs!")[0].task is not None
    assert [e.task.name for e in read("@daily x", source="/etc/cron.d/my jobs!") if e.task] == ["my-jobs-1-x"]

"""The loader of named statements."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

import scheduler
from scheduler.domain.run import TRANSITIONS
from scheduler.store.statements import STATEMENTS, load, parse


def test_a_file_is_split_into_named_statements_and_fragments() -> None:
    statements, fragments = parse("-- name: a\n-- x → y\nSELECT 1;\n\n-- fragment: f\nSELECT 2\n")
    assert statements == {"a": "-- x → y\nSELECT 1;"}
    assert fragments == {"f": "SELECT 2"}


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a is defined twice"):
        parse("-- name: a\nSELECT 1\n-- name: a\nSELECT 2\n")


def test_an_include_takes_in_a_fragment_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "one.sql").write_text("-- name: a\nSELECT\n  -- include: columns\nFROM t;\n")
    (tmp_path / "two.sql").write_text("-- fragment: columns\nx, y\n")
    assert load(tmp_path)["a"] == "SELECT\nx, y\nFROM t"


def test_an_unknown_fragment_and_a_name_in_two_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.sql").write_text("-- name: a\n-- include: missing\n")
    with pytest.raises(ValueError, match="no fragment missing"):
        load(tmp_path)
    (tmp_path / "one.sql").write_text("-- name: a\nSELECT 1\n")
    (tmp_path / "two.sql").write_text("-- name: a\nSELECT 1\n")
    with pytest.raises(ValueError, match=r"two\.sql defines again: a"):
        load(tmp_path)


WRITES = re.compile(r"INSERT INTO|DELETE FROM|(?<!FOR )(?<!KEY )UPDATE|dts_(settle|create|detach|drop)_\w+\(")
OF_THE_SESSION = {"be_brief", "be_quick", "force_log", "end_blockers"}
"""Statements that change no row: how long the session waits or works, what is on disk, who else has a session."""


def test_a_statement_that_writes_is_headed_by_its_transition_and_any_other_by_what_it_reads_or_keeps() -> None:
    headless = []
    for name, text in STATEMENTS.items():
        head = "".join(takewhile(lambda line: line.startswith("--"), text.splitlines(keepends=True)))
        writes = WRITES.search(re.sub("--.*", "", text))
        if not re.match(r"-- .+ → " if writes else r"-- (reads|keeps)\b", head):
            headless.append(name)
    assert set(headless) == OF_THE_SESSION


def test_every_transition_of_a_run_that_a_statement_announces_is_one_of_the_machine() -> None:
    """`x → y` with run states on both sides must be a documented transition, or change nothing but counters."""
    states = set(TRANSITIONS)
    for name, text in STATEMENTS.items():
        for line in (line for line in text.splitlines() if line.startswith("-- ") and "→" in line):
            origins, _, targets = line[3:].partition("→")
            sources = [word for word in re.findall(r"\w+", origins) if word in states]
            ends = [word for word in re.findall(r"\w+", re.split("[,:;]", targets)[0]) if word in states]
            for source in sources:
                for end in ends:
                    assert end == source or end in TRANSITIONS[source], f"{name}: {source} → {end} is no transition"


def test_every_statement_that_is_asked_for_exists_and_is_asked_for() -> None:
    asked, named = set(), set()
    for path in Path(scheduler.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant):
                named.add(node.value)
            if isinstance(node, ast.Call):
                asked.update(_statements_asked_for(node))
    assert sorted(asked - STATEMENTS.keys()) == []
    assert sorted(STATEMENTS.keys() - named) == []


def _statements_asked_for(call: ast.Call) -> Iterator[str]:
    """Give the names that are passed to an executor; what has spaces is SQL for a plain connection."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in {"fetch", "fetchrow", "fetchval", "execute"}:
        return
    for argument in call.args[:1]:
        for node in ast.walk(argument):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+", node.value):
                yield node.value

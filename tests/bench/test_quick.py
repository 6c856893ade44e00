from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.child import ROOT, environment
from bench.report import read

QUESTIONS = ("spawn_limit", "dispatch_only", "bulk_true", "batch_submit", "single_posts", "chain", "fan_out_in")


@pytest.mark.alone
def test_a_quick_run_answers_every_question_and_keeps_its_margins(tmp_path: Path) -> None:
    out = tmp_path / "results"
    command = [sys.executable, "-m", "bench", "--quick", "--out", str(out), *QUESTIONS]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = read(out / "bench.json")
    assert [answer.question for answer in report.answers] == list(QUESTIONS)
    assert all(answer.measurements for answer in report.answers)
    assert report.machine["python"]
    assert "ns from" in report.machine["a load from memory"]
    assert report.settings["postgresql fsync"] == "on"
    assert (out / "bench.md").exists()
    for suffix in ("png", "svg"):
        assert list((out / "plots").glob(f"bulk_true-*.{suffix}"))


def test_an_unknown_question_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--out", str(tmp_path), "what"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "unknown: what" in done.stderr
    assert "bulk_true" in done.stderr
    assert not list(tmp_path.iterdir())

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.cli import bench
from bench.compare import compare, regressions
from bench.model import Bound
from bench.report import markdown, read, write
from tests.bench.support import measurement, report


def test_a_report_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    original = report(measurement(1, 2, 3, against=(4, 5, 6), reach=Bound("ratio", least=0.5)))
    write(original, tmp_path)
    assert read(tmp_path / "bench.json") == original


def test_plots_are_well_formed_and_named_in_the_markdown(tmp_path: Path) -> None:
    write(report(measurement(1, 2, 3, name="a < b & c", against=(4, 5, 6)), measurement(0, 0, 0)), tmp_path)
    (image,), (drawing,) = (list((tmp_path / "plots").glob(f"*.{suffix}")) for suffix in ("png", "svg"))
    assert image.read_bytes().startswith(b"\x89PNG")
    assert ET.parse(drawing).getroot().tag.endswith("svg")
    assert f"(plots/{drawing.name})" in (tmp_path / "bench.md").read_text()


def test_markdown_says_whether_a_reach_is_kept_and_escapes_cells() -> None:
    text = markdown(report(measurement(60, against=(100,), reach=Bound("ratio", least=0.5), name="x | y")))
    assert "| x \\| y | 60.0 tasks/s | 60.0 … 60.0 | limit: 100 | 60% | ≥ 50% ✓ |" in text


def test_a_change_is_judged_by_the_ratio_where_there_is_one() -> None:
    before = report(measurement(100, 100, 100, against=(200, 200, 200)))
    after = report(measurement(80, 80, 80, against=(100, 100, 100)))  # a slower machine, a better system
    (change,) = compare(before, after)
    assert (change.by_ratio, change.factor, change.verdict) == (True, 1.6, "gain")


@pytest.mark.parametrize(("after", "verdict"), [(5, "gain"), (20, "regression")])
def test_a_lower_latency_is_a_gain_and_a_higher_one_a_regression(after: float, verdict: str) -> None:
    changes = compare(
        report(measurement(10, 10, 10, better="lower")), report(measurement(after, after, after, better="lower"))
    )
    assert [change.verdict for change in changes] == [verdict]
    assert regressions(changes) == (changes if verdict == "regression" else [])


def test_reports_without_a_spread_are_not_judged() -> None:
    (change,) = compare(report(measurement(10)), report(measurement(5)))
    assert change.verdict == "too few rounds"


def test_comparing_on_the_command_line_fails_if_something_regressed(tmp_path: Path) -> None:
    write(report(measurement(10, 10, 10)), tmp_path / "fast")
    write(report(measurement(5, 5, 5)), tmp_path / "slow")
    fast, slow = tmp_path / "fast" / "bench.json", tmp_path / "slow" / "bench.json"
    assert bench(compare=(fast, slow)) == 1
    assert bench(compare=(slow, fast)) == 0
    assert bench(compare=(slow, tmp_path / "none.json")) == 2


def test_what_was_nothing_and_is_something_is_judged_by_what_is_better(tmp_path: Path) -> None:
    write(report(measurement(0, 0, 0, better="lower")), tmp_path / "none")
    write(report(measurement(5, 5, 5, better="lower")), tmp_path / "lost")
    none, lost = tmp_path / "none" / "bench.json", tmp_path / "lost" / "bench.json"
    assert bench(compare=(none, lost)) == 1
    assert bench(compare=(lost, none)) == 0
    assert bench(compare=(none, none)) == 0


def test_comparing_fails_if_a_question_that_was_answered_no_longer_is(tmp_path: Path) -> None:
    write(report(measurement(10, 10, 10)), tmp_path / "well")
    write(report(error="Unfinished: the workers did not come"), tmp_path / "failed")
    well, failed = tmp_path / "well" / "bench.json", tmp_path / "failed" / "bench.json"
    assert bench(compare=(well, failed)) == 1
    assert bench(compare=(failed, failed)) == 0
    assert bench(compare=(failed, well)) == 0


def test_what_stays_within_the_spread_of_the_rounds_is_no_change() -> None:
    (change,) = compare(report(measurement(90, 100, 110)), report(measurement(105, 112, 118)))
    assert change.verdict == "within the spread"


def test_only_figures_of_both_reports_are_compared() -> None:
    assert compare(report(measurement(1, name="gone")), report(measurement(1, name="new"))) == []

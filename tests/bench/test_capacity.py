from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench import capacity, costmodel
from bench.costmodel import Cost, Load, Site
from bench.model import Answer, Report, Sample, collect
from tests.bench.support import report

TRUTH = {
    "api": Cost(20, 250, 0),
    "postgres": Cost(80, 400, 5_000),
    "scheduler": Cost(5, 50, 6_000),
    "valkey": Cost(20, 40, 2_000),
    "worker": Cost(70, 300, 4_000),
}


def load(name: str, rate: float, transactions: float, requests: float, workers: int = 1) -> Load:
    """A load as it would be measured where the model holds exactly."""
    bare = Load(name, workers, rate, transactions, requests, 2_500, 0.05, {})
    cpu = {
        component: cost.each(bare.batches(component)) + cost.rest * (workers if component == "worker" else 1) / rate
        for component, cost in TRUTH.items()
    }
    return msgspec.structs.replace(bare, cpu=cpu)


LOADS = [
    load("no-op, 1 worker", 4000, 0.1, 0.001),
    load("naps, 1 worker", 120, 0.4, 0.001),
    load("singles at 100/s, 1 worker", 100, 3.0, 1.0),
]
REST = {component: cost.rest for component, cost in TRUTH.items()}


def test_costs_that_follow_the_model_are_found_again() -> None:
    found = costmodel.fit(LOADS, REST)
    for component, cost in TRUTH.items():
        assert found[component].task == pytest.approx(cost.task, rel=1e-6)
        assert found[component].batch == pytest.approx(cost.batch, rel=1e-6)


@pytest.mark.parametrize(
    ("ys", "expected"), [([3, 5, 7], (1, 2)), ([9, 6, 5], (6.02, 0)), ([1, 4, 7], (0, 1.345)), ([4, 4, 4], (4, 0))]
)
def test_no_part_of_a_cost_is_below_zero(ys: list[float], expected: tuple[float, float]) -> None:
    assert costmodel.line([1, 2, 3], ys) == pytest.approx(expected, rel=0.05)


def test_more_workers_rest_more_and_cost_no_more_a_task() -> None:
    two = load("naps, 2 workers", 240, 0.4, 0.001, workers=2)
    predicted = costmodel.predict_cpu(costmodel.fit(LOADS, REST), two)
    assert predicted == pytest.approx(dict(two.cpu))


def test_the_most_is_what_all_cores_give_or_what_one_thread_does() -> None:
    costs = costmodel.fit(LOADS, REST)
    each = {name: cost.each(LOADS[0].batches(name)) for name, cost in TRUTH.items()}
    assert costmodel.most(costs, LOADS[0], workers=1, cores=1) == pytest.approx(1e6 / sum(each.values()))
    assert costmodel.most(costs, LOADS[0], workers=1, cores=100) == pytest.approx(1e6 / each["worker"])
    assert costmodel.most(costs, LOADS[0], workers=100, cores=100) == pytest.approx(1e6 / each["valkey"])


def test_the_first_wall_is_the_lowest_and_moves_with_what_it_is_made_of() -> None:
    costs = costmodel.fit(LOADS, REST)
    small = costmodel.walls(costs, LOADS[0], Site(postgres_cores=1))
    large = costmodel.walls(costs, LOADS[0], Site(postgres_cores=1000))
    assert small == sorted(small, key=lambda wall: wall.rate)
    assert small[0].what == "PostgreSQL: 1 cores"
    assert small[0].rate == pytest.approx(0.8e6 / costs["postgres"].each(0.1))
    assert large[0].what == "Valkey: one thread"


def test_ten_times_the_load_takes_ten_times_the_cores_and_whole_processes() -> None:
    costs = costmodel.fit(LOADS, REST)
    one, ten = (costmodel.plan(costs, LOADS[0], rate, Site()) for rate in (3900, 39_000))
    assert ten.cores["postgres"] == pytest.approx(10 * one.cores["postgres"])
    assert ten.log == 39_000 * 2_500
    assert (one.processes["worker"], ten.processes["worker"]) == (1, 5)
    assert costmodel.plan(costs, LOADS[0], 3900, Site(speed=2)).cores["worker"] == one.cores["worker"] / 2


def _findings() -> Report:
    real = load(capacity.REAL, 1500, 0.2, 0.001)
    real = msgspec.structs.replace(real, cpu={**real.cpu, "worker": real.cpu["worker"] + 200, "commands": 600})
    samples = [
        Sample(name=f"idle: CPU of {component}", value=rest / 1000, unit="ms/s") for component, rest in REST.items()
    ]
    for shape in (*LOADS, real, load("no-op, 2 workers", 3500, 0.1, 0.001, workers=2)):
        figures = {
            "rate": shape.rate,
            "requests": shape.requests,
            "writing transactions": shape.transactions,
            "PostgreSQL's log": shape.log,
            "log forced to disk": shape.syncs,
            **{f"CPU of {component}": used for component, used in shape.cpu.items()},
        }
        samples += [Sample(name=f"{shape.name}: {what}", value=value, unit="") for what, value in figures.items()]
    answer = Answer(question="costs", title="", about="", measurements=collect([samples]), notes=[], seconds=1)
    return msgspec.structs.replace(report(), answers=[answer])


def test_a_report_is_read_as_loads_and_starting_commands_is_told_from_dispatch() -> None:
    shapes, rest = capacity.loads(_findings())
    assert rest == pytest.approx(REST)
    assert shapes["no-op, 2 workers"].workers == 2
    costs = capacity.fitted(shapes, rest)
    assert costs["commands"].task == 600
    assert costs["starting commands"].task == pytest.approx(200, abs=10)


def test_a_report_without_costs_is_refused() -> None:
    with pytest.raises(capacity.Incomplete):
        capacity.loads(report())


def test_the_plan_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(msgspec.json.encode(_findings()))
    monkeypatch.setattr("sys.argv", ["capacity", str(path), "--cores", "2"])
    assert capacity.main() == 0
    printed = capsys.readouterr().out
    assert "Where it ends" in printed
    assert "100 x" in printed
    monkeypatch.setattr("sys.argv", ["capacity", str(tmp_path / "none.json")])
    assert capacity.main() == 2

"""Systems to break: one that the tests of the matrix share, each of which leaves it mended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.servers import Servers
from tests.system.faults.support import Figure, Stamps, reachable_directory

_numbers = itertools.count(1)
_figures: list[str] = []


def pytest_itemcollected(item: pytest.Item) -> None:
    """What is measured is not slowed down by other tests."""
    if "figure" in getattr(item, "fixturenames", ()):
        item.add_marker("alone")


class Timings(msgspec.Struct, frozen=True):
    """How long a term and a lease last, in seconds."""

    lock_ttl: float
    lease: float


@pytest.fixture(
    scope="package",
    params=[
        pytest.param(Timings(1.0, 5.0), id="short"),
        pytest.param(Timings(5.0, 15.0), id="default", marks=pytest.mark.chaos),
    ],
)
def timings(request: pytest.FixtureRequest) -> Timings:
    """As short as can be configured, or those that everybody gets."""
    return request.param


@pytest.fixture(scope="package")
def shared(servers: Servers, timings: Timings) -> Iterator[Cluster]:
    with (
        reachable_directory() as home,
        cluster(
            servers,
            home,
            schedulers=2,
            workers=2,
            lock_ttl=timings.lock_ttl,
            lease=timings.lease,
            network="relay",
        ) as made,
    ):
        yield made


@pytest.fixture
def system(shared: Cluster) -> Iterator[Cluster]:
    """A whole system; what a test breaks is mended after it."""
    yield shared
    shared.mend()


@pytest.fixture
def stamps(shared: Cluster) -> Stamps:
    return Stamps(shared.home / f"stamps-{next(_numbers)}")


@pytest.fixture
def home() -> Iterator[Path]:
    with reachable_directory() as path:
        yield path


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Call it with what was measured, how much it was and how much it may be; figures are shown in the end."""

    def note(what: str, seconds: float, limit: float) -> None:
        _figures.append(f"{request.node.name}: {what} {seconds:.3f} s (at most {limit:g} s)")
        assert seconds <= limit, f"{what}: {seconds:.3f} s, more than {limit:g} s"

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("figures")
        for line in _figures:
            terminalreporter.write_line(line)

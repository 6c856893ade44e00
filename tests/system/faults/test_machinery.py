"""The machinery itself: a fault that does nothing would prove anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.cluster.faults import Cut, in_force
from tests.support.cluster.namespaces import permitted
from tests.support.servers import Servers
from tests.support.waiting import until_sync
from tests.system.faults.support import slow, until_quick


@pytest.fixture(scope="module", params=["relay", slow("namespace")])
def system(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    if request.param == "namespace" and not permitted():
        pytest.skip("no network namespaces here")
    home = tmp_path_factory.mktemp("system")
    for directory in (home, home.parent, home.parent.parent):
        directory.chmod(0o755)
    with cluster(servers, home, network=request.param, worker__concurrency=8) as made:
        yield made


def renewals(system: Cluster) -> int:
    return system.sql("SELECT sum(renewal) FROM worker_leases")[0][0]


@pytest.mark.alone
def test_work_goes_through(system: Cluster) -> None:
    until_quick(system)


@pytest.mark.alone
@pytest.mark.parametrize("direction", ["both", slow("to server"), slow("from server")])
def test_a_cut_way_carries_nothing_until_it_is_mended(system: Cluster, direction: str) -> None:
    (worker,) = system.of("worker")
    connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dts-worker'"
    until_sync(lambda: system.sql(connections)[0][0])
    with in_force(Cut(worker, "postgres", direction)):
        seen = [renewals(system)]

        def still() -> bool:  # at most one that was on its way already
            seen.append(renewals(system))
            return len(seen) > 150

        until_sync(still, 20)
        limit = 1 if direction != "from server" else 3  # those may arrive, and their answers do not
        assert seen[-1] - seen[0] <= limit
    until_sync(lambda: renewals(system) > seen[-1], 15)
    system.until_ready()
    until_quick(system)

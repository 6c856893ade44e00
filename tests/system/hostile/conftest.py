"""One system for all hostile commands: whatever one of them does, the next finds it at work."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.servers import Servers


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory that the account that commands run as can reach; it may write to `home / "notes"`."""
    path = Path(tempfile.mkdtemp(prefix="dts-hostile-", dir="/tmp"))
    path.chmod(0o755)
    notes = path / "notes"
    notes.mkdir()
    notes.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def system(servers: Servers, home: Path) -> Iterator[Cluster]:
    with cluster(servers, home, worker__concurrency=4) as made:
        yield made

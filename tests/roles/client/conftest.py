from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.running import running_system


@pytest.fixture(scope="package")
def server() -> Iterator[str]:
    """A running system that the tests of this package share; each uses names of its own."""
    with running_system() as up:
        yield up.url

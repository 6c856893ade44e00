from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path that every user may pass through: pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="dts-e-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)

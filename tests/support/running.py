"""A whole running system for tests that only use it: started once for a package of tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.up import Up, dts_up


@contextmanager
def running_system(*flags: str) -> Iterator[Up]:
    """Run `dts up` on a directory of its own, which the account that tasks run as can reach too."""
    home = Path(tempfile.mkdtemp(prefix="dts-system-", dir="/tmp"))
    home.chmod(0o755)
    try:
        with dts_up(home, *flags) as up:
            assert up.url, "".join(up.log)
            yield up
    finally:
        shutil.rmtree(home)

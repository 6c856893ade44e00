"""The small C programs of the bench: compiled when first needed, into the run's own directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import anyio

SOURCES = Path(__file__).parent


class Programs:
    """Compiles `<name>.c`; where there is no C compiler, says so instead of measuring something slower."""

    def __init__(self, work: Path) -> None:
        self._directory = work / "programs"
        self._compiler = next(
            (
                path
                for name in (os.environ.get("CC", ""), "cc", "gcc", "clang")
                if name and (path := shutil.which(name))
            ),
            None,
        )

    async def build(self, name: str) -> Path | None:
        """Return the compiled program, which any user may execute, or None without a compiler."""
        if self._compiler is None:
            return None
        program = self._directory / name
        if not program.exists():
            self._directory.mkdir(exist_ok=True)
            compiling = [self._compiler, "-O2", "-o", str(program), str(SOURCES / f"{name}.c")]
            # Without a dynamic loader it begins to run when it is started, and not a third of a millisecond later.
            if (await anyio.run_process([*compiling, "-static"], check=False)).returncode:
                await anyio.run_process(compiling)
            self._directory.chmod(0o755)
            program.chmod(0o755)
        return program

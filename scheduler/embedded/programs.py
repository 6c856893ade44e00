"""Copies of the servers' programs, where their user cannot read them in place (a virtual environment below /root)."""

from __future__ import annotations

import shutil
from pathlib import Path

from scheduler.embedded.account import Account, unreachable


def reachable_program(program: Path, store: Path, account: Account | None) -> Path:
    """Return `program`, or a copy of it in `store` if `account` cannot read it where it is."""
    if unreachable(program.parent, account) is None:
        return program
    home = store / f"{program.name}-{_stamp(program)}"
    if not home.exists():
        partial = _begin(home)
        shutil.copy2(program, partial / program.name)
        partial.rename(home)
    return home / program.name


def reachable_tree(root: Path, store: Path, account: Account | None) -> Path:
    """Return the directory `root`, or a copy of it in `store` if `account` cannot read it where it is.

    Programs in a wheel find their libraries in the directory `PACKAGE.libs` beside their package: it is copied too.
    """
    if unreachable(root, account) is None:
        return root
    package = root.parent
    home = store / f"{package.name}-{_stamp(root)}"
    if not home.exists():
        partial = _begin(home)
        shutil.copytree(
            root, partial / package.name / root.name, symlinks=True, ignore=shutil.ignore_patterns("include")
        )
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name)
        partial.rename(home)
    return home / package.name / root.name


def _stamp(path: Path) -> int:
    return int(path.stat().st_mtime)


def _begin(home: Path) -> Path:
    """Return an empty directory to fill and then rename: a crash half-way leaves nothing that looks done."""
    partial = home.with_name(home.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for directory in (home.parent, partial):
        directory.chmod(0o755)
    return partial

"""The cgroup hierarchies of this machine that concern us. Imports next to nothing: the guard uses it."""

from __future__ import annotations

from scheduler.worker.tree import bytes_of

_WANTED = ("memory", "pids", "cpu")


class Hierarchy:
    """One mounted hierarchy: `directory` is a cgroup in it, `controllers` those of `_WANTED` that work below it."""

    __slots__ = ("controllers", "directory", "version")

    def __init__(self, version: int, controllers: tuple[str, ...], directory: str) -> None:
        self.version = version
        self.controllers = controllers
        self.directory = directory


def own_hierarchies() -> list[Hierarchy]:
    """Return the cgroups that this process is in, v2 first, with what could be controlled below them."""
    paths = dict(line.split(":", 2)[1:] for line in text_of("/proc/self/cgroup").splitlines())
    found: dict[str, Hierarchy] = {}
    for line in text_of("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            names: str | None = ""
        elif kind == "cgroup":
            names = next((n for n in paths if n and set(n.split(",")) <= set(options.split(","))), None)
        else:
            continue
        if names is None or names not in paths or names in found:
            continue
        root, mount = before.split()[3:5]
        directory = _below(mount, root, paths[names])
        if directory is None:
            continue
        offered = names.split(",") if names else text_of(f"{directory}/cgroup.controllers").split()
        controllers = tuple(name for name in _WANTED if name in offered)
        if not names or controllers:
            found[names] = Hierarchy(1 if names else 2, controllers, directory)
    return sorted(found.values(), key=lambda hierarchy: -hierarchy.version)


def _below(mount: str, root: str, path: str) -> str | None:
    if root != "/":  # a part of the hierarchy is mounted
        if path != root and not path.startswith(f"{root}/"):
            return None
        path = path[len(root) :]
    if path.startswith("/.."):  # beyond our cgroup namespace
        return None
    return mount + path.rstrip("/")


def text_of(path: str) -> str:
    """Return what a file says, nothing if it cannot be read."""
    return bytes_of(path).decode("utf-8", "surrogateescape")

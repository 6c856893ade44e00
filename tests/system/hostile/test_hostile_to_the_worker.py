"""Commands that bring down their worker, or take the disk that it works on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scheduler.worker import linux
from tests.support.cluster import cluster
from tests.support.servers import Servers
from tests.support.waiting import until_sync
from tests.system.hostile.support import ended, executed, note, submit

pytestmark = pytest.mark.skipif(not linux.SUPPORTED, reason="needs pidfds and subreapers")


def test_a_command_that_kills_its_worker_is_a_dead_letter_and_its_neighbours_are_not_charged(
    servers: Servers, home: Path
) -> None:
    user = "root" if os.geteuid() == 0 else "nobody"  # whoever may kill the worker
    state = home / "state"
    with cluster(servers, home / "poison", worker__task_user=user, worker__state_dir=str(state)) as system:
        begun = home / "notes/neighbour"
        neighbours = [submit(system, f"echo x >> {begun}; sleep 1") for _ in range(2)]
        note(begun)
        poison = submit(system, "kill -9 $PPID; sleep 30")
        row = ended(system, poison, 120)
        assert (row["state"], row["reason"], row["losses"]) == ("dead_letter", "lost", 3)
        for neighbour in neighbours:
            row = ended(system, neighbour, 120)
            assert (row["state"], row["losses"]) == ("completed", 0)
        (letters,) = system.sql("SELECT count(*) FROM dead_letter_tasks")
        assert letters[0] == 1
        until_sync(lambda: len(list(state.iterdir())) == 1, what="the directories of the killed workers to be removed")


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    path = home / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=755", "dts-test", str(path)], check=False)
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root mounts")
def test_a_command_that_fills_the_disk_fails_alone_and_its_files_go_with_it(
    servers: Servers, home: Path, small_disk: Path
) -> None:
    with cluster(servers, home / "full", worker__state_dir=str(small_disk / "state")) as system:
        worker = system.of("worker")[0].worker.pid
        full = home / "notes/full"
        fill = 'head -c 100000000 /dev/zero > "$(dirname "$DTS_OUTPUT_FILE")/junk"'
        filler = submit(system, f"{fill}; echo $? > {full}; sleep 40")
        assert note(full) == "1"
        assert psutil.disk_usage(str(small_disk)).free < 65536

        # Others go on: what they print beyond memory is dropped, oldest first, and the end is kept.
        row = executed(system, "head -c 3000000 /dev/zero | tr '\\0' x; echo the end", 20)
        assert (row["state"], row["output_tail"][-8:]) == ("completed", "the end\n")
        row = executed(system, 'echo step > "$DTS_CHECKPOINT_FILE" || echo refused; exit 1', 20)
        assert row["reason"] == "exit:1"

        assert system.request("POST", f"/api/runs/{filler}/cancel").status_code == 202
        assert ended(system, filler)["state"] == "cancelled"
        until_sync(lambda: psutil.disk_usage(str(small_disk)).free > 5_000_000, what="its files to go")
        assert executed(system, 'echo a=1 > "$DTS_OUTPUT_FILE"')["outputs"] is not None
        assert system.of("worker")[0].worker.pid == worker

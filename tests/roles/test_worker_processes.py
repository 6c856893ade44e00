"""Commands as people write them, and as nobody should: real processes, each of them."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from scheduler.worker import linux, tree
from scheduler.worker.identity import identity_of
from scheduler.worker.machine import keep_descriptors_private
from scheduler.worker.orphans import Orphans
from scheduler.worker.spawn import SpawnError
from scheduler.worker.spawners import LeaseLost
from tests.roles.worker_support import Runner, alive, first_line, open_files, printed, python, runner
from tests.support import until, until_sync

pytestmark = pytest.mark.skipif(not linux.SUPPORTED, reason="needs pidfds and subreapers")
FEW_FILES = ((resource.RLIMIT_NOFILE, 64),)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


@pytest.fixture
async def run() -> AsyncIterator[Runner]:
    linux.become_subreaper()
    async with runner() as made:
        yield made


def own_status(field: str) -> list[str]:
    return Path("/proc/self/status").read_text().split(f"{field}:")[1].splitlines()[0].split()


async def test_exit_codes_signals_and_output_are_reported(run: Runner) -> None:
    process = await run.run("echo out; echo err >&2; exit 3")
    assert process.exit_code == 3
    assert process.exit_signal is None
    assert {p.stream: p.data for p in process.capture.take(1 << 20)} == {"stdout": b"out\n", "stderr": b"err\n"}
    assert (await run.run("kill -USR1 $$")).exit_signal == signal.SIGUSR1
    assert run.processes.empty
    assert run.page.tree_empty


async def test_nothing_of_the_worker_leaks_into_a_command(run: Runner) -> None:
    os.environ["LEAK"] = "1"
    keep_descriptors_private()
    try:
        process = await run.run(["/bin/sh", "-c", "env; ls /proc/self/fd | wc -l; pwd; umask; kill -l > /dev/null"])
    finally:
        del os.environ["LEAK"]
    lines = printed(process).decode().split()
    assert not any(line.startswith(("LEAK", "PYTHON", "HOME")) for line in lines)
    assert "4" in lines  # three standard descriptors, and the directory that ls reads
    assert "/" in lines
    assert "0022" in lines


@pytest.mark.parametrize("limits", [(), FEW_FILES])
async def test_ignored_and_blocked_signals_are_not_inherited(run: Runner, limits: Sequence[tuple[int, int]]) -> None:
    process = await run.run(["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"], limits=limits)
    _, blocked, _, ignored = printed(process).split()
    libc_own = 0b11 << 31  # signals 32 and 33 are the C library's: nobody can set them
    assert int(blocked, 16) == int(ignored, 16) & ~libc_own == 0


async def test_a_bounded_command_leads_its_session_and_holds_nothing_but_its_own(run: Runner) -> None:
    script = "import os; print(os.getpid() == os.getsid(0), sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
    assert printed(await run.run(python(script), limits=FEW_FILES)) == b"True [0, 1, 2]\n"


async def test_a_command_that_cannot_go_into_its_cell_does_not_start(run: Runner) -> None:
    full = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
    try:
        with pytest.raises(SpawnError, match="No space left") as caught:
            await run.start("true", cell=[full])
    finally:
        os.close(full)
    assert caught.value.what == "limits_not_set"
    assert printed(await run.run("echo fine", limits=FEW_FILES)) == b"fine\n"


async def test_standard_input_is_empty_or_what_the_task_says(run: Runner) -> None:
    assert printed(await run.run(["cat"])) == b""
    assert printed(await run.run(["cat"], stdin=b"a" * 300_000)) == b"a" * 300_000


async def test_directory_and_umask_are_the_commands_own(run: Runner) -> None:
    before, mask = os.getcwd(), os.umask(0o022)  # noqa: PTH109
    assert printed(await run.run("pwd; umask", directory="/usr", umask=0o077)) == b"/usr\n0077\n"
    assert os.getcwd() == before  # noqa: PTH109
    assert os.umask(mask) == 0o022
    assert printed(await run.run("pwd; umask")) == b"/\n0022\n"


async def test_commands_that_start_at_once_each_get_their_directory_and_umask(run: Runner) -> None:
    wanted = [("/usr", 0o077), ("/etc", 0o027), ("/", 0o022)] * 5
    said = [b""] * len(wanted)

    async def ask(number: int) -> None:
        directory, umask = wanted[number]
        said[number] = printed(await run.run("pwd; umask", directory=directory, umask=umask))

    async with anyio.create_task_group() as group:
        for number in range(len(wanted)):
            group.start_soon(ask, number)
    assert said == [f"{directory}\n{umask:04o}\n".encode() for directory, umask in wanted]


@as_root
@pytest.mark.parametrize("limits", [(), FEW_FILES])
async def test_a_command_runs_as_the_user_it_names_and_the_worker_stays_root(
    run: Runner, limits: Sequence[tuple[int, int]]
) -> None:
    nobody = identity_of("nobody")
    script = "id -u; id -g; id -G; grep -E '^(Uid|Gid|CapEff|CapPrm)' /proc/self/status; touch /root/x || echo denied"
    process = await run.run(script, identity=nobody, directory="/tmp", limits=limits)
    lines = printed(process, "stdout").decode().splitlines()
    assert lines[0] == str(nobody.uid)
    assert lines[1] == str(nobody.gid)
    assert {int(group) for group in lines[2].split()} == {nobody.gid, *nobody.groups}
    assert lines[3].split()[1:] == [str(nobody.uid)] * 4
    assert lines[4].split()[1:] == [str(nobody.gid)] * 4
    assert {line.split()[1] for line in lines[5:7]} == {"0" * 16}
    assert lines[7] == "denied"
    assert os.getresuid() == (0, 0, 0)
    assert own_status("CapEff") != ["0" * 16]
    assert printed(await run.run("id -u")) == b"0\n"


@as_root
@pytest.mark.parametrize("limits", [(), FEW_FILES])
async def test_a_command_of_another_user_may_open_its_own_output(
    run: Runner, limits: Sequence[tuple[int, int]]
) -> None:
    script = "echo x > /dev/stderr; echo y | tee /dev/stderr > /dev/null; echo z > /dev/stdout; head -c 1 < /dev/stdout"
    process = await run.run(script, identity=identity_of("nobody"), limits=limits)
    pieces = process.capture.take(1 << 20)
    stdout, stderr = (b"".join(p.data for p in pieces if p.stream == stream) for stream in ("stdout", "stderr"))
    assert stdout == b"z\n"
    assert stderr.startswith(b"x\ny\n")
    assert b"ermission denied" in stderr, "it could read what it had printed"


async def test_output_that_somebody_else_reads_does_not_keep_the_worker(run: Runner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    process = await run.start(f"until [ -e {go} ]; do sleep 0.02; done; echo end")
    await until(lambda: process.pipes)
    with anyio.fail_after(5):
        for fd in process.pipes:  # said to be readable, and then it was not
            await to_thread.run_sync(run.processes._on_readable, process, fd, abandon_on_cancel=True)
    go.touch()
    with anyio.fail_after(10):
        await process.gone
    assert printed(process) == b"end\n"


@pytest.mark.parametrize(
    ("arguments", "fields", "what"),
    [
        (["/no/such/thing"], {}, "executable_not_found"),
        (["no-such-thing"], {}, "executable_not_found"),
        (["/etc/passwd"], {}, "not_executable"),
        (["/etc"], {}, "not_executable"),
        (["/bin/true", "x" * 200_000], {}, "arguments_too_long"),
        (["/bin/true"], {"directory": "/no/such"}, "workdir_not_found"),
        (["/bin/true"], {"directory": "/etc/passwd"}, "workdir_not_a_directory"),
        (["/bin/true", "a\0b"], {}, "invalid_argument"),
        (["/bin/true"], {"env": {"A": "\ud800"}}, "invalid_argument"),
    ],
)
async def test_what_cannot_start_says_precisely_why_and_leaves_nothing_behind(
    run: Runner, arguments: list[str], fields: dict[str, object], what: str
) -> None:
    before = open_files()
    with pytest.raises(SpawnError) as caught:
        await run.start(arguments, **fields)
    assert caught.value.what == what
    assert not open_files() - before
    assert run.page.tree_empty
    assert os.geteuid() == os.getresuid()[0]


@as_root
async def test_a_directory_that_the_user_may_not_enter_is_said_to_be_that(run: Runner, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)  # noqa: PTH101
    with pytest.raises(SpawnError) as caught:
        await run.start("true", directory=str(tmp_path), identity=identity_of("nobody"))
    assert caught.value.what == "workdir_not_permitted"
    assert printed(await run.run("id -u; pwd")) == b"0\n/\n"


async def test_scripts_without_an_interpreter_line_run_and_missing_interpreters_are_named(
    run: Runner, tmp_path: Path
) -> None:
    plain, broken = tmp_path / "plain", tmp_path / "broken"
    plain.write_text('echo "plain $1"\n')
    broken.write_text("#!/no/such/interpreter\n")
    plain.chmod(0o755)
    broken.chmod(0o755)
    for limits in ((), FEW_FILES):
        assert printed(await run.run([str(plain), "x"], limits=limits)) == b"plain x\n"
        with pytest.raises(SpawnError, match="/no/such/interpreter") as caught:
            await run.start([str(broken)], limits=limits)
        assert caught.value.what == "interpreter_not_found"


async def test_the_path_of_the_tasks_own_environment_is_searched(run: Runner, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    assert printed(await run.run(["tool"], env={"PATH": f"/nowhere:{tmp_path}"})) == b"mine\n"


async def test_a_grandchild_that_holds_the_output_does_not_hold_up_the_end(run: Runner, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    process = await run.run(f"sleep 1000 & echo $! > {note}; echo done")
    assert printed(process) == b"done\n"
    assert not alive(int(await first_line(note)))


async def test_a_daemon_that_leaves_session_and_environment_dies_with_its_attempt(run: Runner, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open({str(note)!r}, "w").write(f"{{os.getpid()}}\\n")
        time.sleep(1000)
    os._exit(0)
while not os.path.exists({str(note)!r}):
    time.sleep(0.01)
"""
    process = await run.run(python(script))
    assert process.exit_code == 0
    assert not alive(int(await first_line(note)))
    assert run.processes.empty


async def test_a_daemon_whose_parent_dies_while_it_is_looked_for_dies_with_its_attempt(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, note, fifo = tmp_path / "parent", tmp_path / "pid", tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    open({str(tmp_path / "new")!r}, "w").write(f"{{os.getpid()}}\\n")
    os.rename({str(tmp_path / "new")!r}, {str(noted)!r})
    open({str(fifo)!r}).close()
    child = os.fork()
    if child == 0:
        time.sleep(60)
    open({str(note)!r}, "w").write(f"{{child}}\\n")
    os._exit(0)
while not os.path.exists({str(noted)!r}):
    time.sleep(0.01)
"""
    children = Orphans._children
    held_back: list[int] = []

    def stale(orphans: Orphans) -> list[int]:
        found = list(children(orphans))
        if not held_back and noted.exists() and (parent := int(noted.read_text())) in found:
            held_back.append(parent)
            fifo.write_text("")  # it opens, and lets the parent go on
            until_sync(lambda: not alive(parent))
        return found

    monkeypatch.setattr(Orphans, "_children", stale)
    await run.run(python(script))
    (parent,) = held_back
    await until(lambda: os.waitpid(parent, os.WNOHANG))
    assert not alive(int(await first_line(note)))


async def test_a_running_daemon_is_left_alone_while_its_attempt_runs(run: Runner, tmp_path: Path) -> None:
    note, go = tmp_path / "pid", tmp_path / "go"
    process = await run.start(
        f"setsid sh -c 'echo $$ > {note}; exec sleep 1000' & until [ -e {go} ]; do sleep 0.02; done"
    )
    daemon = int(await first_line(note))
    await run.run("true")  # the end of another attempt is no reason to touch it
    run.processes.look_after()
    assert alive(daemon)
    go.touch()
    with anyio.fail_after(10):
        await process.gone
    assert not alive(daemon)


async def test_what_ignores_term_and_has_children_of_its_own_is_killed_as_a_tree(run: Runner, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    process = await run.start(
        f"trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > {note}; sleep 1000' & sleep 1000; wait"
    )
    child = int(await first_line(note))
    process.signal(signal.SIGTERM)
    assert process.running
    process.kill()
    with anyio.fail_after(10):
        await process.gone
    assert process.exit_signal == signal.SIGKILL
    assert not alive(child)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many processes each look at all of them has met."""
    met: list[int] = []
    look = tree.all_processes

    def noting() -> dict[int, tree.Stat]:
        found = look()
        met.append(len(found))
        return found

    monkeypatch.setattr(tree, "all_processes", noting)
    return met


async def test_many_commands_are_signalled_by_one_look_at_all_processes(run: Runner, looks: list[int]) -> None:
    processes = [await run.start("exec sleep 1000") for _ in range(20)]
    for process in processes:
        process.signal(signal.SIGTERM)
    assert len(looks) == 1
    with anyio.fail_after(10):
        for process in processes:
            await process.gone
    assert {process.exit_signal for process in processes} == {signal.SIGTERM}


async def test_many_commands_are_killed_by_two_looks_at_all_processes(run: Runner, looks: list[int]) -> None:
    processes = [await run.start("exec sleep 1000") for _ in range(20)]
    for process in processes:
        process.kill()
    with anyio.fail_after(10):
        for process in processes:
            await process.gone
    assert len(looks) == 2  # the second one finds nothing new
    assert {process.exit_signal for process in processes} == {signal.SIGKILL}


async def test_what_many_commands_have_left_is_killed_by_two_looks_at_all_processes(
    run: Runner, looks: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = [tmp_path / str(number) for number in range(20)]
    daemon = "setsid sh -c 'echo $$ > {note}; exec sleep 1000' & until [ -s {note} ]; do sleep 0.02; done"
    with monkeypatch.context() as patched:
        patched.setattr(tree, "kill_all", lambda _: 0)  # as if they were not even killed by that
        processes = [await run.start(daemon.format(note=note)) for note in notes]
        await until(lambda: not any(process.running for process in processes))
    assert not looks
    run.processes.look_after()
    assert len(looks) == 2
    with anyio.fail_after(10):
        for process in processes:
            await process.gone
    assert not any(alive(int(note.read_text())) for note in notes)


async def test_a_signal_reaches_the_whole_tree_even_if_it_is_stopped(run: Runner, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    process = await run.start(f"setsid sh -c 'echo $$ > {note}; kill -STOP $$' & wait")
    child = int(await first_line(note))
    await until(lambda: Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0] == "T")
    process.signal(signal.SIGTERM)
    with anyio.fail_after(10):
        await process.gone
    assert not alive(child)


def test_descendants_come_in_the_order_of_their_descent() -> None:
    def stat(pid: int, parent: int) -> tree.Stat:
        return tree.Stat(pid, [b"S", b"%d" % parent, *[b"0"] * 18])

    # In a set 8 comes before 7, and 64 first of all.
    processes = {pid: stat(pid, parent) for pid, parent in [(64, 9), (8, 7), (9, 8), (7, 1), (5, 2)]}
    assert tree.descendants([1], processes) == [7, 8, 9, 64]


async def test_parents_are_signalled_before_their_children(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A shell whose command is ended before it hears of its own end starts the next one.
    note = tmp_path / "pid"
    nest = f'if [ $1 = 0 ]; then echo $$ > {note}; exec sleep 100; fi; sh -c "$0" "$0" $(($1 - 1)); echo next'
    process = await run.start(["/bin/sh", "-c", nest, nest, "9"])
    innermost = int(await first_line(note))
    told: list[int] = []
    send = tree.send

    def noting(stat: tree.Stat, number: int) -> bool:
        if number == signal.SIGTERM:
            told.append(stat.pid)
        return send(stat, number)

    line = [process.pid]
    processes = tree.all_processes()
    while line[-1] != innermost:
        (child,) = (stat.pid for stat in processes.values() if stat.parent == line[-1])
        line.append(child)
    monkeypatch.setattr(tree, "send", noting)
    process.signal(signal.SIGTERM)
    with anyio.fail_after(10):
        await process.gone
    assert len(line) == 10
    assert told == line


async def test_a_fork_bomb_of_escaping_processes_is_put_out(run: Runner, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"""
import os, time
open({str(note)!r}, "w").write(f"{{os.getpid()}}\\n")
end = time.monotonic() + 3  # by itself, should it escape: longer, and it would take every pid there is
for _ in range(40):
    if os.fork() == 0:
        os.setsid()
        while time.monotonic() < end:
            if os.fork() == 0:
                os.setsid()
            else:
                os._exit(0)
            time.sleep(0.01)
        os._exit(0)
time.sleep(1000)
"""
    process = await run.start(python(script), env={"MARK": "bomb"})
    await first_line(note)
    process.kill()
    with anyio.fail_after(20):
        await process.gone
    assert run.processes.empty
    assert not [pid for pid in tree.all_processes() if tree.environment_value(pid, "MARK") == "bomb"]


async def test_a_command_that_closes_all_descriptors_is_awaited_nevertheless(run: Runner, tmp_path: Path) -> None:
    go = tmp_path / "go"
    process = await run.start(
        python(f"import os, time\nos.closerange(0, 100)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)")
    )
    await until(lambda: not process.pipes)  # both ends of file were seen
    assert process.running
    go.touch()
    with anyio.fail_after(10):
        await process.gone
    assert process.exit_code == 0


async def test_output_beyond_the_limit_keeps_the_newest_and_costs_no_memory(run: Runner) -> None:
    before = _resident()
    process = await run.run("head -c 60000000 /dev/zero | tr '\\0' x; echo end", limit=1 << 20)
    assert process.capture.total == 60_000_004
    assert process.capture.oldest_kept > 0
    assert _resident() - before < 16 << 20
    pieces = process.capture.take(1 << 30)
    assert pieces[-1].data.endswith(b"xend\n"[1:])
    assert pieces[0].position >= process.capture.total - (1 << 20)
    assert [p.position + len(p.data) for p in pieces[:-1]] == [p.position for p in pieces[1:]]
    process.capture.close()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_nothing_starts_once_the_lease_has_run_out(run: Runner) -> None:
    run.page.hold_until(0.001, ask_at=0.0005)
    with pytest.raises(LeaseLost):
        await run.start("true")
    assert run.page.tree_empty


async def test_many_short_commands_at_once_all_end(run: Runner) -> None:
    processes = [await run.start(["/bin/echo", str(number)]) for number in range(100)]
    with anyio.fail_after(20):
        for process in processes:
            await process.gone
    assert [int(printed(process)) for process in processes] == list(range(100))
    assert run.processes.empty

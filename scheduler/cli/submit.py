"""`dts submit`: run one command on a worker, or many from a file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import DASH, FLAG, REMOTE, Remote, failure, say
from scheduler.cli.following import OnInterrupt, follow

if TYPE_CHECKING:
    from scheduler.client import TaskSpec

app = App(name="submit")

_LIST = Parameter(negative=(), consume_multiple=False, show_default=False)


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Definition:
    """The common fields of a task; a file has all of them."""

    name: Annotated[str | None, Parameter(help="What to call it. Default: the command's first word.")] = None
    queue: Annotated[str | None, Parameter(help="Queue to put it in. Default: default.")] = None
    priority: Annotated[int | None, Parameter(help="0 to 9, 9 is most urgent. Default: 5.")] = None
    env: Annotated[tuple[str, ...], _LIST, Parameter(help="NAME=VALUE for its environment; may be repeated.")] = ()
    workdir: Annotated[str | None, Parameter(help="Directory to run in.")] = None
    user: Annotated[str | None, Parameter(help="Account to run as, where the worker is root.")] = None
    stdin: Annotated[
        str | None, DASH, Parameter(help="File whose text becomes its input; - for this command's own.")
    ] = None
    timeout: Annotated[str | None, Parameter(help="Kill it after so long, such as 90s or 2h. Default: 1h.")] = None
    attempts: Annotated[int | None, Parameter(help="How often to try. Default: 1.")] = None
    memory: Annotated[str | None, Parameter(help="Memory that it may use, such as 64M.")] = None
    delay: Annotated[str | None, Parameter(help="Start it after so long.")] = None
    at: Annotated[str | None, Parameter(help="Start it at this time: RFC 3339 with an offset.")] = None
    schedule: Annotated[
        str | None, Parameter(help='Make it recurring: "0 3 * * *", @daily, "@every 90s", "@event NAME".')
    ] = None
    timezone: Annotated[str | None, Parameter(help="IANA zone of the schedule. Default: UTC.")] = None
    after: Annotated[
        tuple[str, ...], _LIST, Parameter(help="Task (id or name) that must succeed first; may be repeated.")
    ] = ()
    tag: Annotated[tuple[str, ...], _LIST, Parameter(help="Tag to find it by; may be repeated.")] = ()
    require: Annotated[tuple[str, ...], _LIST, Parameter(help="LABEL=VALUE that its worker must have.")] = ()
    key: Annotated[str | None, Parameter(help="Idempotency key: the same one makes no second task.")] = None
    shell: Annotated[bool, FLAG, Parameter(name=("--shell", "-c"), help="Run the words in a shell.")] = False

    def spec(self, command: tuple[str, ...]) -> TaskSpec:
        """Return the task. Raises SystemExit with what is wrong."""
        import msgspec  # noqa: PLC0415 - not needed for help

        from scheduler.domain.task import TaskSpec  # noqa: PLC0415

        if not command or not command[0].strip():
            raise failure("no command; write it after --, as in: dts submit -- echo hello", exits.USAGE)
        fields = {
            "name": self.name or Path(command[0].split()[0]).name or "task",
            "command": " ".join(command) if self.shell else list(command),
            "queue": self.queue,
            "priority": self.priority,
            "env": _pairs("--env", self.env),
            "workdir": self.workdir,
            "user": self.user,
            "stdin": None if self.stdin is None else _text(self.stdin),
            "timeout": _duration(self.timeout),
            "retry": None if self.attempts is None else {"max_attempts": self.attempts},
            "limits": None if self.memory is None else {"memory": self.memory},
            "delay": _duration(self.delay),
            "run_at": self.at,
            "schedule": self.schedule,
            "timezone": self.timezone,
            "depends_on": [{"task": task} for task in self.after],
            "tags": list(self.tag),
            "requires": _pairs("--require", self.require),
            "idempotency_key": self.key,
        }
        given = {name: value for name, value in fields.items() if value not in (None, [], {})}
        try:
            return msgspec.convert(given, TaskSpec)
        except msgspec.ValidationError as error:
            raise failure(str(error), exits.USAGE) from None


@app.default
def submit(
    *command: Annotated[str, Parameter(help="The command and its arguments, after --.")],
    define: Definition = Definition(),
    file: Annotated[
        Path | None,
        DASH,
        Parameter(name=("--file", "-f"), help="Submit what is in it: JSON tasks, one a line or a list; - for stdin."),
    ] = None,
    wait: Annotated[
        bool,
        FLAG,
        Parameter(name=("--wait", "-w"), help="Show its output as it comes; exit with its exit code."),
    ] = False,
    wait_timeout: Annotated[float | None, Parameter(help="Seconds after which --wait gives up (exit 75).")] = None,
    on_interrupt: OnInterrupt = "ask",
    remote: Remote = REMOTE,
) -> int:
    """Run a command on a worker.

    Prints the task's and the run's id, at once. The words after `--` are executed as they are; `-c` gives them to a
    shell. With `--wait` the command's output is shown, and its exit code becomes this one's (128 + N if it was
    killed by signal N, 1 if it never ran).

    A file holds tasks with every field that tasks have. Up to 10,000 are created in one transaction, all or nothing,
    and may name each other in `depends_on`; more go in several. Nothing is sent if anything in a file cannot be a task;
    what comes through a pipe is sent as it comes.

    For example:

    - `dts submit -- backup --all`
    - `dts submit -w -c -- 'date; uname -a'`
    - `dts submit --schedule "0 3 * * *" --timezone Europe/Berlin -- backup --all`
    - `dts submit --file tasks.ndjson`
    """
    if file is not None:
        from scheduler.cli.bulk import submit_file  # noqa: PLC0415 - not needed for one command

        if command or wait or define != Definition():
            raise failure("--file takes everything from the file: no command, --wait or fields beside it", exits.USAGE)
        submit_file(remote, file)
        return exits.OK
    spec = define.spec(command)
    with remote.connect() as client:
        task = client.submit(spec)
        out = remote.output()
        run_id = task.last_run.id if task.last_run is not None else None
        if not wait or run_id is None:
            fires = f", first at {task.next_fire_at}" if task.next_fire_at else ""
            out.done(task, f"task {task.id}" + (f"\nrun  {run_id}" if run_id else fires))
            return exits.OK
    say(f"run {run_id}")
    return follow(remote, str(run_id), wait_timeout, on_interrupt)


def _pairs(flag: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise failure(f"{flag} {text!r}: write NAME=VALUE", exits.USAGE)
        pairs[name] = value
    return pairs


def _duration(text: str | None) -> float | str | None:
    """Take a bare number as seconds; the rest is the server's to judge."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _text(name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise failure(f"--stdin {name}: {error}", exits.USAGE) from None

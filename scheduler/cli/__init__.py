"""The command line. Imports as little as the command needs: `dts up` must be quick to start, `dts --help` to answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from scheduler import lifeline


def main(argv: Sequence[str] | None = None) -> None:
    """Run `dts`; exits with the command's code."""
    words = list(sys.argv[1:] if argv is None else argv)
    sys.exit(run(words))


def run(words: list[str]) -> int:
    """Return the exit code of `dts *words`."""
    from scheduler.cli import exits, flags  # noqa: PLC0415 - each command imports what it needs

    if (wrong := next((number for number, word in enumerate(words, 1) if not _is_utf8(word)), None)) is not None:
        from scheduler.cli.connection import say  # noqa: PLC0415

        say(f"argument {wrong} is not UTF-8")
        return exits.USAGE
    if words and words[0] in flags.PROCESSES:
        lifeline.end_when_interrupted()
        settings = flags.parse(words[0], words[1:])
        if settings is not None:
            if words[0] == "worker":
                return guard(words[1:])
            from scheduler.cli.processes import run_command  # noqa: PLC0415

            return run_command(words[0], settings)
    from scheduler.cli.app import app  # noqa: PLC0415

    try:
        code = int(app(words, result_action="return_int_as_exit_code_else_zero"))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has had enough, as in `dts task list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit complains again
        return 0
    return code


def _is_utf8(word: str) -> bool:
    """Say whether an argument can be sent or stored: bytes that are no UTF-8 come as halves of surrogate pairs."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def guard(argv: list[str]) -> NoReturn:
    """Become the guard of a worker with these flags, which the worker reads."""
    from scheduler.worker import guard as guards  # noqa: PLC0415

    sys.argv[1:] = argv
    sys.exit(guards.main())

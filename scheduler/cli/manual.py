"""`dts man` and `dts completion`: what the commands say of themselves, for man and for shells."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Literal

from cyclopts import App, Parameter

from scheduler.cli import exits

man = App(name="man")
completion = App(name="completion")

_SHARED = "**Server and output**:"  # the same for most commands: said once

_CLOSING = r"""
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
Refused, or what was waited for failed; waiting for a run exits with the code of its command.
.TP
.B 2
The command line is wrong; nothing was sent.
.TP
.B 3
A worker was drained and has left: what watches over it does not start another one.
.TP
.B 69
A server that is needed does not answer, or PostgreSQL refuses the login.
.TP
.B 75
Not now: try again later.
.TP
.B 78
The configuration is wrong.
.TP
.B 130
Interrupted.
.SH ENVIRONMENT
.TP
.B DTS_SERVER, DTS_CONTEXT
Where the API is, or which stored context says so.
.TP
.B DTS_API_KEY, DTS_API_KEY_FILE
The API key, or a file that holds it, where the context has none.
.TP
.B DTS_NAMESPACE
The namespace to work in.
.TP
.B DTS_CONFIG, DTS_DATABASE_URL, DTS_REDIS_URL, DTS_\fISECTION\fB__\fIKEY\fB
Settings of the roles; \fBdts config show\fR lists them.
.TP
.B NO_COLOR
Tables without colours.
.SH FILES
.TP
.B ~/.config/dts/contexts.toml
Servers by name; keys stand beside it, in \fBkeys/\fR, readable by their owner only.
"""


@man.default
def show_manual() -> int:
    """Show the manual page: on a terminal through man, else as troff for `dts man > dts.1`."""
    page = manual(_reference())
    if sys.stdout.isatty() and (program := shutil.which("man")):
        return subprocess.run([program, "-l", "-"], input=page.encode(), check=False).returncode  # noqa: S603 - man
    sys.stdout.write(page)
    return exits.OK


@completion.default
def show_completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Which shell.")], /) -> int:
    """Print what a shell needs to complete commands and flags.

    For example:

    - `source <(dts completion bash)` in ~/.bashrc
    - `dts completion zsh > ~/.zfunc/_dts`, with ~/.zfunc in `$fpath`
    - `dts completion fish > ~/.config/fish/completions/dts.fish`
    """
    from scheduler.cli.app import app  # noqa: PLC0415 - it contains this very command

    sys.stdout.write(app.generate_completion(shell=shell))
    return exits.OK


def _reference() -> str:
    from scheduler.cli.app import app  # noqa: PLC0415 - it contains this very command

    return app.generate_docs(output_format="markdown", flatten_commands=True)


def manual(reference: str) -> str:
    """Return the manual page made of the commands' reference in Markdown."""
    from scheduler import __version__  # noqa: PLC0415

    intro, *sections = re.split(r"(?m)^# ", reference)[1:]
    about = re.sub(r"(?s)^[^\n]*\n|```.*?```", "", intro.split("## Table of Contents")[0])
    shared = next((body for section in sections for name, body in _parts(section) if name == _SHARED), "")
    lines = [
        f'.TH DTS 1 "" "dts {__version__}" "Distributed Task Scheduler"',
        ".SH NAME",
        r"dts \- run commands on time, once, on many machines",
        ".SH SYNOPSIS",
        r".B dts \fICOMMAND\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_roff(about),
        ".SH COMMANDS",
    ]
    for section in sections:
        title, _, body = section.partition("\n")
        lines.append(f".SS {_escape(title)}")
        lines += _roff("".join(text for name, text in _parts(body) if name not in (_SHARED, "**Commands**:")))
    lines += [".SH OPTIONS THAT MOST COMMANDS SHARE", *_roff(shared)]
    return "\n".join(lines) + _CLOSING


def _parts(section: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a command's section: (heading, text); the first has no heading."""
    pieces = re.split(r"(?m)^(\*\*[^*\n]+\*\*:)\n", section)
    yield "", pieces[0]
    yield from zip(pieces[1::2], pieces[2::2], strict=True)


def _roff(markdown: str) -> Iterator[str]:
    """Yield lines of troff for the little Markdown that the reference uses."""
    code = False
    for line in markdown.splitlines():
        if line.startswith("```"):
            code = not code
            yield ".RS\n.nf" if code else ".fi\n.RE"
        elif code:
            yield _escape(line)
        elif entry := re.fullmatch(r"\* `([^`]*)`(?:: (.*))?", line):
            yield f".TP\n\\fB{_escape(entry[1])}\\fR\n{_inline(entry[2] or '')}"
        elif line.startswith("- "):
            yield f".IP \\(bu 2\n{_inline(line[2:])}"
        elif not line.strip():
            yield ".PP"
        else:
            yield _inline(line)


def _inline(text: str) -> str:
    text = re.sub(r"\*+(\[.*?\])\*+", r"\1", text)  # [required], [default: …] in bold or italics
    pieces = re.split(r"`([^`]+)`", text.strip())
    joined = "".join(f"\\fB{_escape(p)}\\fR" if n % 2 else _escape(p) for n, p in enumerate(pieces))
    return joined if not joined.startswith((".", "'")) else rf"\&{joined}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")

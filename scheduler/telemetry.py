"""Structured logs on stderr: one JSON object a line, or columns for people when stderr is a terminal.

    log = get_logger("promoter")
    log.info("promoted", lane=lane, runs=len(batch))

`configure` is called once by each process; `bind` adds what every line of the current task should carry.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, TextIO

import msgspec

_HIDDEN = "rich" not in sys.modules
if _HIDDEN:
    # structlog imports rich where it can, for prettier tracebacks: a quarter of a second and 10 MB for
    # nothing.
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402
import structlog.contextvars  # noqa: E402
import structlog.typing  # noqa: E402

from scheduler import stderr  # noqa: E402

if _HIDDEN:
    del sys.modules["rich"]

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Level = Literal["debug", "info", "warning", "error"]
Layout = Literal["auto", "json", "console"]

_NUMBERS: dict[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_encode = msgspec.json.Encoder(enc_hook=str).encode


def get_logger(component: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger whose lines name `component`; may be made before `configure`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(component=component)
    return logger


def bind(**values: object) -> AbstractContextManager[None]:
    """Add `values` to every line that the current task (and those it starts) logs in this context."""
    return structlog.contextvars.bound_contextvars(**values)


def mark(**values: object) -> None:
    """Add `values` to every line that the current task logs from now on."""
    structlog.contextvars.bind_contextvars(**values)


def configure(*, role: str, level: Level = "info", layout: Layout = "auto", stream: TextIO | None = None) -> None:
    """Set up logging of this process; every line names its `role`. Libraries join from warning up.

    Lines that stderr does not take are lost: no role ends because nobody reads its log.
    """
    out = stream or io.TextIOWrapper(_Stderr(), encoding="utf-8", errors="backslashreplace", write_through=True)
    console = layout == "console" or (layout == "auto" and out.isatty())

    def add_role(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["role"] = role
        return event

    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_role,
        structlog.processors.add_log_level,
    ]
    if console:
        processors += [
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback),
        ]
    else:
        processors += [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            _render_json,
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_NUMBERS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,  # so that set_level reaches loggers that exist already
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forward()]
    root.setLevel(logging.WARNING)
    # It tells of each connection that it cannot keep ready, with a traceback; that PostgreSQL is away is said by us.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)


def set_level(level: Level) -> None:
    """Change the level of a running process, everywhere at once."""
    structlog.configure(
        **{**structlog.get_config(), "wrapper_class": structlog.make_filtering_bound_logger(_NUMBERS[level])}
    )


def _render_json(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
    return _encode(event).decode()


class _Stderr(io.BufferedIOBase):
    """Standard error that never fails and keeps nothing for later."""

    name = "<stderr>"

    def fileno(self) -> int:
        return stderr.FD

    def isatty(self) -> bool:
        return os.isatty(stderr.FD)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data)
        stderr.write(view)
        return view.nbytes


class _Forward(logging.Handler):
    """Hands what libraries log through the standard module to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            get_logger(record.name).log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)
        except Exception:  # noqa: BLE001 - the contract of logging.Handler
            self.handleError(record)

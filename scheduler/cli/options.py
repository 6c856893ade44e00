"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

Config = Annotated[str | None, Parameter(help="TOML file to read settings from (or DTS_CONFIG).")]
DatabaseUrl = Annotated[str | None, Parameter(help="PostgreSQL, postgresql://… (or DTS_DATABASE_URL).")]
RedisUrl = Annotated[str | None, Parameter(help="Redis or Valkey, redis://… or unix://… (or DTS_REDIS_URL).")]
LogLevel = Annotated[str | None, Parameter(help="debug, info, warning or error.")]
LogFormat = Annotated[str | None, Parameter(help="auto, json or console.")]
Concurrency = Annotated[int | None, Parameter(help="Commands that one worker runs at once; 0: four per processor.")]
TaskUser = Annotated[str | None, Parameter(help="Whom commands run as when started by root.")]

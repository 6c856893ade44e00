"""Configuration of every role: flags, then environment, then TOML, then defaults; all errors reported at once.

A setting `section.key` is a flag, `DTS_SECTION__KEY` in the environment, or `key` under `[section]` in the
file that `--config` (or `DTS_CONFIG`) names. Secrets may also come from a file: `DTS_SECTION__KEY_FILE`, or
`section.key` in `$CREDENTIALS_DIRECTORY` as systemd's `LoadCredential=` lays it. Lists and labels are written with
commas, or in JSON. Nobody below the command line sees these objects: the composition root turns them into each role's
own settings.
"""

from __future__ import annotations

from scheduler.config.loading import ConfigError, Loaded, load, redact_url, show, shown, to_environment
from scheduler.config.settings import Config, Log
from scheduler.config.sources import variables

__all__ = [
    "Config",
    "ConfigError",
    "Loaded",
    "Log",
    "load",
    "redact_url",
    "show",
    "shown",
    "to_environment",
    "variables",
]

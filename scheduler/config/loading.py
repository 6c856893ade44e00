"""Reads every source in order of precedence, converts what they say, and reports all that is wrong at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Meta

from scheduler.config.addresses import postgres_url, redis_url
from scheduler.config.settings import CHECKS, SECRETS, SECTIONS, Config, contradictions
from scheduler.config.sources import FILE_VARIABLE, Setting, from_credentials, from_environment, from_toml
from scheduler.domain.durations import parse_duration


class ConfigError(Exception):
    """Something is set wrongly; `errors` says each thing, with where it came from."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class Loaded(msgspec.Struct, frozen=True):
    """A valid configuration, and for each setting that is no default, where it came from.

    `files` are those of secrets that stand in a file of their own.
    """

    config: Config
    sources: dict[str, str]
    files: dict[str, str]

    def given(self) -> dict[str, object]:
        """Return the settings that are no defaults, by `section.key`."""
        return {
            name: getattr(getattr(self.config, name.partition(".")[0]), name.partition(".")[2]) for name in self.sources
        }


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: str | os.PathLike[str] | None = None,
) -> Loaded:
    """Read every source. `flags` maps `section.key` to values (None: not given). Raises ConfigError."""
    env = os.environ if environ is None else environ
    errors: list[str] = []
    path = file or env.get(FILE_VARIABLE)
    settings: dict[str, Setting] = {}
    if path:
        settings |= from_toml(Path(path), errors)
    settings |= from_credentials(env, errors)
    settings |= from_environment(env, errors)
    for name, value in (flags or {}).items():
        if value is not None:
            settings[name] = Setting(value, "command line")
    config = _build(settings, errors)
    errors += contradictions(config)
    if errors:
        raise ConfigError(errors)
    config = msgspec.structs.replace(
        config,
        database=msgspec.structs.replace(
            config.database, url=postgres_url(config.database.url, config.database.ca_file)
        ),
        redis=msgspec.structs.replace(config.redis, url=redis_url(config.redis.url, config.redis.ca_file)),
    )
    return Loaded(
        config,
        {name: setting.source for name, setting in settings.items()},
        {name: str(setting.file) for name, setting in settings.items() if setting.file is not None},
    )


def to_environment(values: Mapping[str, object], files: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that make `load` in another process see these settings.

    Nothing else may be said there: `variables` finds what is. What `files` names is read from there, whatever `values`
    holds of it.
    """
    files = files or {}
    plain = {_variable(name): _as_text(value) for name, value in values.items() if name not in files}
    return plain | {f"{_variable(name)}_FILE": path for name, path in files.items()}


def _variable(name: str) -> str:
    return f"DTS_{name.replace('.', '__').upper()}"


def _as_text(value: object) -> str:
    if isinstance(value, (dict, tuple)):
        return msgspec.json.encode(value).decode() if value else ""  # what is in it may have commas
    return str(value).lower() if isinstance(value, bool) else str(value)


def redact_url(url: str) -> str:
    """Return `url` without its passwords: the login's, and that of a key file."""
    url = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)  # up to the last @: rather too much than too little
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1***", url)


class Shown(msgspec.Struct, frozen=True):
    """A setting as it may be shown: with where it comes from, and without what is secret in it."""

    section: str
    key: str
    value: Any
    source: str


def shown(loaded: Loaded) -> list[Shown]:
    """Return every setting, section by section."""
    found = []
    for section, fields in SECTIONS.items():
        for key in fields:
            value = getattr(getattr(loaded.config, section), key)
            if f"{section}.{key}" in SECRETS:
                value = redact_url(value) if key == "url" else value and "***"
            found.append(Shown(section, key, value, loaded.sources.get(f"{section}.{key}", "default")))
    return found


def show(loaded: Loaded) -> str:
    """Return the configuration as TOML with sources as comments, and with no secret in it."""
    lines: list[str] = []
    section = ""
    for setting in shown(loaded):
        if setting.section != section:
            section = setting.section
            lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        lines.append(f"{setting.key} = {_toml(setting.value)}  # {setting.source}")
    return "\n".join([*lines, ""])


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return msgspec.json.encode(value).decode()


def _build(settings: Mapping[str, Setting], errors: list[str]) -> Config:
    sections: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    for name, setting in settings.items():
        section, _, key = name.partition(".")
        try:
            value = _convert(SECTIONS[section][key], setting.value)
            check = CHECKS.get(name)
            if check is not None:
                check(value)
        except ValueError as error:  # msgspec.ValidationError is one
            shown = "" if name in SECRETS else f" (it is {setting.value!r})"
            errors.append(f"{setting.source}: {name}: {error}{shown}")
        else:
            sections[section][key] = value
    built = {field.name: field.type(**sections[field.name]) for field in msgspec.structs.fields(Config)}
    return Config(**built)


def _convert(field: msgspec.structs.FieldInfo, raw: object) -> object:
    """Return `raw` in the field's type; text is read as the environment and flags write it, `_as_text` among them."""
    if isinstance(raw, str):
        text = raw.strip()
        if text.startswith(('["', '{"')) and (isinstance(field.default, tuple) or field.name == "labels"):
            raw = msgspec.json.decode(text)
        elif isinstance(field.default, tuple):
            raw = [part.strip() for part in text.split(",") if part.strip()]
        elif _is_seconds(field):
            raw = parse_duration(float(text) if re.fullmatch(r"[0-9.]+", text) else text)
        elif field.name == "labels":
            raw = dict(_label(part) for part in text.split(",") if part.strip())
    return msgspec.convert(raw, field.type, strict=not isinstance(raw, str))


def _is_seconds(field: msgspec.structs.FieldInfo) -> bool:
    return any(isinstance(m, Meta) and m.extra for m in getattr(field.type, "__metadata__", ()))


def _label(part: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals or not key.strip():
        raise ValueError("labels are written key=value,key=value")
    return key.strip(), value.strip()

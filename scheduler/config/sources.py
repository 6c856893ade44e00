"""Where settings stand: a TOML file, the environment, and files of secrets. Unknown names are errors, not ignored."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from scheduler.config.settings import SECRETS, SECTIONS, SHORT

FILE_VARIABLE = "DTS_CONFIG"
"""Names the TOML file."""


class Setting(msgspec.Struct, frozen=True):
    """A raw value and where it stood; `file` is what holds a secret that came from a file of its own."""

    value: object
    source: str
    file: Path | None = None


def from_toml(path: Path, errors: list[str]) -> dict[str, Setting]:
    """Return what the file sets; what is wrong with it goes to `errors`."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        errors.append(f"{path}: {error.strerror}")
        return {}
    except ValueError as error:  # not TOML, or not UTF-8
        errors.append(f"{path}: {error}")
        return {}
    found: dict[str, Setting] = {}
    for section, body in document.items():
        if section not in SECTIONS:
            errors.append(f"{path}: unknown section [{section}]; there are {', '.join(SECTIONS)}")
        elif not isinstance(body, dict):
            errors.append(f"{path}: {section} is a section: write [{section}]")
        else:
            for key, value in body.items():
                if key in SECTIONS[section]:
                    found[f"{section}.{key}"] = Setting(value, str(path))
                else:
                    errors.append(f"{path}: unknown key {key} in [{section}]; {_known(section)}")
    return found


def _known(section: str) -> str:
    return f"there are {', '.join(SECTIONS[section])}"


def from_environment(env: Mapping[str, str], errors: list[str]) -> dict[str, Setting]:
    """Return what `DTS_SECTION__KEY`, the short forms and their `_FILE` variants set."""
    found: dict[str, Setting] = {}
    for variable, text in sorted(env.items()):
        name, from_file = _setting_name(variable)
        if name is None:
            continue
        section, _, key = name.partition(".")
        if section not in SECTIONS:
            errors.append(f"{variable}: unknown section {section}; there are {', '.join(SECTIONS)}")
        elif key not in SECTIONS[section]:
            errors.append(f"{variable}: unknown setting {name}; {_known(section)}")
        elif name in found:
            errors.append(f"{variable}: {name} is already set by {found[name].source}; keep one")
        elif from_file:
            _add_file(found, name, Path(text), variable, errors)
        else:
            found[name] = Setting(text, variable)
    return found


def variables(env: Mapping[str, str]) -> list[str]:
    """Return those variables that set something, or say where it is written."""
    return [variable for variable in env if variable == FILE_VARIABLE or _setting_name(variable)[0] is not None]


def _setting_name(variable: str) -> tuple[str | None, bool]:
    """Return the setting that a variable sets, and whether it holds a file's name instead of the value."""
    base = variable.removesuffix("_FILE")
    from_file = base != variable
    if base in SHORT:
        return SHORT[base], from_file
    if not variable.startswith("DTS_") or "__" not in variable:
        return None, False  # DTS_RUN_ID and its like: what commands receive, no settings
    name = base.removeprefix("DTS_").replace("__", ".", 1).lower()
    if from_file and name in SECRETS:
        return name, True
    return variable.removeprefix("DTS_").replace("__", ".", 1).lower(), False


def from_credentials(env: Mapping[str, str], errors: list[str]) -> dict[str, Setting]:
    """Return the secrets that systemd laid into `$CREDENTIALS_DIRECTORY`."""
    directory = env.get("CREDENTIALS_DIRECTORY")
    found: dict[str, Setting] = {}
    if directory:
        for name in sorted(SECRETS):
            path = Path(directory, name)
            if path.exists():
                _add_file(found, name, path, f"credential {name}", errors)
    return found


def _add_file(found: dict[str, Setting], name: str, path: Path, source: str, errors: list[str]) -> None:
    try:
        found[name] = Setting(path.read_text(encoding="utf-8").strip(), source, path.absolute())
    except (OSError, ValueError) as error:
        errors.append(f"{source}: {error}")

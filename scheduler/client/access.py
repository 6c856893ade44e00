"""Where a server is, and what shows it who asks."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

import msgspec

from scheduler.client import DEFAULT_SERVER


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """One server as one caller sees it. `ca_file` holds the certificates to trust, where the system's do not do."""

    server: str = DEFAULT_SERVER
    api_key: str | None = None
    namespace: str | None = None
    ca_file: str | None = None

    def headers(self) -> dict[str, str]:
        """Return what every request carries. Raises ValueError for a key that cannot stand in a header."""
        found = {}
        if self.api_key is not None:
            if not self.api_key.isascii() or not self.api_key.isprintable() or " " in self.api_key:
                raise ValueError("the API key has characters that no key has")
            found["authorization"] = f"Bearer {self.api_key}"
        if self.namespace is not None:
            found["dts-namespace"] = self.namespace
        return found

    def trust(self) -> ssl.SSLContext | bool:
        """Return which certificates to trust. Raises ValueError if they cannot be read."""
        if self.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"{self.ca_file}: {error.strerror or error}") from None


def key_from_environment(environment: Mapping[str, str]) -> str | None:
    """Return the key of `DTS_API_KEY`, or in the file that `DTS_API_KEY_FILE` names. Raises ValueError."""
    given = {name: environment[name] for name in ("DTS_API_KEY", "DTS_API_KEY_FILE") if environment.get(name)}
    if len(given) == 2:
        raise ValueError("both DTS_API_KEY and DTS_API_KEY_FILE are set; leave one")
    if "DTS_API_KEY_FILE" in given:
        return read_key(Path(given["DTS_API_KEY_FILE"]), private=False)
    return given.get("DTS_API_KEY")


def read_key(file: Path, *, private: bool) -> str:
    """Return the key in a file; a `private` one must be closed to everybody else. Raises ValueError."""
    try:
        with file.open(encoding="utf-8") as opened:
            if private and os.fstat(opened.fileno()).st_mode & 0o077:
                raise ValueError(f"{file} can be read by others; close it with: chmod 600 {file}")
            key = opened.read().strip()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} holds no API key") from None
    if not key:
        raise ValueError(f"{file} is empty")
    return key

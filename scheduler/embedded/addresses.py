"""Where the embedded servers are reached: known before they run, so that the roles can start beside them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

ROLE = "dts"
DATABASE = "dts"
PORT = 5432
"""Names PostgreSQL's socket file; nothing listens on the network."""

_VALKEY_SOCKET = "valkey.sock"


def postgres_url(sockets: Path, database: str = DATABASE) -> str:
    """Return the URL of a database of the server that has its socket in `sockets`."""
    return f"postgresql://{ROLE}@/{database}?host={quote(str(sockets), safe='/')}&port={PORT}"


def valkey_socket(sockets: Path) -> Path:
    """Return Valkey's socket."""
    return sockets / _VALKEY_SOCKET


def valkey_url(sockets: Path, number: int = 0) -> str:
    """Return the URL of a numbered database of the Valkey that has its socket in `sockets`."""
    return f"unix://{quote(str(valkey_socket(sockets)), safe='/')}?db={number}"

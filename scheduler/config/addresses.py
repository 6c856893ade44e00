"""URLs of servers, with what other settings say about reaching them."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit


def postgres_url(url: str, ca_file: str) -> str:
    """Return the URL; with a CA it is asked for TLS, and for a certificate of that CA in the server's name."""
    return _with(url, {"sslmode": "verify-full", "sslrootcert": ca_file}) if url and ca_file else url


def redis_url(url: str, ca_file: str) -> str:
    """Return the URL; with a CA, the server must show a certificate of that one."""
    return _with(url, {"ssl_ca_certs": ca_file}) if url and ca_file else url


def _with(url: str, parameters: dict[str, str]) -> str:
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    return urlunsplit(parts._replace(query=urlencode({**parameters, **given})))

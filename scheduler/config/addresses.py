"""URLs of servers, with what other settings say about reaching them."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit


def postgres_url(url: str, ca_file: str) -> str:
    """Return the URL; with a CA it is asked for TLS, and for a certificate of that CA in the server's name."""
    return _with(url, _of_postgres(ca_file)) if url and ca_file else url


def redis_url(url: str, ca_file: str) -> str:
    """Return the URL; with a CA, the server must show a certificate of that one in its name."""
    return _with(url, _of_redis(ca_file)) if url and ca_file else url


def loosened(url: str, ca_file: str) -> list[str]:
    """Return what the URL of a server says for itself that would undo `ca_file`."""
    if not ca_file:
        return []
    given = _parameters(url)
    wanted = _of_redis(ca_file) if url.startswith("redis") else _of_postgres(ca_file)
    return [f"{name}={given[name]}" for name, value in wanted.items() if given.get(name, value) != value]


def _of_postgres(ca_file: str) -> dict[str, str]:
    return {"sslmode": "verify-full", "sslrootcert": ca_file}


def _of_redis(ca_file: str) -> dict[str, str]:
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": "true", "ssl_ca_certs": ca_file}


def _with(url: str, parameters: dict[str, str]) -> str:
    return urlunsplit(urlsplit(url)._replace(query=urlencode({**parameters, **_parameters(url)})))


def _parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))

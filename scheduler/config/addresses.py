"""URLs of servers, with what other settings say about reaching them."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit


def postgres_url(url: str, ca_file: str) -> str:
    """Return the URL; with a CA it is asked for TLS, and for a certificate of that CA in the server's name."""
    return _with(url, _of_postgres(ca_file)) if url and ca_file else url


def redis_url(url: str, ca_file: str) -> str:
    """Return the URL; with a CA, the server must show a certificate of that one in its name."""
    return _with(url, _of_redis(ca_file)) if url and ca_file else url


def is_readable(url: str) -> bool:
    """Say whether drivers can read the URL of a server as it was meant.

    A password with `#`, `/`, `?`, `[` or `@` in it, as such, makes it another URL, or none.
    """
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        return False
    login, at, hosts = parts.netloc.rpartition("@")
    ends_early = parts.fragment or (hosts and not at and "@" in parts.path)
    ends_late = "@" in login and parts.scheme.startswith("postgres")  # Redis is looked for behind the last one
    ports = [*_ports(hosts), *_ports(query.get("host", "")), *query.get("port", "").split(",")]
    return not ends_early and not ends_late and all(map(_is_port, ports))


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


def _ports(hosts: str) -> list[str]:
    """Return what stands for the port of each host, empty where nothing does; sockets have none."""
    return [host.rpartition("]")[2].partition(":")[2] for host in hosts.split(",") if not host.startswith("/")]


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and int(text) < 2**16)


def _parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))

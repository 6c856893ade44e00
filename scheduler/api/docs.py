"""The OpenAPI document; for people `/docs`: a page, its script and its style, from this package and no other host."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from scheduler.api.context import Context
from scheduler.api.openapi import openapi
from scheduler.api.requests import Request
from scheduler.api.responses import Header, Reply
from scheduler.api.routing import Route, probe
from scheduler.domain.access import OPEN

_HERE = Path(__file__).parent / "page"
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: tuple[Header, ...] = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)


async def docs(api: Context, request: Request) -> Reply:  # noqa: ARG001 - every handler takes both
    """Return the page."""
    return Reply(_file("index.html"), 200, b"text/html; charset=utf-8", _HEADERS)


async def docs_script(api: Context, request: Request) -> Reply:  # noqa: ARG001 - every handler takes both
    """Return the page's script."""
    return Reply(_file("page.js"), 200, b"text/javascript; charset=utf-8", _HEADERS)


async def docs_style(api: Context, request: Request) -> Reply:  # noqa: ARG001 - every handler takes both
    """Return the page's style."""
    return Reply(_file("page.css"), 200, b"text/css; charset=utf-8", _HEADERS)


@cache
def _file(name: str) -> bytes:
    return (_HERE / name).read_bytes()


ROUTES: tuple[Route, ...] = (
    probe("/docs", OPEN, docs, "This document, for people", {200: ("text/html",)}),
    probe("/docs/page.js", OPEN, docs_script, "The script of /docs", {200: ("text/javascript",)}),
    probe("/docs/page.css", OPEN, docs_style, "The style of /docs", {200: ("text/css",)}),
    probe("/openapi.json", OPEN, openapi, "This document", {200: dict[str, Any]}),
)

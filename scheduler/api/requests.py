"""What a handler gets of a request: parameters, headers, and a body that is bounded while it is read."""

from __future__ import annotations

import re
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote
from uuid import UUID

import anyio
import msgspec
from starlette.types import Receive, Scope

from scheduler.api.coding import unpack
from scheduler.api.pointers import field_error, pointer
from scheduler.api.problems import Refusal, malformed, wrong_shape
from scheduler.domain.access import Principal
from scheduler.domain.errors import FieldError, InvalidInput, NotFound

T = TypeVar("T")

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_ETAG = re.compile(r'(?:W/)?"(\d{1,10})"')
_DRAIN_FACTOR = 8
_JSON_TYPES = frozenset({"application/json", "application/merge-patch+json", "text/json"})


class Request:
    """One HTTP request. `params` are the decoded path parameters; `principal` asks, about objects of `namespace`."""

    __slots__ = (
        "_body",
        "_query",
        "_receive",
        "headers",
        "namespace",
        "noted",
        "params",
        "principal",
        "request_id",
        "scope",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        headers: dict[bytes, bytes],
        params: dict[str, str],
        *,
        request_id: str,
        namespace: str,
        principal: Principal,
    ) -> None:
        self.scope = scope
        self.headers = headers
        self.params = params
        self.request_id = request_id
        self.namespace = namespace
        self.principal = principal
        self._receive = receive
        self._query: dict[str, str] | None = None
        self._body: bytes | None = None
        self.noted: dict[str, Any] | None = None

    @property
    def address(self) -> str | None:
        """Where the request comes from, as far as the connection tells."""
        client = self.scope.get("client")
        return str(client[0]) if client else None

    def note(self, **fields: Any) -> None:
        """Note for the audit log what only the handler knows: `object`, `version_before`, `version_after`, `count`."""
        self.noted = {**(self.noted or {}), **fields}

    @property
    def actor(self) -> str:
        """Who is written down as having made a change."""
        return self.principal.name

    @property
    def receive(self) -> Receive:
        """The ASGI channel, for answers that watch whether the client is still there."""
        return self._receive

    @property
    def path(self) -> bytes:
        """The path as it was sent: what was quoted in it still is."""
        sent: bytes | None = self.scope.get("raw_path")
        return sent or quote(self.scope["path"]).encode()

    @property
    def query(self) -> dict[str, str]:
        """Query parameters, the last of each name. Raises a 400 Refusal for a NUL byte."""
        if self._query is None:
            text = self.scope["query_string"].decode("latin-1")
            self._query = dict(parse_qsl(text, keep_blank_values=True)) if text else {}
            for name, value in self._query.items():
                if "\x00" in value or "\x00" in name:
                    raise malformed("a query parameter holds a NUL byte")
        return self._query

    def allow_query(self, *names: str) -> None:
        """Raise a 400 Refusal if the query holds anything else: a filter that is ignored is a wrong answer."""
        if unknown := [name for name in self.query if name not in names]:
            raise malformed(
                "unknown query parameter", *(FieldError(f"?{n}", "there is no such parameter") for n in unknown)
            )

    def uuid(self, kind: str, name: str = "id") -> UUID:
        """Return a path parameter as an id. What is no UUID names nothing: NotFound, as for any unknown id."""
        text = self.params[name]
        try:
            return UUID(text)
        except ValueError:
            raise NotFound(kind, text[:100]) from None

    def query_uuid(self, name: str) -> UUID | None:
        """Return a query parameter as an id, None if it is absent."""
        return self.convert(name, UUID)

    def convert(self, name: str, type: type[T]) -> T | None:  # noqa: A002 - what msgspec calls it
        """Return a query parameter as `type`, None if it is absent. Raises InvalidInput."""
        text = self.query.get(name)
        if text is None:
            return None
        try:
            return msgspec.convert(text, type, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidInput([FieldError(f"?{name}", field_error(str(error)).detail)]) from None

    @property
    def traceparent(self) -> str | None:
        """The caller's W3C trace context, if it is a valid one (an invalid one is as good as none)."""
        value = self.headers.get(b"traceparent")
        return value.decode() if value is not None and _TRACEPARENT.fullmatch(value) else None

    def if_match(self) -> int | None:
        """Return the version that the caller expects, None for any. Raises a 400 Refusal for no ETag of ours."""
        value = self.headers.get(b"if-match")
        if value is None or value.strip() == b"*":
            return None
        match = _ETAG.fullmatch(value.decode("latin-1").strip())
        if match is None:
            raise malformed('If-Match takes one ETag as this server gave it, for example "3"')
        return int(match[1])

    @property
    def media_type(self) -> str:
        """The body's media type without parameters, lower case; empty if none was given."""
        return self.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()

    def demand_json(self) -> None:
        """Raise a 415 Refusal if the body says that it is anything but JSON."""
        media = self.media_type
        if media and media not in _JSON_TYPES:
            raise Refusal(415, "unsupported-media-type", f"send application/json, not {media[:100]}")

    async def body(self, limit: int, patience: float) -> bytes:
        """Read the whole body, unpacked: at most `limit` bytes, within `patience` seconds.

        Raises a 413, 408, 415 or 400 Refusal. A body that is too large is still read for a while and thrown away,
        because a client that is cut off while sending never sees the answer. Asked again, it returns the same.
        """
        if self._body is None:
            data = await self._read(limit, patience)
            coding = self.headers.get(b"content-encoding")
            if coding is not None and data:
                data = await unpack(data, coding.decode("latin-1").strip().lower(), limit)
            self._body = data
        return self._body

    def demand_condition(self) -> None:
        """Raise a 428 Refusal unless the request says which version it means: `If-Match`, if need be `*`."""
        if b"if-match" not in self.headers:
            detail = "send If-Match with the ETag that you have read, so that nobody else's change is lost"
            raise Refusal(428, "precondition-required", detail)

    async def _read(self, limit: int, patience: float) -> bytes:
        with anyio.move_on_after(patience):
            return await self._read_all(limit)
        raise Refusal(
            408, "too-slow", f"the body must arrive within {patience:g} s", headers=[(b"connection", b"close")]
        )

    async def _read_all(self, limit: int) -> bytes:
        data, size, more = bytearray(), 0, True
        while more and size <= limit * _DRAIN_FACTOR:
            message = await self._receive()
            if message["type"] != "http.request":
                raise malformed("the client went away")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= limit:
                data += chunk
            else:
                data.clear()
            more = message.get("more_body", False)
        if size > limit:
            raise Refusal(413, "too-large", f"the body may have {limit} bytes at most")
        return bytes(data)


def decode(decoder: msgspec.json.Decoder[T], data: bytes, prefix: str = "") -> T:
    """Decode a JSON body. Raises a 400 Refusal that points at what is wrong, or InvalidInput for NUL characters."""
    try:
        value = decoder.decode(data)
    except msgspec.ValidationError as error:
        raise wrong_shape(field_error(str(error), prefix)) from None
    except msgspec.DecodeError as error:
        raise malformed(str(error), *([FieldError(prefix, "malformed JSON")] if prefix else [])) from None
    except (UnicodeDecodeError, RecursionError) as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else "is not UTF-8"
        raise malformed(f"the body {what}", *([FieldError(prefix, what)] if prefix else [])) from None
    if b"\\u0000" in data:
        refuse_nul(data, prefix)
    return value


def refuse_nul(data: bytes, prefix: str = "") -> None:
    """Raise InvalidInput naming every text that holds a NUL character: neither a command nor the database can."""
    errors = [
        FieldError(prefix + pointer(*path), "may not hold a NUL character")
        for path in _nul_paths(msgspec.json.decode(data))
    ]
    if errors:
        raise InvalidInput(errors[:20])


def _nul_paths(value: Any) -> list[tuple[object, ...]]:
    if isinstance(value, str):
        return [()] if "\x00" in value else []
    found: list[tuple[object, ...]] = []
    if isinstance(value, dict):
        for key, item in value.items():
            if "\x00" in key:
                found.append(())
            else:
                found += [(key, *path) for path in _nul_paths(item)]
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += [(index, *path) for path in _nul_paths(item)]
    return found

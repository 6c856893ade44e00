"""The functions that run inside Redis, and the calling of them.

The library's name carries a hash of its text: releases with different functions coexist, and a name, once there, means
exactly this text. It is registered only when the server says that a function is missing: after a start without
persistence, a FUNCTION FLUSH, or an upgrade.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources

from redis.exceptions import ResponseError

from scheduler.broker.errors import BrokerUnavailable
from scheduler.broker.link import Arg, Command, Link, Reply

_MISSING = "Function not found"


@cache
def library() -> tuple[str, str]:
    """Return the library's name and its text."""
    folder = resources.files("scheduler.broker") / "lua"
    parts = sorted((part for part in folder.iterdir() if part.name.endswith(".lua")), key=lambda part: part.name)
    body = "\n".join(part.read_text("utf-8") for part in parts)
    name = f"dts_{hashlib.sha256(body.encode()).hexdigest()[:8]}"
    return name, f"#!lua name={name}\n" + body.replace("@LIBRARY@", name)


class Functions:
    """Builds and makes calls of the library's functions."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.name, self._text = library()

    def command(self, function: str, keys: Sequence[bytes], *args: Arg) -> Command:
        """Return the command that calls `function`."""
        return ("FCALL", f"{self.name}_{function}", len(keys), *keys, *args)

    async def call(self, *commands: Command) -> list[Reply]:
        """Send commands that do not block and return their replies, none of which is an error.

        Raises BrokerUnavailable.
        """
        if not commands:
            return []
        return await self.mend(commands, await self._link.call(*commands))

    async def mend(self, commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
        """Return the replies with none an error.

        If functions turned out to be missing they are registered, once, and the calls that failed are made again.
        Raises BrokerUnavailable.
        """
        missing = [i for i, reply in enumerate(replies) if _is_missing(reply)]
        if missing:
            await self._register()
            again = await self._link.call(*(commands[i] for i in missing))
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        for reply in replies:
            check(reply)
        return replies

    async def one(self, function: str, keys: Sequence[bytes], *args: Arg) -> Reply:
        """Call one function and return its reply. Raises BrokerUnavailable."""
        return (await self.call(self.command(function, keys, *args)))[0]

    async def _register(self) -> None:
        for reply in await self._link.call(("FUNCTION", "LOAD", "REPLACE", self._text)):
            check(reply)


def _is_missing(reply: Reply) -> bool:
    """Say whether the reply is the error of a call to a function that the server does not know."""
    return isinstance(reply, ResponseError) and _MISSING in str(reply)


def check(reply: Reply) -> None:
    """Raise BrokerUnavailable if the reply is an error."""
    if isinstance(reply, ResponseError):
        raise BrokerUnavailable(f"Redis refused a command: {reply}") from reply

"""What tests share: real servers, isolation per test, and waiting for states instead of time."""

from tests.support.servers import ServerHandle, Servers
from tests.support.waiting import until, until_sync

__all__ = ["ServerHandle", "Servers", "until", "until_sync"]

"""The api role: HTTP in, committed work out.

`app` takes a request to its handler by the table in `routes`, which names every module of handlers; these use the
stores, and `offers` tells Redis afterwards. `role` puts it together.
"""

from scheduler.api.listening import NotLoopback
from scheduler.api.role import serve
from scheduler.api.settings import ApiSettings, TlsSettings

__all__ = ["ApiSettings", "NotLoopback", "TlsSettings", "serve"]

"""What whoever can make requests of an API can do."""

from __future__ import annotations

from typing import Any

import httpx2


class Submitting:
    """Creates tasks by the `request` of its subclass."""

    def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        raise NotImplementedError

    def submit(self, command: str | list[str] = "exec /bin/true", **fields: Any) -> dict[str, Any]:
        """Create a task and return it."""
        answer = self.request("POST", "/api/tasks", json={"name": "t", "command": command, **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()

"""Airflow: `ready` waits until its flows are known; `chain` and `wide` run one over its API, print begin and end.

The end is the run's own, from its record: nobody waits for this program to look.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from datetime import datetime
from typing import Any

BASE = os.environ["BENCH_BASE"]


def call(path: str, body: object = None, *, token: str = "", method: str | None = None) -> Any:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def ready() -> None:
    """Wait until the server answers and has read the flows."""
    while True:
        try:
            token = call("/auth/token")["access_token"]
            known = call("/api/v2/dags", token=token)["dags"]
            if {"chain", "wide"} <= {one["dag_id"] for one in known}:
                return
        except OSError:
            pass
        time.sleep(0.3)


def run(kind: str) -> None:
    """Run a flow and wait for its end."""
    token = call("/auth/token")["access_token"]
    call(f"/api/v2/dags/{kind}", {"is_paused": False}, token=token, method="PATCH")
    began = time.time()
    path = f"/api/v2/dags/{kind}/dagRuns"
    name = call(path, {"logical_date": None}, token=token)["dag_run_id"]
    while (record := call(f"{path}/{name}", token=token))["state"] not in {"success", "failed"}:
        time.sleep(0.3)
    if record["state"] != "success":
        sys.exit(f"the run {record['state']}")
    print(began, datetime.fromisoformat(record["end_date"]).timestamp())


if __name__ == "__main__":
    ready() if sys.argv[1] == "ready" else run(sys.argv[1])

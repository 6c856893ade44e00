"""The token of a running command: its own run, its own attempt, and nothing else."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from scheduler.api.routes import ROUTES
from scheduler.domain.run_tokens import RunToken, read, sign
from tests.roles.api.access_support import Caller, Closed
from tests.roles.api.support import FakeWorker

KEY = bytes(range(32))


async def token_of(closed: Closed, claim: Any, **changes: Any) -> Caller:
    """What the worker gives to the command of this claim."""
    key = await closed.api.context.keys.run_token_key()
    fields = {"run_id": claim.run_id, "fence": claim.fence, "expires": 2**40, "namespace": "default", **changes}
    return Caller(closed.api, sign(key, RunToken(**fields)))


async def test_it_opens_its_own_runs_checkpoint_fence_logs_and_outputs(closed: Closed, worker: FakeWorker) -> None:
    editor = await closed.key("editor")
    run = (await editor.create())["last_run"]["id"]
    claim = await worker.claim(run)
    own = await token_of(closed, claim)
    assert (await own.request("PUT", f"/api/runs/{run}/checkpoint", raw=b"here")).status == 200
    assert (await own.request("PUT", f"/api/runs/{run}/checkpoint?fence={claim.fence + 1}", raw=b"x")).status == 403
    assert (await own.get(f"/api/runs/{run}/checkpoint")).body == b"here"
    assert (await own.get(f"/api/runs/{run}/fence/{claim.fence}")).json == {"valid": True, "current": claim.fence}
    for tail in ("logs", "outputs"):
        assert (await own.get(f"/api/runs/{run}/{tail}")).status == 200


async def test_its_refusal_names_all_that_it_opens(closed: Closed, worker: FakeWorker) -> None:
    editor = await closed.key("editor")
    own = await token_of(closed, await worker.claim((await editor.create())["last_run"]["id"]))
    refusal = (await own.get("/api/tasks")).json["detail"]
    for route in ROUTES:
        if route.run_token:
            assert route.path.split("/")[4].removesuffix("s") in refusal, route.path


async def test_it_opens_nothing_else(closed: Closed, worker: FakeWorker) -> None:
    editor = await closed.key("editor")
    task, other = await editor.create(), await editor.create()
    run = task["last_run"]["id"]
    own = await token_of(closed, await worker.claim(run))
    for method, target in (
        ("GET", "/api/tasks"),
        ("POST", "/api/tasks"),
        ("GET", f"/api/tasks/{task['id']}"),
        ("GET", f"/api/runs/{run}"),
        ("POST", f"/api/runs/{run}/cancel"),
        ("GET", f"/api/runs/{other['last_run']['id']}/checkpoint"),
        ("GET", "/api/runs/x/checkpoint"),
        ("GET", "/api/keys"),
        ("GET", "/metrics"),
    ):
        assert (await own.request(method, target)).status == 403, target


async def test_it_ends_with_its_attempt_but_may_still_ask_whether_it_has(closed: Closed, worker: FakeWorker) -> None:
    editor = await closed.key("editor")
    run = (await editor.create(retry={"max_attempts": 2}))["last_run"]["id"]
    claim = await worker.claim(run)
    own = await token_of(closed, claim)
    await worker.end(claim, "pending", attempt_outcome="failed", retry_in=0.0)
    following = await worker.claim(run)
    assert following.fence > claim.fence
    assert (await own.get(f"/api/runs/{run}/fence/{claim.fence}")).json["valid"] is False
    for tail in ("logs", "outputs", "checkpoint"):
        assert (await own.get(f"/api/runs/{run}/{tail}")).status == 403, tail
    assert (await own.request("PUT", f"/api/runs/{run}/checkpoint", raw=b"x")).status == 409


async def test_one_that_was_forged_or_has_expired_is_refused(closed: Closed, worker: FakeWorker) -> None:
    editor = await closed.key("editor")
    run = (await editor.create())["last_run"]["id"]
    claim = await worker.claim(run)
    own = await token_of(closed, claim)
    assert own.key is not None
    payload, _, signature = own.key.partition(".")
    forged = sign(KEY, RunToken(claim.run_id, claim.fence, 2**40, "default"))
    for text in (forged, payload, f"{payload}.", f"{payload}.{signature[:-4]}AAAA", "dtr_."):
        assert (await Caller(closed.api, text).get(f"/api/runs/{run}/outputs")).status == 401, text
    assert (await (await token_of(closed, claim, expires=1)).get(f"/api/runs/{run}/outputs")).status == 401


def test_a_token_says_what_was_signed() -> None:
    token = RunToken(UUID(int=7), 12, 1000, "team-a")
    text = sign(KEY, token)
    assert read(KEY, text, 999.0) == token
    assert read(KEY, text, 1000.0) is None
    assert read(bytes(32), text, 0.0) is None
    for position in range(4, len(text)):
        changed = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
        assert read(KEY, changed, 0.0) is None, position

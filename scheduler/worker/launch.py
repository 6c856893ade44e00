"""From a claimed task to a command that is ready to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from scheduler.domain.clock import Clock
from scheduler.domain.run import Claim
from scheduler.domain.run_tokens import RunToken, sign
from scheduler.domain.sizes import parse_size
from scheduler.domain.task import SecretRef, TaskSpec
from scheduler.worker.identity import Identity, UnknownUser, identity_of
from scheduler.worker.scratch import Files
from scheduler.worker.spawn import DEFAULT_PATH, SpawnError

DEFAULT_OUTPUT = 10 * 1024 * 1024
"""Bytes of output that are kept, unless `limits.output` says otherwise."""


def output_limit(spec: TaskSpec) -> int:
    """Return how many bytes of output the attempt may keep."""
    return DEFAULT_OUTPUT if spec.limits.output is None else parse_size(spec.limits.output)


_UNBOUNDED = 7 * 86400.0
"""Seconds for which the token of a command without a timeout holds; it ends with its attempt in any case."""

_AFTERWARDS = 300.0


class Launch(msgspec.Struct, frozen=True, gc=False):
    """A command ready to start. `directory` and `umask` are None for the worker's own; `stdin` None reads nothing.

    `limits` are pairs of `RLIMIT_…` and the most of it; whoever writes `0` to each of the descriptors `cell` is in its
    cell.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    identity: Identity
    directory: str | None = None
    umask: int | None = None
    stdin: bytes | None = None
    limits: Sequence[tuple[int, int]] = ()
    cell: Sequence[int] = ()


class Launcher:
    """Builds launches. `default` is who commands run as that name no user; what it stands for is not applied again.

    `signing_key` makes the tokens with which commands show the API whose attempt they are; without it they get none.
    """

    def __init__(self, default: Identity, api_url: str, clock: Clock) -> None:
        self.default = default
        self.signing_key: bytes | None = None
        self._clock = clock
        self._common = {"PATH": DEFAULT_PATH, "LANG": "C.UTF-8", **({"DTS_API_URL": api_url} if api_url else {})}

    def identity(self, spec: TaskSpec) -> Identity:
        """Return who the command runs as. Raises SpawnError for unknown users, and for root unless allowed."""
        if spec.user is None or spec.user == self.default.name:
            return self.default
        try:
            identity = identity_of(spec.user)
        except UnknownUser as error:
            raise SpawnError("unknown_user", f"there is no user {spec.user} here") from error
        if identity.uid == 0 and self.default.uid != 0:
            raise SpawnError("user_not_permitted", "this worker runs no command as root")
        return identity

    def launch(
        self, claim: Claim, spec: TaskSpec, identity: Identity, files: Files, secrets: Mapping[str, str]
    ) -> Launch:
        """Return the command with its whole environment: nothing of the worker's own is in it.

        `secrets` holds the value of each secret that the environment names.
        """
        command = spec.command
        workdir = spec.workdir
        if workdir is None and identity is not self.default:
            workdir = identity.directory
        return Launch(
            arguments=["/bin/sh", "-c", command] if isinstance(command, str) else command,
            environment=self._environment(claim, spec, identity, files, secrets),
            identity=identity,
            directory=workdir,
            umask=None if spec.umask is None else int(spec.umask, 8),
            stdin=None if spec.stdin is None else spec.stdin.encode("utf-8", "surrogateescape"),
        )

    def _environment(
        self, claim: Claim, spec: TaskSpec, identity: Identity, files: Files, secrets: Mapping[str, str]
    ) -> dict[str, str]:
        environment = self._common | identity.environment
        for name, value in spec.env.items():
            environment[name] = secrets[value.secret] if isinstance(value, SecretRef) else value
        run_id = str(claim.run_id)
        environment["DTS_TASK_ID"] = str(claim.task_id)
        environment["DTS_RUN_ID"] = run_id
        environment["DTS_IDEMPOTENCY_KEY"] = run_id
        environment["DTS_ATTEMPT"] = str(claim.attempt)
        environment["DTS_FENCE"] = str(claim.fence)
        environment["DTS_CHECKPOINT_FILE"] = files.checkpoint
        environment["DTS_OUTPUT_FILE"] = files.outputs
        if self.signing_key is not None:
            environment["DTS_RUN_TOKEN"] = sign(self.signing_key, self._token(claim, spec))
        if claim.scheduled_for is not None:
            environment["DTS_SCHEDULED_FOR"] = claim.scheduled_for.strftime("%Y-%m-%dT%H:%M:%SZ")
        if claim.traceparent is not None:
            environment["TRACEPARENT"] = claim.traceparent
        return environment

    def _token(self, claim: Claim, spec: TaskSpec) -> RunToken:
        lifetime = _UNBOUNDED if spec.timeout is None else float(spec.timeout) + float(spec.kill_timeout) + _AFTERWARDS
        expires = int(self._clock.now().timestamp() + lifetime)
        return RunToken(claim.run_id, claim.fence, expires, claim.namespace)

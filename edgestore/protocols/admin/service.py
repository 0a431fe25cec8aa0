"""The routes below `/-/`: open ones (ready, metrics) and `/-/admin/v1`, for root keys or the local socket only.

Rule: one table of routes; documents are JSON; errors are `{"error": class, "message": text}`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import parse_qsl

from edgestore.chunks import Body
from edgestore.clock import Clock
from edgestore.config import Config
from edgestore.consensus import ConsensusStatus
from edgestore.errors import BadRequest, Conflict, Denied, EdgeStoreError, NotFound, TooLarge, Unavailable
from edgestore.kernels import active_kernel
from edgestore.objects import ObjectService
from edgestore.observe import Metrics
from edgestore.protocols.admin.site import AdminSite, SiteRoutes, policy_of, redundancy_of
from edgestore.protocols.http import RequestHead, Response
from edgestore.security import SignedRequest, SigningLimits, verify_request
from edgestore.tenants import TenantService

DOCUMENT_MAX_BYTES = 65_536
SERVES_WITHIN_S = 1.0
"""A node that cannot read for longer than this does not serve; without a quorum the question would wait for one."""
STATUSES: tuple[tuple[type[EdgeStoreError], int], ...] = (
    (Denied, 403),
    (NotFound, 404),
    (Conflict, 409),
    (BadRequest, 400),
    (Unavailable, 503),
    (EdgeStoreError, 500),
)


class MetaStatus(Protocol):
    """What is shown and done of the catalog."""

    def status(self) -> ConsensusStatus:
        """Where the group stands."""
        ...

    def log_time_ms(self) -> int:
        """Log time now."""
        ...

    async def step_log_time(self, to_ms: int) -> None:
        """Sets it forward."""
        ...

    def can_read_now(self) -> bool:
        """Whether reads are served at once: of a leader that is sure of it."""
        ...

    async def read_barrier(self) -> None:
        """Returns when reads are served, on any node. Raises Unavailable."""
        ...


class AdminCore(Protocol):
    """The parts of a core that operators act on."""

    objects: ObjectService
    tenants: TenantService
    config: Config
    clock: Clock

    @property
    def meta(self) -> MetaStatus:
        """The catalog."""
        ...

    @property
    def free_bytes(self) -> int:
        """What the disk still takes."""
        ...

    @property
    def site(self) -> AdminSite | None:
        """The site; None on a lone node."""
        ...

    @property
    def disk_health(self) -> dict[str, Any]:
        """What is known to be damaged, and when everything was last read."""
        ...


Question = dict[str, str]


class Admin:
    """The handler of the front's `/-/` routes."""

    def __init__(self, core: AdminCore, metrics: Metrics) -> None:
        self._core, self._metrics = core, metrics
        self._table: dict[tuple[str, str], Callable[[Question], Awaitable[Any]]] = {
            ("GET", "status"): self._status,
            ("PUT", "log-time"): self._step_log_time,
            ("GET", "buckets"): self._list_buckets,
            ("PUT", "buckets"): self._create_bucket,
            ("DELETE", "buckets"): self._delete_bucket,
            ("PUT", "policy"): self._set_policy,
            ("GET", "keys"): self._list_keys,
            ("PUT", "keys"): self._create_key,
            ("DELETE", "keys"): self._delete_key,
            ("PUT", "tokens"): self._routes_of_site("create_token"),
            ("GET", "nodes"): self._routes_of_site("list_nodes"),
            ("PUT", "nodes"): self._routes_of_site("set_node"),
        }

    def _routes_of_site(self, name: str) -> Callable[[Question], Awaitable[Any]]:
        """Looked up at each call: a site comes up after the routes are made."""

        async def route(question: Question) -> Any:
            return await getattr(SiteRoutes(self._core.site), name)(question)

        return route

    async def handle(self, head: RequestHead, body: Body) -> Response:
        """One request."""
        if head.path == "/-/ready" and head.method in ("GET", "HEAD"):
            ready = await self._serves()
            return Response(
                200 if ready else 503, [("Content-Type", "text/plain")], b"ready\n" if ready else b"not ready\n"
            )
        if head.path == "/-/metrics" and head.method == "GET":
            return Response(200, [("Content-Type", "text/plain; version=0.0.4")], self._metrics.exposition())
        try:
            return await self._administer(head, body)
        except EdgeStoreError as error:
            status = next(status for kind, status in STATUSES if isinstance(error, kind))
            return _document(status, {"error": type(error).__name__, "message": str(error)})

    async def _administer(self, head: RequestHead, body: Body) -> Response:
        prefix, _, name = head.path.rpartition("/")
        if prefix != "/-/admin/v1":
            raise NotFound(f"nothing answers at {head.path}")
        signed = self._check_root(head)
        data = await _read_all(body)
        if signed is not None and not hmac.compare_digest(hashlib.sha256(data).digest(), signed):
            raise Denied("the body is not the one that was signed")
        question = dict(parse_qsl(head.query, keep_blank_values=True)) | _document_of(data)
        return _document(200, await self.ask(head.method, name, question))

    async def ask(self, method: str, name: str, question: Question) -> Any:
        """One row of the table, for the front and for the command line on a folder."""
        handler = self._table.get((method, name))
        if handler is None:
            raise NotFound(f"there is no {method} {name}")
        return await handler(question)

    def _check_root(self, head: RequestHead) -> bytes | None:
        """The SHA-256 of the body that was signed with root keys; None on the local socket, trusted by its mode."""
        if head.is_local:
            return None
        if "authorization" not in head.headers:
            raise Denied("sign the request with the root keys")
        verified = verify_request(
            SignedRequest(head.method, head.path, head.query, head.headers),
            now_ms=self._core.clock.wall_ms(),
            region=self._core.config.s3.region,
            lookup=lambda key: (self._core.tenants.principal_for(key) or (None, None))[1],
            limits=SigningLimits(self._core.config.s3.clock_skew_max_s, self._core.config.s3.presign_expiry_max_s),
        )
        found = self._core.tenants.principal_for(verified.access_key)
        if found is None or not found[0].is_root:
            raise Denied("only the root keys may administer")
        if verified.payload_sha256 is None:
            raise Denied("sign the body too: x-amz-content-sha256 must be its SHA-256")
        return verified.payload_sha256

    async def _serves(self) -> bool:
        if self._core.meta.can_read_now():
            return True
        try:
            async with asyncio.timeout(SERVES_WITHIN_S):
                await self._core.meta.read_barrier()
        except (TimeoutError, Unavailable):
            return False
        return True

    async def _status(self, _: Question) -> Any:
        """Told without a quorum too: then of what this node knows, and the buckets are not counted."""
        status, serves = self._core.meta.status(), await self._serves()
        buckets = await self._core.objects.list_buckets(self._core.tenants.root()) if serves else None
        return {
            "leader": status.is_leader,
            "serves": serves,
            "term": status.term,
            "applied_index": status.applied_index,
            "last_index": status.last_index,
            "log_time_ms": self._core.meta.log_time_ms(),
            "clock_ms": self._core.clock.wall_ms(),
            "free_bytes": self._core.free_bytes,
            **self._core.disk_health,
            "kernel": active_kernel,
            "region": self._core.config.s3.region,
            "buckets": len(buckets) if buckets is not None else None,
            **await SiteRoutes(self._core.site).status(),
        }

    async def _step_log_time(self, _: Question) -> Any:
        """To the node's wall clock, which the operator says is right, where log time is behind it."""
        meta = self._core.meta
        with suppress(BadRequest):  # log time is there already: it may tick while it is asked
            await meta.step_log_time(self._core.clock.wall_ms())
        return {"log_time_ms": meta.log_time_ms()}

    async def _list_buckets(self, _: Question) -> Any:
        found = await self._core.objects.list_buckets(self._core.tenants.root())
        return [
            {
                "name": bucket.name,
                "owner": self._core.tenants.owner(bucket.owner).name,
                "created_ms": bucket.created_ms,
                **redundancy_of(bucket, self._core.site),
            }
            for bucket in found
        ]

    async def _create_bucket(self, question: Question) -> Any:
        policy = policy_of(question)
        bucket = await self._core.objects.create_bucket(self._core.tenants.root(), _field(question, "name"), policy)
        return {"name": bucket.name, **(redundancy_of(bucket, self._core.site) if policy is not None else {})}

    async def _set_policy(self, question: Question) -> Any:
        policy = policy_of(question)
        if policy is None:
            raise BadRequest("name what to set: 'tolerate' or 'scheme'")
        bucket = await self._core.objects.set_policy(self._core.tenants.root(), _field(question, "name"), policy)
        return {"name": bucket.name, **redundancy_of(bucket, self._core.site)}

    async def _delete_bucket(self, question: Question) -> Any:
        await self._core.objects.delete_bucket(self._core.tenants.root(), _field(question, "name"))
        return {"name": question["name"]}

    async def _list_keys(self, _: Question) -> Any:
        await self._core.objects.barrier()
        return [
            {"access_key": key.access_key, "name": owner.name, "email": owner.email, "id": owner.canonical_id}
            for key, owner in self._core.tenants.list_keys()
        ]

    async def _create_key(self, question: Question) -> Any:
        key = await self._core.tenants.create_key(
            name=_field(question, "name"),
            access_key=question.get("access_key", ""),
            secret_key=question.get("secret_key", ""),
            email=question.get("email", ""),
            canonical_id=question.get("id", ""),
        )
        owner = self._core.tenants.owner(key.tenant_id)
        return {
            "access_key": key.access_key,
            "secret_key": key.secret_key,
            "name": owner.name,
            "email": owner.email,
            "id": owner.canonical_id,
        }

    async def _delete_key(self, question: Question) -> Any:
        await self._core.tenants.delete_key(_field(question, "access_key"))
        return {"access_key": question["access_key"]}


def _field(question: Question, name: str) -> str:
    if not question.get(name):
        raise BadRequest(f"the request needs {name!r}")
    return question[name]


async def _read_all(body: Body) -> bytes:
    data = b""
    while (unit := await body.next_unit()) is not None:
        data += bytes(unit.view)
        unit.release()
        if len(data) > DOCUMENT_MAX_BYTES:
            raise TooLarge("the document is too large", limit_bytes=DOCUMENT_MAX_BYTES)
    return data


def _document_of(data: bytes) -> Question:
    if not data:
        return {}
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the document is no JSON: {error}") from error
    if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
        raise BadRequest("the document must be an object of strings")
    return document


def _document(status: int, value: Any) -> Response:
    return Response(status, [("Content-Type", "application/json")], json.dumps(value).encode() + b"\n")

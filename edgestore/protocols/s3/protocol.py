"""The S3 face: both lanes admit a request the same way (address, signature, operation), then run its row of the table.

Rule: nothing is looked up, parsed or refused by name before the signature was checked; every answer, also a refusal,
carries a request id; what breaks inside is logged and answered with InternalError, nothing of it is shown.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from edgestore.clock import Clock, Entropy
from edgestore.config import HttpConfig, S3Config
from edgestore.errors import Denied, EdgeStoreError, NotFound, NotSupported, Unavailable
from edgestore.objects import Body
from edgestore.observe import NO_METRICS, Metrics
from edgestore.protocols.http import HotReply, Plan, RequestHead, Response
from edgestore.protocols.s3 import addressing, faults
from edgestore.protocols.s3.call import Call, Services
from edgestore.protocols.s3.names import header_names
from edgestore.protocols.s3.operations import Operation, find_operation
from edgestore.protocols.s3.owners import require_expected_owner
from edgestore.protocols.s3.unsupported import refuse_unsupported_headers
from edgestore.protocols.s3.xml import XML_TYPE
from edgestore.security import Claim, SignedRequest, SigningLimits, Verified, read_plain_presign, verify_request

if TYPE_CHECKING:
    from edgestore.objects import ObjectService
    from edgestore.tenants import TenantService

logger = logging.getLogger("edgestore.s3")

OUTDATED = (NotFound, Denied)
"""What may be answered for the only reason that this node has not yet applied what was acknowledged elsewhere."""

CONSISTENCY = "x-edgestore-consistency"
"""Asks for `local` reads; linearizable ones need no header."""

_NO_QUERY: Mapping[str, str] = {}
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_NOT_IN_VALUES = re.compile("[\x00-\x08\x0a-\x1f\x7f]")


class S3Protocol:
    """Implements the front's `HotHandler`, and `handle` for everything else."""

    def __init__(
        self,
        objects: ObjectService,
        tenants: TenantService,
        config: S3Config,
        clock: Clock,
        entropy: Entropy,
        *,
        limits: HttpConfig | None = None,
        metrics: Metrics = NO_METRICS,
        site_time_ms: Callable[[], int | None] = lambda: None,
    ) -> None:
        limits = limits or HttpConfig()
        self._services = Services(objects, tenants, clock, config.region, limits.xml_max_bytes)
        self._config = config
        self._hot_body_max_bytes = limits.fast_body_max_bytes
        self._signing_limits = SigningLimits(config.clock_skew_max_s, config.presign_expiry_max_s)
        self._metrics = metrics
        self._site_time_ms = site_time_ms
        self._host_id = entropy(24).hex()
        self._request_salt = int.from_bytes(entropy(8), "big")
        self._requests = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def plan(self, head: RequestHead) -> Plan:
        """Which lane may take the request, from method, path and query alone."""
        method = head.method
        if method not in ("GET", "HEAD", "PUT") or not self._names_object(head):
            return Plan.SLOW
        if "authorization" not in head.headers and "X-Amz-Signature=" not in head.query:
            # It will be refused: in the slow lane that happens before the body is asked for.
            return Plan.SLOW
        if method == "PUT":
            if "x-amz-copy-source" in head.headers:
                return Plan.SLOW
            if head.body_bytes > self._hot_body_max_bytes:
                return Plan.STREAM
        # Other sub-resources are rare: they are found when the query is parsed, and go to the slow lane from `answer`.
        return Plan.SLOW if "uploadId=" in head.query else Plan.WHOLE

    def answer(self, head: RequestHead, body: bytes, reply: HotReply) -> bool:
        """The fast lane. False: nothing happened, the slow lane must take it."""
        call: Call | None = None

        def finish(outcome: Response | EdgeStoreError) -> None:
            if isinstance(outcome, OUTDATED) and self._may_be_outdated(call):
                wait()
            else:
                reply(head, self._sealed(head, call, outcome))

        def wait() -> None:
            # A follower: what it knows may be older than what was acknowledged elsewhere.
            self._services.objects.when_readable(lambda error: self._answer_readable(head, body, reply, error))

        try:
            call, operation = self._admit(head)
            if operation.hot is None:
                return False
            if not operation.hot(call, body, finish):
                if head.method == "PUT" or not self._may_be_outdated(call):
                    return False
                wait()
        except EdgeStoreError as error:
            finish(error)
        return True

    def _answer_readable(self, head: RequestHead, body: bytes, reply: HotReply, error: BaseException | None) -> None:
        """`answer` after the wait, in a callback: what is larger than the lane takes goes on in a task."""
        call: Call | None = None

        def finish(outcome: Response | EdgeStoreError) -> None:
            reply(head, self._sealed(head, call, outcome))

        if error is not None:
            finish(error if isinstance(error, EdgeStoreError) else _internal(head, error))
            return
        try:
            call, operation = self._admit(head)
            call.is_readable = True
            if operation.hot is None or not operation.hot(call, body, finish):
                self.stream(head, self._services.objects.body_of(body), reply)
        except EdgeStoreError as refused:
            finish(refused)
        except Exception as failure:
            finish(_internal(head, failure))

    def stream(self, head: RequestHead, body: Body, reply: HotReply) -> bool:
        """A large body that the front receives straight into units; answered when the operation is done."""
        task = asyncio.get_running_loop().create_task(self._answer_stream(head, body, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def refuse(self, head: RequestHead, error: EdgeStoreError) -> Response:
        """The error document for a request of the fast lane that the front gives up."""
        return self._sealed(head, None, error)

    async def handle(self, head: RequestHead, body: Body) -> Response:
        """The slow lane: every operation."""
        call: Call | None = None
        try:
            call, operation = await self._admit_surely(head)
            outcome: Response | EdgeStoreError = await operation.run(call, body)
        except EdgeStoreError as error:
            outcome = error
        except Exception as error:
            outcome = _internal(head, error)
        return self._sealed(head, call, outcome)

    async def close(self) -> None:
        """Ends the streams that are still running; their bodies are not stored."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for task in tasks:
            try:
                await task
            except asyncio.CancelledError:
                continue

    async def _answer_stream(self, head: RequestHead, body: Body, reply: HotReply) -> None:
        reply(head, await self.handle(head, body))

    def _may_be_outdated(self, call: Call | None) -> bool:
        """Whether this node may not have heard yet of what was acknowledged elsewhere, and the caller minds."""
        return not self._services.objects.can_read_now() and (call is None or not call.is_local)

    def _names_object(self, head: RequestHead) -> bool:
        path = head.path
        slash = path.find("/", 1)
        if 0 < slash < len(path) - 1:
            return True
        return bool(self._config.domain) and len(path) > 1

    def _admit(self, head: RequestHead) -> tuple[Call, Operation]:
        """A request that passed the signature check, and its row of the table. Raises what refuses it."""
        headers: Mapping[str, str] = head.headers
        address = addressing.resolve(head.path, headers.get("host", ""), self._config.domain)
        has_header = "authorization" in headers
        presign, query = None, _NO_QUERY
        if head.query:
            if not has_header:
                presign = read_plain_presign(head.query)
            if presign is None:
                query = addressing.parse_query(head.query)
        if not has_header and presign is None and "X-Amz-Signature" not in query and "X-Amz-Algorithm" not in query:
            raise _unsigned(head, query)
        verified = self._verify(SignedRequest(head.method, head.path, head.query, headers), presign)
        found = self._services.tenants.principal_for(verified.access_key)
        if found is None:
            raise Denied
        if query and not has_header:
            query = {name: query[name] for name in query if name not in addressing.SIGNATURE_PARAMETERS}
            headers = _with_hoisted(headers, query) if query else headers
        names = header_names(tuple(headers))
        if names.others:
            refuse_unsupported_headers(headers, names)
        operation = find_operation(head.method, address.level, query, headers)
        call = Call(self._services, head, headers, names, query, address.bucket, address.key, found[0], verified)
        if CONSISTENCY in headers:
            call.is_local = call.is_readable = _asks_for_local(head.method, headers[CONSISTENCY])
        if "x-amz-expected-bucket-owner" in headers:
            require_expected_owner(call, call.bucket, "x-amz-expected-bucket-owner")
        return call, operation

    def _verify(self, request: SignedRequest, presign: Claim | None) -> Verified:
        """By this node's clock, or by what the clocks of a majority show where that is far from it: a node whose clock
        is wrong serves all the same."""
        verify = partial(
            verify_request,
            request,
            region=self._config.region,
            lookup=self._secret,
            limits=self._signing_limits,
            presign=presign,
        )
        wall_ms = self._services.clock.wall_ms()
        try:
            return verify(now_ms=wall_ms)
        except EdgeStoreError:
            site_ms = self._site_time_ms()
            if site_ms is None or abs(site_ms - wall_ms) < self._config.clock_skew_max_s * 1000:
                raise
        return verify(now_ms=site_ms)

    async def _admit_surely(self, head: RequestHead) -> tuple[Call, Operation]:
        """`_admit` by what was acknowledged before, on whatever node: a key that was deleted is none."""
        try:
            call, operation = self._admit(head)
            if not self._may_be_outdated(call):
                return call, operation
        except OUTDATED:
            if self._services.objects.can_read_now():
                raise
        await self._services.objects.barrier()
        return self._admit(head)

    def _secret(self, access_key: str) -> str | None:
        found = self._services.tenants.principal_for(access_key)
        return None if found is None else found[1]

    def _sealed(self, head: RequestHead, call: Call | None, outcome: Response | EdgeStoreError) -> Response:
        """The answer with its request id; an error becomes its document."""
        self._requests += 1
        request_id = f"{(self._request_salt + self._requests) & 0xFFFFFFFFFFFFFFFF:016X}"
        response = outcome if isinstance(outcome, Response) else self._refused(head, call, outcome, request_id)
        response.headers.append(("x-amz-request-id", request_id))
        response.headers.append(("x-amz-id-2", self._host_id))
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "request method=%s path=%s status=%d id=%s", head.method, head.path, response.status, request_id
            )
        return response

    def _refused(self, head: RequestHead, call: Call | None, error: EdgeStoreError, request_id: str) -> Response:
        self._metrics.count("s3_refused_total")
        code = faults.code_of(error)
        status = faults.CODES[code][0]
        if status >= 500 and status != 501:
            logger.warning(
                "request_refused method=%s path=%s code=%s id=%s reason=%s",
                head.method,
                head.path,
                code,
                request_id,
                error,
                exc_info=None if isinstance(error, Unavailable) else error,  # which passes, and is nobody's mistake
            )
        headers = faults.fault_headers(error, code)
        if head.method == "HEAD" or status == 304:
            return Response(status, headers, b"")
        if call is not None:
            error.fields.setdefault("bucket", call.bucket)
            error.fields.setdefault("key", call.key or None)
        document = faults.fault_xml(error, resource=head.path, request_id=request_id, host_id=self._host_id)
        return Response(status, [("Content-Type", XML_TYPE), *headers], document)


def _internal(head: RequestHead, error: BaseException) -> EdgeStoreError:
    """What broke inside is logged, and nothing of it is shown."""
    logger.error("request_failed method=%s path=%s", head.method, head.path, exc_info=error)
    outcome = EdgeStoreError()
    outcome.__cause__ = error
    return outcome


def _unsigned(head: RequestHead, query: Mapping[str, str]) -> EdgeStoreError:
    # These two carry no signature of their own; that they are not there may be known to everybody.
    if head.method == "POST" and head.headers.get("content-type", "").startswith("multipart/form-data"):
        return NotSupported("POST uploads are not implemented.", Header="content-type")
    if head.method == "OPTIONS":
        return NotSupported("CORS is not implemented.", Header="origin")
    if "AWSAccessKeyId" in query:
        return faults.Fault(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )
    return Denied("Access Denied: requests without a signature are not served.")


def _asks_for_local(method: str, consistency: str) -> bool:
    """Only reads may be. Raises Fault(InvalidArgument)."""
    if consistency not in ("local", "linearizable"):
        raise faults.Fault(
            "InvalidArgument",
            "A read is linearizable or local.",
            ArgumentName=CONSISTENCY,
            ArgumentValue=consistency,
        )
    return consistency == "local" and method in ("GET", "HEAD")


def _with_hoisted(headers: Mapping[str, str], query: Mapping[str, str]) -> Mapping[str, str]:
    """Pre-signed requests may carry x-amz-* headers as signed parameters: they count as headers, and must be such."""
    hoisted: dict[str, str] = {}
    for parameter, text in query.items():
        if parameter[:6].lower() != "x-amz-":
            continue
        name, value = parameter.lower(), text.encode().decode("latin-1")
        if not _HEADER_NAME.fullmatch(parameter) or _NOT_IN_VALUES.search(value):
            raise faults.Fault(
                "InvalidArgument", "A query parameter that stands for a header is none.", ArgumentName=parameter
            )
        if hoisted.get(name, value) != value or headers.get(name, value) != value:
            raise faults.Fault(
                "InvalidArgument", "A header and a query parameter contradict each other.", ArgumentName=name
            )
        hoisted[name] = value
    return {**headers, **hoisted} if hoisted else headers

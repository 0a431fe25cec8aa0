"""One admitted request: who asks, for what, with which headers. Handlers take a `Call` and return a `Response`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from edgestore.clock import Clock
from edgestore.errors import EdgeStoreError
from edgestore.protocols.http import RequestHead, Response
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.names import HeaderNames
from edgestore.protocols.s3.xml import XML_TYPE, document
from edgestore.records import Principal, Versioning
from edgestore.security import Verified

if TYPE_CHECKING:
    from edgestore.objects import ObjectService
    from edgestore.tenants import TenantService

Reply = Callable[[Response | EdgeStoreError], None]
"""Takes the answer of the fast lane, once: a response, or the error that becomes one."""


@dataclass(frozen=True, slots=True)
class Services:
    """What every handler may use."""

    objects: ObjectService
    tenants: TenantService
    clock: Clock
    region: str
    document_max_bytes: int


class Call(msgspec.Struct, gc=False):
    """One request after its signature was checked. `headers` and `query` are lower-case and decoded once; `names`:
    what the headers are for."""

    services: Services
    head: RequestHead
    headers: Mapping[str, str]
    names: HeaderNames
    query: Mapping[str, str]
    bucket: str
    key: str
    principal: Principal
    verified: Verified
    is_readable: bool = False
    """What the catalog says here is new enough: the lane has waited for it."""

    is_local: bool = False
    """The answer may be as old as what this node has applied: asked for by name."""

    @property
    def objects(self) -> ObjectService:
        """The object service."""
        return self.services.objects

    async def barrier(self) -> None:
        """See `ObjectService.barrier`."""
        if not self.is_local:
            await self.objects.barrier()

    def version(self) -> str | None:
        """`versionId`; None for the current version. Raises Fault for an empty one."""
        version = self.query.get("versionId")
        if version == "":
            raise Fault(
                "InvalidArgument", "Version id cannot be the empty string", ArgumentName="versionId", ArgumentValue=""
            )
        return version

    def is_versioned(self) -> bool:
        """Whether versioning was ever switched on in the bucket: then answers show version ids."""
        return self.objects.bucket(self.principal, self.bucket).versioning is not Versioning.OFF

    def number(self, name: str, default: int, *, least: int = 0, most: int = 2**31 - 1) -> int:
        """A numeric parameter in its bounds, ASCII digits only. Raises Fault(InvalidArgument)."""
        value = self.query.get(name)
        if value is None or value == "":
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 11) or not least <= int(value) <= most:
            raise Fault(
                "InvalidArgument",
                f"Provided {name} not an integer or within integer range",
                ArgumentName=name,
                ArgumentValue=value,
            )
        return int(value)


PARTS_MAX = 10_000


def part_number(call: Call) -> int:
    """`partNumber`, which the request gives. Raises Fault(InvalidArgument)."""
    number = call.number("partNumber", 0, least=1, most=PARTS_MAX)
    if not number:
        raise Fault(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive",
            ArgumentName="partNumber",
        )
    return number


def xml_response(name: str, *parts: str, headers: list[tuple[str, str]] | None = None, status: int = 200) -> Response:
    """An answer that is one document in S3's namespace."""
    return Response(status, [("Content-Type", XML_TYPE), *(headers or [])], document(name, *parts))


def empty_response(status: int, *headers: tuple[str, str]) -> Response:
    """An answer without a body."""
    return Response(status, list(headers), b"")

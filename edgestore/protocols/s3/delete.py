"""DeleteObjects: up to 1,000 deletions in one request, each with an outcome of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from edgestore.errors import EdgeStoreError
from edgestore.objects import Body
from edgestore.protocols.http import Response
from edgestore.protocols.s3 import checksums, conditions, xml
from edgestore.protocols.s3.bodies import read_document
from edgestore.protocols.s3.call import Call, xml_response
from edgestore.protocols.s3.faults import Fault, fault_element
from edgestore.protocols.s3.xml import element
from edgestore.records import Condition

KEYS_MAX = 1000
AT_ONCE_MAX = 128
"""Deletions of one request that wait for their commit together: they share log entries, and the queue stays free for
others.
"""


@dataclass(frozen=True, slots=True)
class Target:
    """One deletion that the document asks for."""

    key: str
    version: str | None
    condition: Condition


async def delete_objects(call: Call, body: Body) -> Response:
    """DeleteObjects. Content-MD5 or a checksum is required, as in S3."""
    given = call.headers
    if "content-md5" not in given and checksums.announced(given, call.names) == checksums.NOTHING:
        raise Fault("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
    document = await read_document(call, body)
    if not document:
        raise Fault("MissingRequestBodyError")
    root = xml.parse(document, "Delete")
    xml.require_names(root, "Object", "Quiet")
    quiet = (xml.text(root, "Quiet") or "false").lower() == "true"
    targets = parse_targets(root)
    await call.barrier()
    call.objects.bucket(call.principal, call.bucket)
    rows = await _delete_all(call, targets)
    return xml_response("DeleteResult", *(row for row in rows if not quiet or row.startswith("<Error>")))


def parse_targets(root: Element) -> list[Target]:
    """What the document asks for. Raises MalformedXML for none or for more than 1,000."""
    objects = xml.children(root, "Object")
    if not 1 <= len(objects) <= KEYS_MAX:
        raise xml.MalformedXML
    targets = []
    for item in objects:
        xml.require_names(item, "Key", "VersionId", "ETag", "LastModifiedTime", "Size")
        condition = conditions.named_condition(
            xml.text(item, "ETag"), xml.text(item, "Size"), xml.text(item, "LastModifiedTime")
        )
        targets.append(Target(xml.key_text(item), xml.text(item, "VersionId") or None, condition))
    return targets


async def _delete_all(call: Call, targets: list[Target]) -> list[str]:
    rows: list[str] = []
    for start in range(0, len(targets), AT_ONCE_MAX):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_delete(call, target)) for target in targets[start : start + AT_ONCE_MAX]]
        rows.extend(task.result() for task in tasks)
    return rows


async def _delete(call: Call, target: Target) -> str:
    try:
        deleted = await call.objects.delete(call.principal, call.bucket, target.key, target.version, target.condition)
    except EdgeStoreError as error:
        return fault_element(error, target.key, target.version)
    marker = ""
    if deleted.delete_marker:
        marker = f"<DeleteMarker>true</DeleteMarker>{element('DeleteMarkerVersionId', deleted.version_id)}"
    return f"<Deleted>{element('Key', target.key)}{element('VersionId', target.version)}{marker}</Deleted>"

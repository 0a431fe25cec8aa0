"""ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation, and the versioning of a bucket."""

from __future__ import annotations

from edgestore.errors import BucketExists, NotSupported
from edgestore.objects import Body
from edgestore.protocols.http import Response
from edgestore.protocols.s3 import xml
from edgestore.protocols.s3.addressing import require_bucket_name
from edgestore.protocols.s3.bodies import read_document
from edgestore.protocols.s3.call import Call, empty_response, xml_response
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.listing import make_token, parse_token
from edgestore.protocols.s3.owners import owner_fields
from edgestore.protocols.s3.xml import element, iso_time
from edgestore.records import Versioning

BUCKETS_PAGE_MAX = 10_000
DEFAULT_REGION = "us-east-1"


async def list_buckets(call: Call, body: Body) -> Response:
    """ListBuckets: one's own, by name; `prefix`, `max-buckets` and `continuation-token` are kept."""
    prefix, token = call.query.get("prefix", ""), call.query.get("continuation-token")
    limit = call.number("max-buckets", BUCKETS_PAGE_MAX, least=1, most=BUCKETS_PAGE_MAX)
    after, region = parse_token(token) if token else "", call.query.get("bucket-region")
    buckets = [
        bucket
        for bucket in sorted(
            await call.objects.list_buckets(call.principal, local=call.is_local), key=lambda bucket: bucket.name
        )
        if bucket.name.startswith(prefix) and bucket.name > after and region in (None, bucket.region)
    ]
    shown = buckets[:limit]
    rows = [
        f"<Bucket>{element('Name', bucket.name)}<CreationDate>{iso_time(bucket.created_ms)}</CreationDate>"
        f"{element('BucketRegion', bucket.region)}</Bucket>"
        for bucket in shown
    ]
    return xml_response(
        "ListAllMyBucketsResult",
        f"<Owner>{owner_fields(call, call.principal.tenant_id)}</Owner><Buckets>{''.join(rows)}</Buckets>",
        element("Prefix", prefix) if prefix else "",
        element("ContinuationToken", make_token(shown[-1].name)) if len(shown) < len(buckets) else "",
    )


async def create_bucket(call: Call, body: Body) -> Response:
    """CreateBucket, in this site's region only. In us-east-1 one's own bucket may be created again, as in S3."""
    require_bucket_name(call.bucket)
    document = await read_document(call, body)
    _require_here(call, document)
    try:
        await call.objects.create_bucket(call.principal, call.bucket)
    except BucketExists as error:
        if not error.fields.get("owned") or call.services.region != DEFAULT_REGION:
            raise
    return empty_response(200, ("Location", f"/{call.bucket}"))


async def head_bucket(call: Call, body: Body) -> Response:
    """HeadBucket."""
    await call.barrier()
    bucket = call.objects.bucket(call.principal, call.bucket)
    return empty_response(200, ("x-amz-bucket-region", bucket.region), ("x-amz-access-point-alias", "false"))


async def delete_bucket(call: Call, body: Body) -> Response:
    """DeleteBucket: an empty one."""
    await call.objects.delete_bucket(call.principal, call.bucket)
    return empty_response(204)


async def get_location(call: Call, body: Body) -> Response:
    """GetBucketLocation. us-east-1 is shown as an empty constraint, as in S3."""
    await call.barrier()
    region = call.objects.bucket(call.principal, call.bucket).region
    return xml_response("LocationConstraint", "" if region == DEFAULT_REGION else xml.escape(region))


async def get_versioning(call: Call, body: Body) -> Response:
    """GetBucketVersioning."""
    await call.barrier()
    versioning = call.objects.bucket(call.principal, call.bucket).versioning
    status = "" if versioning is Versioning.OFF else f"<Status>{versioning.name.capitalize()}</Status>"
    return xml_response("VersioningConfiguration", status)


async def put_versioning(call: Call, body: Body) -> Response:
    """PutBucketVersioning: Enabled or Suspended."""
    document = await read_document(call, body)
    if not document:
        raise Fault("MissingRequestBodyError")
    root = xml.parse(document, "VersioningConfiguration")
    xml.require_names(root, "Status", "MfaDelete")
    if (xml.text(root, "MfaDelete") or "Disabled") != "Disabled":
        raise NotSupported("MFA delete is not implemented.", Header="MfaDelete")
    status = xml.text(root, "Status")
    if status not in ("Enabled", "Suspended"):
        raise Fault("IllegalVersioningConfigurationException", "The Versioning element must be specified")
    await call.objects.set_versioning(call.principal, call.bucket, Versioning[status.upper()])
    return empty_response(200)


def _require_here(call: Call, document: bytes) -> None:
    if not document:
        return
    root = xml.parse(document, "CreateBucketConfiguration")
    xml.require_names(root, "LocationConstraint", "Location", "Bucket", "Tags")
    if xml.children(root, "Location") or xml.children(root, "Bucket") or xml.children(root, "Tags"):
        raise NotSupported("Directory buckets and tags on creation are not implemented.")
    region = xml.text(root, "LocationConstraint")
    if region and region != call.services.region:
        raise Fault(
            "IllegalLocationConstraintException",
            f"The {region} location constraint is incompatible for the region specific endpoint this request "
            "was sent to.",
        )

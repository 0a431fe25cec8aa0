"""How owners are shown: canonical id and display name; the ACL of everything is FULL_CONTROL for its owner."""

from __future__ import annotations

from edgestore.errors import NotSupported
from edgestore.objects import Body
from edgestore.protocols.http import Response
from edgestore.protocols.s3.call import Call, empty_response, xml_response
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.xml import element


def owner_fields(call: Call, tenant_id: int) -> str:
    """`<ID>` and `<DisplayName>` of a tenant."""
    tenant = call.services.tenants.owner(tenant_id)
    return element("ID", tenant.canonical_id) + element("DisplayName", tenant.name)


class Owners:
    """`<Owner>` of each tenant that a page shows, made once."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._made: dict[int, str] = {}

    def xml(self, tenant_id: int) -> str:
        """The element for one owner."""
        made = self._made.get(tenant_id)
        if made is None:
            made = self._made[tenant_id] = f"<Owner>{owner_fields(self._call, tenant_id)}</Owner>"
        return made


def require_expected_owner(call: Call, bucket: str, header: str) -> None:
    """Raises Fault(AccessDenied) when the header names another owner than the bucket has."""
    expected = call.headers.get(header)
    if expected is None or not bucket:
        return
    tenant = call.services.tenants.owner(call.objects.bucket(call.principal, bucket).owner)
    if expected != tenant.canonical_id:
        raise Fault("AccessDenied", "The bucket has another owner than the request expects.")


async def get_bucket_acl(call: Call, body: Body) -> Response:
    """GetBucketAcl."""
    await call.barrier()
    return _acl(call, call.objects.bucket(call.principal, call.bucket).owner)


async def get_object_acl(call: Call, body: Body) -> Response:
    """GetObjectAcl."""
    record = await call.objects.head(call.principal, call.bucket, call.key, call.version())
    return _acl(call, record.owner)


async def put_bucket_acl(call: Call, body: Body) -> Response:
    """PutBucketAcl: only what is so already (`x-amz-acl: private`)."""
    await call.barrier()
    call.objects.bucket(call.principal, call.bucket)
    return _put_acl(call)


async def put_object_acl(call: Call, body: Body) -> Response:
    """PutObjectAcl: only what is so already (`x-amz-acl: private`)."""
    await call.objects.head(call.principal, call.bucket, call.key, call.version())
    return _put_acl(call)


def _put_acl(call: Call) -> Response:
    # Other canned ACLs and grants were refused with the headers; a document of grants is refused here.
    if "x-amz-acl" not in call.headers:
        raise NotSupported("Access control lists other than private are not implemented.", ResourceType="ACL")
    return empty_response(200)


def _acl(call: Call, owner: int) -> Response:
    fields = owner_fields(call, owner)
    grantee = (
        f'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">{fields}</Grantee>'
    )
    return xml_response(
        "AccessControlPolicy",
        f"<Owner>{fields}</Owner><AccessControlList><Grant>{grantee}<Permission>FULL_CONTROL</Permission></Grant>"
        "</AccessControlList>",
    )

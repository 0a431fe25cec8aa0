"""Commands on buckets, owners, keys and the site itself."""

from __future__ import annotations

from itertools import islice

import msgspec

from edgestore.catalog import commands, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import Table, number, row, successor
from edgestore.catalog.tokens import check_policy
from edgestore.catalog.uploads import end_upload
from edgestore.errors import AccessKeyExists, BadRequest, BucketExists, BucketNotEmpty, NoSuchAccessKey, TooLarge
from edgestore.records import ROOT_TENANT, SITE_TENANT, BucketRecord, KeyRecord, TenantRecord, Versioning

UPLOADS_DROPPED_WITH_BUCKET_MAX = 100
TENANT_MAX = (1 << 32) - 2
"""So that the next one is one too."""


def create_bucket(context: Context, command: commands.CreateBucket) -> BucketRecord:
    """A new bucket; its id is never used again."""
    existing = context.get(Table.BUCKET_NAMES, SITE_TENANT, command.name.encode())
    if existing is not None:
        owned = rows.bucket(existing).owner == command.owner
        raise BucketExists(f"the bucket name {command.name!r} is taken", owned=owned, bucket=command.name)
    if len(context.state.buckets(command.owner)) >= command.buckets_max:
        raise TooLarge("the owner has its maximum of buckets", limit=command.buckets_max)
    record = BucketRecord(
        context.site.next_bucket, command.name, command.owner, command.created_ms, Versioning.OFF, command.region
    )
    context.site = msgspec.structs.replace(context.site, next_bucket=context.site.next_bucket + 1)
    _write_bucket(context, record)
    return record


def _write_bucket(context: Context, record: BucketRecord) -> None:
    context.put(Table.BUCKET_NAMES, SITE_TENANT, record.name.encode(), rows.encode(record))
    context.put(Table.BUCKETS, SITE_TENANT, number(record.bucket_id), record.name.encode())
    context.change_buckets()


def delete_bucket(context: Context, command: commands.DeleteBucket) -> None:
    """Only an empty one: no versions and no delete markers. Uploads that were begun are aborted."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    for table in (Table.HEADS, Table.VERSIONS):
        prefix = row(context.group, table, bucket.owner, number(bucket.bucket_id))
        if next(context.transaction.scan(prefix, successor(prefix)), None) is not None:
            raise BucketNotEmpty("the bucket still holds versions or delete markers", bucket=bucket.name)
    prefix = row(context.group, Table.UPLOADS, bucket.owner, number(bucket.bucket_id))
    found = list(islice(context.transaction.scan(prefix, successor(prefix)), UPLOADS_DROPPED_WITH_BUCKET_MAX + 1))
    if len(found) > UPLOADS_DROPPED_WITH_BUCKET_MAX:
        raise BucketNotEmpty("the bucket holds too many unfinished uploads: abort them first", bucket=bucket.name)
    for _, value in found:
        upload = rows.upload(value)
        end_upload(context, bucket, upload.key, upload.upload_id)
    context.delete(Table.BUCKET_NAMES, SITE_TENANT, bucket.name.encode())
    context.delete(Table.BUCKETS, SITE_TENANT, number(bucket.bucket_id))
    context.delete(Table.USAGE, bucket.owner, number(bucket.bucket_id))
    context.change_buckets()


def set_versioning(context: Context, command: commands.SetVersioning) -> BucketRecord:
    """Enabled or suspended; never off again."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    if command.versioning is Versioning.OFF:
        raise BadRequest("versioning can be suspended, not switched off", bucket=bucket.name)
    changed = msgspec.structs.replace(bucket, versioning=command.versioning)
    _write_bucket(context, changed)
    return changed


def set_bucket_policy(context: Context, command: commands.SetBucketPolicy) -> BucketRecord:
    """For new data at once; what is there is encoded anew in the background."""
    bucket = context.state.bucket_by_id(command.bucket_id)
    check_policy(command.tolerate, command.scheme)
    changed = msgspec.structs.replace(bucket, tolerate=command.tolerate, scheme=command.scheme)
    _write_bucket(context, changed)
    return changed


def put_tenant(context: Context, command: commands.PutTenant) -> TenantRecord:
    """Creates or changes an owner. Two nodes may both find that a name is free: the second gets the first's owner."""
    tenant_id = command.tenant_id
    if tenant_id == 0:
        for owner in context.state.tenants():
            if owner.name == command.name:
                return owner
        tenant_id = context.site.next_tenant
    if tenant_id >= context.site.next_tenant:
        if tenant_id >= TENANT_MAX:
            raise BadRequest("the number of the owner is out of range", limit=TENANT_MAX)
        context.site = msgspec.structs.replace(context.site, next_tenant=tenant_id + 1)
    record = TenantRecord(tenant_id, command.canonical_id, command.name, command.email)
    context.put(Table.TENANTS, SITE_TENANT, number(tenant_id), rows.encode(record))
    context.changed_tables.add(Table.TENANTS)
    return record


def put_key(context: Context, command: commands.PutKey) -> KeyRecord:
    """Creates a key pair; the same again is no error."""
    record = KeyRecord(command.access_key, command.secret_key, command.tenant_id, command.created_ms)
    data = context.get(Table.ACCESS_KEYS, SITE_TENANT, command.access_key.encode())
    if data is not None:
        existing = rows.access_key(data)
        if (existing.secret_key, existing.tenant_id) != (record.secret_key, record.tenant_id):
            raise AccessKeyExists(f"the access key {command.access_key!r} is taken", access_key=command.access_key)
        return existing
    context.put(Table.ACCESS_KEYS, SITE_TENANT, command.access_key.encode(), rows.encode(record))
    context.changed_tables.add(Table.ACCESS_KEYS)
    return record


def delete_key(context: Context, command: commands.DeleteKey) -> None:
    """The owner and its buckets stay; root keeps one pair, or nobody could make another."""
    data = context.get(Table.ACCESS_KEYS, SITE_TENANT, command.access_key.encode())
    if data is None:
        raise NoSuchAccessKey(f"there is no access key {command.access_key!r}", access_key=command.access_key)
    if rows.access_key(data).tenant_id == ROOT_TENANT:
        roots = sum(key.tenant_id == ROOT_TENANT for key in context.state.access_keys())
        if roots <= 1:
            raise BadRequest("the last root key pair cannot be deleted: make another first (key create --name root)")
    context.delete(Table.ACCESS_KEYS, SITE_TENANT, command.access_key.encode())
    context.changed_tables.add(Table.ACCESS_KEYS)


def tick(_: Context, __: commands.Tick) -> None:
    """Log time moved on with the entry's header: proposed when the operator steps it."""


def refuse_unusable(_: Context, __: commands.Unusable) -> None:
    """It changes nothing, and its proposer hears why."""
    raise BadRequest("the operation has a field that is out of range")


def found_site(context: Context, command: commands.FoundSite) -> bytes:
    """The first one counts."""
    if not context.site.site_id:
        context.site = msgspec.structs.replace(
            context.site, site_id=command.site_id, site_incarnation=command.site_incarnation
        )
    return context.site.site_id

"""Buckets, and who may do what: an owner may do everything on its own buckets, root on all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgestore.catalog import (
    ObjectPage,
    UploadPage,
    VersionPage,
    check_policy,
    commands,
    list_objects,
    list_uploads,
    list_versions,
)
from edgestore.clock import Clock
from edgestore.config import ObjectsConfig
from edgestore.errors import Denied, InvalidName
from edgestore.meta import Meta
from edgestore.objects.names import check_bucket_name
from edgestore.records import (
    BucketRecord,
    PartRecord,
    Principal,
    UploadRecord,
    Versioning,
    parse_version_id,
)


def version_place(version: str | None) -> tuple[int, ...] | None:
    """A public version id as the catalog names it; None for none. Raises InvalidName for what cannot be one."""
    if version is None:
        return None
    if version == "null":
        return ()
    place = parse_version_id(version)
    if place is None:
        raise InvalidName("Invalid version id specified", argument="versionId", argument_value=version)
    return place


@dataclass(frozen=True, slots=True)
class BucketPolicy:
    """What a bucket's content outlives. None and empty: as the site's size suggests."""

    tolerate: int | None = None
    scheme: str = ""


class Buckets:
    """Bucket operations and listings."""

    def __init__(self, meta: Meta, config: ObjectsConfig, clock: Clock, region: str) -> None:
        self._meta, self._config, self._clock, self._region = meta, config, clock, region

    async def barrier(self) -> None:
        """Returns when reads see everything acknowledged before; at once where that needs no waiting."""
        if not self._meta.can_read_now():
            await self._meta.read_barrier()

    def can_read_now(self) -> bool:
        """Whether a read needs no waiting."""
        return self._meta.can_read_now()

    def when_readable(self, done: Callable[[BaseException | None], None]) -> None:
        """`barrier` without a task: `done(None)`, or why not; perhaps at once."""
        self._meta.when_readable(done)

    def bucket(self, principal: Principal, name: str) -> BucketRecord:
        """Raises NoSuchBucket, or Denied for another owner's."""
        found = self._meta.state.bucket(name)
        if found.owner != principal.tenant_id and not principal.is_root:
            raise Denied("the bucket belongs to another owner", bucket=name)
        return found

    async def list_buckets(self, principal: Principal, *, local: bool = False) -> list[BucketRecord]:
        """The caller's; root sees all. `local`: as this node knows them, without a word to the leader."""
        if not local:
            await self.barrier()
        return self._meta.state.buckets(None if principal.is_root else principal.tenant_id)

    async def create_bucket(self, principal: Principal, name: str, policy: BucketPolicy | None = None) -> BucketRecord:
        """Nothing is created where the policy cannot be. Raises InvalidName, BucketExists, TooLarge, BadRequest."""
        check_bucket_name(name)
        if policy is not None:
            check_policy(policy.tolerate, policy.scheme)
        command = commands.CreateBucket(
            name, principal.tenant_id, self._clock.wall_ms(), self._region, self._config.buckets_per_owner_max
        )
        found: BucketRecord = await self._meta.propose(principal.tenant_id, command)
        return found if policy is None else await self.set_policy(principal, name, policy)

    async def delete_bucket(self, principal: Principal, name: str) -> None:
        """Raises BucketNotEmpty."""
        await self.barrier()
        bucket = self.bucket(principal, name)
        await self._meta.propose(bucket.owner, commands.DeleteBucket(bucket.bucket_id))

    async def set_versioning(self, principal: Principal, name: str, versioning: Versioning) -> None:
        """Enabled or suspended."""
        await self.barrier()
        bucket = self.bucket(principal, name)
        await self._meta.propose(bucket.owner, commands.SetVersioning(bucket.bucket_id, versioning))

    async def set_policy(self, principal: Principal, name: str, policy: BucketPolicy) -> BucketRecord:
        """How many nodes the bucket's content outlives; what is stored is encoded anew. Raises BadRequest."""
        await self.barrier()
        bucket = self.bucket(principal, name)
        command = commands.SetBucketPolicy(bucket.bucket_id, policy.tolerate, policy.scheme)
        await self._meta.propose(bucket.owner, command)
        return self.bucket(principal, name)

    def list_objects(
        self,
        principal: Principal,
        bucket: str,
        *,
        prefix: str = "",
        start_after: str = "",
        delimiter: str = "",
        limit: int = 1000,
    ) -> ObjectPage:
        """A page of current versions."""
        record = self.bucket(principal, bucket)
        return list_objects(
            self._meta.state, record, prefix=prefix, start_after=start_after, delimiter=delimiter, limit=limit
        )

    def list_versions(
        self,
        principal: Principal,
        bucket: str,
        *,
        prefix: str = "",
        key_marker: str = "",
        version_marker: str = "",
        delimiter: str = "",
        limit: int = 1000,
    ) -> VersionPage:
        """A page of all versions and delete markers."""
        record = self.bucket(principal, bucket)
        return list_versions(
            self._meta.state,
            record,
            prefix=prefix,
            key_marker=key_marker,
            version_marker=version_place(version_marker or None),
            delimiter=delimiter,
            limit=limit,
        )

    def list_uploads(
        self,
        principal: Principal,
        bucket: str,
        *,
        prefix: str = "",
        key_marker: str = "",
        upload_id_marker: str = "",
        delimiter: str = "",
        limit: int = 1000,
    ) -> UploadPage:
        """A page of unfinished uploads."""
        record = self.bucket(principal, bucket)
        return list_uploads(
            self._meta.state,
            record,
            prefix=prefix,
            key_marker=key_marker,
            upload_id_marker=upload_id_marker,
            delimiter=delimiter,
            limit=limit,
        )

    def upload(self, principal: Principal, bucket: str, key: str, upload_id: str) -> UploadRecord:
        """Raises NoSuchUpload."""
        return self._meta.state.upload(self.bucket(principal, bucket), key, upload_id)

    def list_parts(
        self, principal: Principal, bucket: str, key: str, upload_id: str, *, start: int = 0, limit: int = 1000
    ) -> list[PartRecord]:
        """Parts with a number above `start`. Raises NoSuchUpload."""
        record = self.bucket(principal, bucket)
        self._meta.state.upload(record, key, upload_id)
        return self._meta.state.parts(record, upload_id, after=start, limit=limit)

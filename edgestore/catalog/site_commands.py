"""The commands on nodes, layouts, tokens and settings of a site; `commands` carries their names too.

Rule: as in `commands`. What changes who may take new data, or how much, makes a new layout epoch in the same command.
"""

from __future__ import annotations

import msgspec

from edgestore.catalog.bounds import Der, Fragments, Level, Millis, Number, ShortBytes, Tenant, Weight, Word
from edgestore.records import ChunkRef, NodeState, SiteSettings


class NewNode(msgspec.Struct, frozen=True, array_like=True):
    """What a node says of itself when it joins. `weight` 0: its capacity in GiB."""

    member: Word
    address: Word
    s3_address: Word
    zone: Word
    capacity_bytes: Number
    key_digest: ShortBytes
    start_nonce: ShortBytes
    feature_level: Level
    weight: Weight = 0
    witness: bool = False


class FoundNode(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """The lone member of a site becomes its first node, at epoch 1, where everything written before it lies.

    Result: NodeRecord, as it is where the member is a node already. Fails: Conflict where the site has other nodes.
    """

    node: NewNode


class AddNode(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """A member joins with a token; `secret_digest`: sha256 of its secret. Result: NodeRecord.

    The same member with the same token and key again: its NodeRecord, so a lost answer costs nothing.
    Fails: InvalidToken, MemberRemoved, Conflict (the member has another key; too many nodes), NotSupported (its feature
    level is below the site's).
    """

    node: NewNode
    token_id: ShortBytes
    secret_digest: ShortBytes


class UpdateNode(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """A start of a member: where it is now, and what it can. None: as before. Result: NodeRecord.

    Its state stays (the leader brings it UP). Another zone makes a new epoch, to which data moves.
    Fails: NoSuchNode, MemberRemoved, NotSupported (its feature level is below the site's).
    """

    member: Word
    address: Word | None = None
    s3_address: Word | None = None
    capacity_bytes: Number | None = None
    feature_level: Level | None = None
    start_nonce: ShortBytes | None = None
    zone: Word | None = None


class SetNodeState(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """Result: NodeRecord. Fails: NoSuchNode, Conflict (it is not in state `expected`, or can never be `state` again).

    DOWN, QUARANTINED and REMOVED close the node's writers (rule 6). A DRAINING node that was DOWN drains on when it is
    set UP; set UP while it is DRAINING, it drains no more. REMOVED is for ever.
    """

    number: Number
    state: NodeState
    expected: NodeState


class SetNodeWeight(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """Result: NodeRecord. Fails: NoSuchNode, BadRequest, Conflict (it is removed or in quarantine)."""

    number: Number
    weight: Weight


class SetNodeQuality(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """1 to 100. Result: NodeRecord. Fails: NoSuchNode, BadRequest."""

    number: Number
    quality: Weight


class QuarantineMember(msgspec.Struct, frozen=True, array_like=True, tag=28):
    """Its identity was seen twice: it counts no more, whatever state it was in. Result: NodeRecord.

    Fails: NoSuchNode. One that was removed stays so.
    """

    member: Word


class CreateToken(msgspec.Struct, frozen=True, array_like=True, tag=29):
    """A join token for one use within `ttl_ms` of log time. Result: TokenRecord.

    Fails: Conflict (the id is taken), TooLarge (too many tokens wait). Drops those that are too old.
    """

    token_id: ShortBytes
    secret_digest: ShortBytes
    ttl_ms: Millis


class DropToken(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """A token that is gone already is no error."""

    token_id: ShortBytes


class SetAuthority(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """The site's own certificate authority (DER). Applied once; later ones are ignored. Result: the certificate in
    force."""

    certificate: Der
    key: Der


class SetSiteSettings(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """Result: SiteSettings. Fails: BadRequest."""

    settings: SiteSettings


class SetBucketPolicy(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """`tolerate` None: as the site; `scheme` empty: as the number of nodes suggests. Result: BucketRecord.

    Fails: NoSuchBucket, BadRequest.
    """

    bucket_id: Number
    tolerate: Fragments | None
    scheme: Word = ""


class RaiseFeatureLevel(msgspec.Struct, frozen=True, array_like=True, tag=34):
    """Entries may be of this level from now on. Result: the level in force. Fails: Conflict while a node does not know
    it."""

    level: Level


class RetireLayouts(msgspec.Struct, frozen=True, array_like=True, tag=35):
    """Forgets closed epochs before `before_epoch` that no extent was written under (never epoch 1, whose extents are
    not counted). Result: list of the epochs that went."""

    before_epoch: Number


class PlaceExtent(msgspec.Struct, frozen=True, array_like=True, tag=36):
    """Where the fragments of an extent are now. Result: ExtentRecord.

    Fails: NoSuchExtent, StaleExtent (its generation or revision is another), StaleFragments (the epoch is closed).
    """

    tenant: Tenant
    extent_id: ShortBytes
    generation: Number
    revision: Number
    layout_epoch: Number
    exceptions: tuple[tuple[Number, Number, Number], ...] = ()
    missing: tuple[tuple[Number, Number], ...] = ()


class SwapExtent(msgspec.Struct, frozen=True, array_like=True, tag=37):
    """The same bytes in new chunks: the old ones are condemned, the new ones named for the first time (rule 6). The
    extent keeps its id and its references. Result: ExtentRecord.

    Fails: NoSuchExtent, StaleExtent, StaleChunk, StaleFragments (judged as at a first naming, rule 1), BadRequest.
    """

    tenant: Tenant
    extent_id: ShortBytes
    generation: Number
    revision: Number
    chunks: tuple[ChunkRef, ...]
    k: Fragments
    m: Fragments
    tolerate: Fragments
    layout_epoch: Number
    exceptions: tuple[tuple[Number, Number, Number], ...] = ()
    missing: tuple[tuple[Number, Number], ...] = ()

"""The commands on nodes, layouts, tokens and settings of a site; `commands` carries their names too.

Rule: as in `commands`. What changes who may take new data, or how much, makes a new layout epoch in the same command.
"""

from __future__ import annotations

import msgspec

from edgestore.records import ChunkRef, NodeState, SiteSettings


class NewNode(msgspec.Struct, frozen=True, array_like=True):
    """What a node says of itself when it joins. `weight` 0: its capacity in GiB."""

    member: str
    address: str
    s3_address: str
    zone: str
    capacity_bytes: int
    key_digest: bytes
    start_nonce: bytes
    feature_level: int
    weight: int = 0
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
    token_id: bytes
    secret_digest: bytes


class UpdateNode(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """A start of a member: where it is now, and what it can. None: as before. Result: NodeRecord.

    Its state stays (the leader brings it UP). Another zone makes a new epoch, to which data moves.
    Fails: NoSuchNode, MemberRemoved, NotSupported (its feature level is below the site's).
    """

    member: str
    address: str | None = None
    s3_address: str | None = None
    capacity_bytes: int | None = None
    feature_level: int | None = None
    start_nonce: bytes | None = None
    zone: str | None = None


class SetNodeState(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """Result: NodeRecord. Fails: NoSuchNode, Conflict (it is not in state `expected`, or can never be `state` again, or
    the newest layout is not that of `layout_epoch`; 0: whichever it is).

    DOWN, QUARANTINED and REMOVED close the node's writers (rule 6). A DRAINING node that was DOWN drains on when it is
    set UP; set UP while it is DRAINING, it drains no more. REMOVED is for ever.
    """

    number: int
    state: NodeState
    expected: NodeState
    layout_epoch: int = 0


class SetNodeWeight(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """Result: NodeRecord. Fails: NoSuchNode, BadRequest."""

    number: int
    weight: int


class SetNodeQuality(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """1 to 100. Result: NodeRecord. Fails: NoSuchNode, BadRequest."""

    number: int
    quality: int


class QuarantineMember(msgspec.Struct, frozen=True, array_like=True, tag=28):
    """Its identity was seen twice: it counts no more, whatever state it was in. Result: NodeRecord.

    Fails: NoSuchNode. One that was removed stays so.
    """

    member: str


class CreateToken(msgspec.Struct, frozen=True, array_like=True, tag=29):
    """A join token for one use within `ttl_ms` of log time. Result: TokenRecord.

    Fails: Conflict (the id is taken), TooLarge (too many tokens wait). Drops those that are too old.
    """

    token_id: bytes
    secret_digest: bytes
    ttl_ms: int


class DropToken(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """A token that is gone already is no error."""

    token_id: bytes


class SetAuthority(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """The site's own certificate authority (DER). Applied once; later ones are ignored. Result: the certificate in
    force."""

    certificate: bytes
    key: bytes


class SetSiteSettings(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """Result: SiteSettings. Fails: BadRequest."""

    settings: SiteSettings


class SetBucketPolicy(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """`tolerate` None: as the site; `scheme` empty: as the number of nodes suggests. Result: BucketRecord.

    Fails: NoSuchBucket, BadRequest.
    """

    bucket_id: int
    tolerate: int | None
    scheme: str = ""


class RaiseFeatureLevel(msgspec.Struct, frozen=True, array_like=True, tag=34):
    """Entries may be of this level from now on. Result: the level in force. Fails: Conflict while a node does not know
    it."""

    level: int


class RetireLayouts(msgspec.Struct, frozen=True, array_like=True, tag=35):
    """Forgets closed epochs before `before_epoch` that no extent was written under (never epoch 1, whose extents are
    not counted). Result: list of the epochs that went."""

    before_epoch: int


class PlaceExtent(msgspec.Struct, frozen=True, array_like=True, tag=36):
    """Where the fragments of an extent are now. Result: ExtentRecord.

    Fails: NoSuchExtent, StaleExtent (its generation or revision is another), StaleFragments (the epoch is closed).
    """

    tenant: int
    extent_id: bytes
    generation: int
    revision: int
    layout_epoch: int
    exceptions: tuple[tuple[int, int, int], ...] = ()
    missing: tuple[tuple[int, int], ...] = ()


class SwapExtent(msgspec.Struct, frozen=True, array_like=True, tag=37):
    """The same bytes in new chunks: the old ones are condemned, the new ones named for the first time (rule 6). The
    extent keeps its id and its references. Result: ExtentRecord.

    Fails: NoSuchExtent, StaleExtent, StaleChunk, StaleFragments (judged as at a first naming, rule 1), BadRequest.
    """

    tenant: int
    extent_id: bytes
    generation: int
    revision: int
    chunks: tuple[ChunkRef, ...]
    k: int
    m: int
    tolerate: int
    layout_epoch: int
    exceptions: tuple[tuple[int, int, int], ...] = ()
    missing: tuple[tuple[int, int], ...] = ()

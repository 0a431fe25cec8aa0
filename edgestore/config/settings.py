"""Every setting and limit, one frozen dataclass per room; those between nodes are in `site_settings.py`.

Rule: units are in the names, and every queue, buffer, fan-out and wait is bounded by a name in one of the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgestore.config.site_settings import ClusterConfig, ConsensusConfig, NetConfig, RepairConfig


@dataclass(frozen=True, slots=True)
class DiskConfig:
    """`[disk]`: journal, segments, index, and the space kept free for them."""

    reserve_bytes: int = 256 * 1024 * 1024
    """Kept for journal, flushes and deletes: writes of content are refused (507) below it; on a
    site, where that is so on a majority of the voters."""
    journal_file_bytes: int = 64 * 1024 * 1024
    """Allocated whole, one file ahead of need."""
    journal_idle_mark_ms: int = 1000
    """After this long without a batch an empty one records the synced offset (rule 5)."""
    journal_pending_max_bytes: int = 64 * 1024 * 1024
    segment_bytes: int = 256 * 1024 * 1024
    segment_dead_ratio: float = 0.5
    """A sealed segment is compacted when this share of it is dead."""
    compaction_bytes_per_s: int = 32 * 1024 * 1024
    scrub_bytes_per_s: int = 8 * 1024 * 1024
    scrub_interval_ms: int = 7 * 24 * 3_600_000
    """How often every fragment is read and checked."""
    index_write_buffer_bytes: int = 8 * 1024 * 1024
    index_cache_bytes: int = 16 * 1024 * 1024
    open_files_max: int = 256
    """Segments that are kept open; RocksDB opens up to 256 files beside them."""
    reader_threads: int = 4


@dataclass(frozen=True, slots=True)
class MetaConfig:
    """`[meta]`: proposing to the catalog."""

    proposals_max: int = 4096
    """Operations waiting for their commit; beyond it `TooBusy`."""
    propose_timeout_s: float = 30.0
    flush_operations_max: int = 50_000
    """The catalog is flushed after this many operations: a start replays at most about as many."""
    flush_journal_bytes_max: int = 128 * 1024 * 1024
    """... or when this much of the journal lies behind the current file."""
    catalog_write_buffer_bytes: int = 16 * 1024 * 1024
    catalog_cache_bytes: int = 24 * 1024 * 1024
    row_cache_bytes: int = 32 * 1024 * 1024
    """Current versions and inline bodies that were read lately, decoded."""
    resend_check_ms: int = 20
    """How often a node looks whether what it sent to the leader must go again: another leads, or it was refused."""
    resend_after_ms: int = 1000
    """... or no outcome came for so long."""
    forwarded_max: int = 8192
    """Operations of other nodes that wait here for their commit; beyond it `TooBusy`."""
    snapshots_max: int = 2
    """Snapshots of one group that are sent at a time."""
    snapshot_piece_bytes: int = 1024 * 1024
    snapshot_open_timeout_s: float = 60.0
    """A checkpoint begins with a flush."""
    snapshot_piece_timeout_s: float = 10.0
    snapshot_min_bytes_per_s: int = 128 * 1024
    """A receiver that is slower on the whole loses the snapshot: the log grows for as long as it is held for one."""
    snapshot_idle_s: float = 30.0
    """A snapshot that nobody asked a piece of for so long is deleted, and the log behind it is not kept for it."""


@dataclass(frozen=True, slots=True)
class ChunksConfig:
    """`[chunks]`: cutting, compressing, buffering and reclaiming bodies."""

    pool_bytes: int = 64 * 1024 * 1024
    """The units that bodies of clients arrive in and are read ahead in."""
    pool_read_reserve_bytes: int = 16 * 1024 * 1024
    compression_level: int = 1
    compression_saving_min: float = 0.10
    worker_threads: int = 2
    read_ahead_units: int = 4
    read_ahead_chunks: int = 3
    """Of one reader, where chunks lie on several nodes and the reserve has room."""
    buffers_kept_bytes: int = 16 * 1024 * 1024
    """Memory used again: of long fragments read from the page cache, of reads that decode, of repair; as much each."""
    slab_bytes: int = 96 * 1024 * 1024
    """Chunks that are being striped and sent to other nodes; more uploads wait."""
    intake_bytes: int = 32 * 1024 * 1024
    """Fragments of other nodes on their way to this disk; more of them wait, uploads of clients never for them."""
    decode_bytes: int = 16 * 1024 * 1024
    """Fragments that are being turned into missing ones, for reads and for repair."""
    chunks_in_flight: int = 2
    """Chunks of one upload that are on their way to other nodes."""
    copies_max_bytes: int = 128 * 1024
    """Bodies up to this size are kept as whole copies."""
    confirm_ms: int = 250
    """A node that has not confirmed a fragment so long after it was sent is passed over ..."""
    confirm_bytes_per_s: int = 32 * 1024 * 1024
    """... beside the time that the fragment takes on a line of this speed."""
    avoid_ms: int = 2000
    """A node that was passed over is given no new fragments for so long where others can take them."""
    fragment_timeout_s: float = 10.0
    """How long one request to another node's fragments may take."""
    write_timeout_s: float = 20.0
    """How long a chunk looks for enough nodes before its upload fails."""
    linger_ms: int = 1000
    """While others wait for a slab, an upload that brings nothing for so long gives its own away: its chunk ends."""
    hedge_min_ms: int = 5
    hedge_max_ms: int = 500
    """A read that waits longer than 19 of 20 lately (within these bounds) is raced by a second way to the bytes."""
    hedge_share: float = 0.1
    """At most this share of all reads is raced for being late; failed ones always are."""
    drops_max: int = 256
    """Fragments that are being dropped on other nodes; what is not dropped is found by the sweep."""
    pin_ttl_ms: int = 300_000
    """A read without progress for longer than this breaks off rather than send what it cannot vouch for (rule 6)."""
    reclaim_batch_chunks: int = 256
    reclaim_interval_ms: int = 1000
    sweep_interval_ms: int = 3_600_000
    """How often the disk is searched for chunks that nothing names and nothing may name any more."""


@dataclass(frozen=True, slots=True)
class ObjectsConfig:
    """`[objects]`: limits of S3 itself and of the service."""

    object_max_bytes: int = 5 * 1024**4
    put_max_bytes: int = 5 * 1024**3
    part_min_bytes: int = 5 * 1024**2
    parts_max: int = 10_000
    buckets_per_owner_max: int = 1000
    commit_timeout_s: float = 30.0
    """How long a caller waits for the commit of what it has stored; the outcome is followed up in any case."""
    mends_max: int = 4
    """How often a commit that came too late for its fragments is mended and proposed again."""


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """`[http]`: the front."""

    listen: str = "127.0.0.1:9000"
    """Where S3 listens, HOST:PORT; `serve --s3` wins."""
    certificate: str = ""
    """A TLS certificate, a PEM file; `serve --s3-cert` wins. Empty: plain HTTP."""
    key: str = ""
    """Its private key, a PEM file; `serve --s3-key` wins. Empty: it is in the file of the certificate."""
    head_max_bytes: int = 32 * 1024
    fast_body_max_bytes: int = 128 * 1024
    fast_bodies_max_bytes: int = 16 * 1024 * 1024
    """Small bodies on their way in, of all connections together; more of them are received into units of the pool."""
    connections_max: int = 4096
    head_timeout_s: float = 10.0
    body_idle_timeout_s: float = 60.0
    body_min_bytes_per_s: int = 4096
    """What a body on its way in must bring over each idle timeout, and over each 10 s while units are short."""
    answer_timeout_s: float = 35.0
    """An answer of the fast lane that has not come by then is given up; a little more than objects.commit_timeout_s."""
    keepalive_timeout_s: float = 75.0
    drain_timeout_s: float = 8.0
    write_buffer_max_bytes: int = 256 * 1024
    xml_max_bytes: int = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class S3Config:
    """`[s3]`: what the S3 face answers to."""

    region: str = "us-east-1"
    domain: str = ""
    """Empty: path style only. `example.org` also takes `BUCKET.example.org`."""
    clock_skew_max_s: int = 900
    presign_expiry_max_s: int = 604_800


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. Rooms receive their section only."""

    disk: DiskConfig = field(default_factory=DiskConfig)
    net: NetConfig = field(default_factory=NetConfig)
    consensus: ConsensusConfig = field(default_factory=ConsensusConfig)
    meta: MetaConfig = field(default_factory=MetaConfig)
    chunks: ChunksConfig = field(default_factory=ChunksConfig)
    objects: ObjectsConfig = field(default_factory=ObjectsConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    s3: S3Config = field(default_factory=S3Config)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    repair: RepairConfig = field(default_factory=RepairConfig)

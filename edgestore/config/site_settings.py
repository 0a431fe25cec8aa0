"""Settings of what the nodes of a site do with one another: connections, agreement, membership, repair.

Rule: as in `settings.py`; defaults fit one LAN.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NetConfig:
    """`[net]`: connections between the nodes of a site."""

    advertise: str = ""
    """HOST:PORT at which other nodes reach this one, where it is not the one it listens at: behind NAT or a proxy. It
    is remembered, as what `--mesh` says is."""
    frame_max_bytes: int = 8 * 1024 * 1024
    send_buffer_high_bytes: int = 1024 * 1024
    """A call waits while so much has not left its connection yet."""
    send_buffer_max_bytes: int = 32 * 1024 * 1024
    """Messages are dropped, and calls refused, beyond it."""
    buffers_kept_bytes: int = 16 * 1024 * 1024
    """Memory of frames over 128 KiB that is used again, for all connections together."""
    calls_max: int = 1024
    """Requests of one connection that wait for their answers."""
    served_max: int = 256
    """Requests of one connection that are being answered."""
    served_bytes_max: int = 64 * 1024 * 1024
    """... and their bytes."""
    connections_max: int = 256
    """From other nodes, to this one."""
    strangers_max: int = 16
    """... of those that have shown no certificate, or one that ran out."""
    stranger_life_s: float = 30.0
    stranger_frame_max_bytes: int = 64 * 1024
    handshakes_max: int = 64
    """Under way; more callers wait in the backlog."""
    frame_timeout_s: float = 60.0
    """A frame that takes longer to come in ends its connection."""
    bulk_connections: int = 2
    """To each node, for fragments."""
    handshake_timeout_s: float = 5.0
    dial_timeout_s: float = 3.0
    dial_backoff_min_ms: int = 50
    dial_backoff_max_ms: int = 1000
    ping_interval_ms: int = 2000
    silence_max_s: float = 10.0
    """A connection over which nothing came for so long is made anew."""
    retransmit_min_ms: int = 50
    """TCP sends a lost packet again no sooner; on a quick line not much later either (Linux from 6.15 on)."""
    retransmit_max_ms: int = 1000
    """... and waits no longer than this between two tries."""


@dataclass(frozen=True, slots=True)
class ConsensusConfig:
    """`[consensus]`: how operations are gathered into log entries, and how members of a group agree on them."""

    entry_operations_max: int = 512
    entry_bytes_max: int = 1024 * 1024
    entries_in_flight_max: int = 2
    heartbeat_ms: int = 100
    election_min_ms: int = 300
    """A voter that has heard a leader votes for no other this long; the leader's lease is a little shorter."""
    election_max_ms: int = 600
    """A voter that hears no leader stands after a random time between the two; a leader that hears no majority this
    long steps down."""
    append_bytes_max: int = 1024 * 1024
    """Entries in one message to a follower, or in one answer to a learner."""
    append_in_flight_bytes_max: int = 4 * 1024 * 1024
    """Entries on their way to one follower."""
    commit_told_ms: int = 2
    """Followers hear so long after a commit of it, where nothing else leaves to them and nobody waits for it there."""
    log_kept_bytes: int = 8 * 1024 * 1024
    """Applied entries that stay in memory and in the journal for members that are a little behind."""
    log_behind_max_bytes: int = 64 * 1024 * 1024
    """Entries kept for a voter that is behind or a snapshot that is received: beyond it the voter needs a snapshot, and
    proposals wait for the snapshot."""
    fetch_wait_ms: int = 1000
    """How long a learner's request waits for the next committed entry."""
    fetches_max: int = 64
    """Requests of learners that wait at one member, and learners whose place in the log it knows."""
    catch_up_entries: int = 64
    """Members change only when a majority of the next is at most so far behind."""
    reads_waiting_max: int = 16_384
    """Reads of one group that wait for the leader's word; beyond it TooBusy."""
    read_timeout_ms: int = 5000


@dataclass(frozen=True, slots=True)
class RepairConfig:
    """`[repair]`: making chunks whole again, and moving them to where they belong."""

    interval_ms: int = 1000
    """How often a node looks for work."""
    lazy_wait_s: int = 600
    """What lies on a node that is down is made anew elsewhere when it has been away for so long ..."""
    critical_wait_s: int = 120
    """... or for so long, where only as many fragments are left as reading needs."""
    reencode_wait_s: int = 86_400
    """A node that has been down for longer does not count any more when schemes are chosen for what is there; where
    only as many fragments are left as reading needs and no node can take more, after `lazy_wait_s`."""
    bytes_per_s: int = 64 * 1024 * 1024
    """What each node reads at most for repair. 0: no limit."""
    beside_clients_bytes_per_s: int = 8 * 1024 * 1024
    """... while clients are served, by whichever node. 0: as much as else."""
    clients_from_per_s: int = 10
    """So many operations of clients a second on one node, or a body on its way in or out, and clients are served."""
    piece_bytes: int = 256 * 1024
    """A fragment is read by pieces of this size meanwhile, each in its turn; rounded down to whole pages of 64 KiB."""
    memory_bytes: int = 32 * 1024 * 1024
    """Fragments that this node is making anew, and chunks that it encodes anew; clients never wait for it."""
    extents_in_flight: int = 8
    """Extents that this node mends at a time."""
    fragments_in_flight: int = 8
    """Fragments that it has asked owners to fetch."""
    served_max: int = 8
    """Fragments that this node fetches at a time because it was asked to; of those beyond, a few wait in line."""
    fetch_timeout_s: float = 120.0
    """How long an owner may take to fetch one fragment, with the limits above."""
    yields_max: int = 50
    """How often, 10 ms each, a fragment waits for clients that wait for memory."""
    queue_max: int = 8192
    """Extents in line on this node; a later survey finds the others."""
    page_extents: int = 32
    """Rows of the catalog that are looked at in one turn of the loop."""
    survey_interval_s: int = 60
    """All extents are looked at at least this often, but not for more than a fiftieth of the time."""
    retry_max_s: int = 60
    """An extent that could not be mended is tried again after a second, then twice as long, up to this."""
    tidy_interval_s: int = 3600
    """How often a node compares what it holds with what it should hold."""
    tidy_wait_s: int = 60
    """A fragment that belongs elsewhere by now stays for at least so long."""
    departing_max: int = 65_536
    """Fragments that wait to go."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """`[cluster]`: finding dead nodes, judging slow ones, and what the leader does about them. Defaults fit a LAN."""

    members_max: int = 64
    probe_interval_ms: int = 400
    probe_timeout_ms: int = 125
    """An answer that is not there by then is asked for again, also through others."""
    probe_tries: int = 4
    """Unanswered tries until the probed node is suspected."""
    confirm_tries: int = 2
    indirect_probes: int = 3
    """How many others are asked to probe a node that does not answer."""
    accusers_min: int = 2
    """Nodes that must have failed to reach a node before it counts as failed, where there are as many."""
    suspicion_min_ms: int = 500
    """What a suspect has to speak up when `accusers_full` accuse it; up to 3.25 times it where under three can."""
    suspicion_max_ms: int = 4000
    suspicion_retry_ms: int = 60
    accusers_full: int = 4
    health_max: int = 7
    """A node that does badly itself gives others up to 1 + this times as long."""
    stall_ms: int = 500
    """A node that finds itself this late was stalled: it begins all its judgements anew."""
    words_per_message_max: int = 16
    word_relays: int = 12
    broadcast_max: int = 32
    """Nodes that are told of an accusation or a refutation at once; the rest hear it with the probes."""
    relayed_probes_max: int = 256
    status_interval_ms: int = 1000
    status_bytes_max: int = 8192
    statuses_per_message_max: int = 3
    status_relays: int = 2
    observation_half_life_ms: int = 10_000
    """After this time an observation of another node counts half."""
    quality_interval_ms: int = 2000
    quality_answers_min: float = 8.0
    quality_floor: int = 5
    """What the worst node keeps, in percent. At 10 and less it takes new data only where no other node can."""
    quality_slow_ratio: float = 3.0
    """A node this many times slower than the others loses quality, and all of it above the floor at twice that."""
    quality_slow_floor_us: int = 500
    """The others count as at least this slow in that comparison."""
    quality_failed_share: float = 0.05
    """A larger share of failed answers than the others' by this costs quality, and all of it at twice that."""
    quality_damaged_share: float = 0.002
    quality_flaps_max: int = 3
    """Times that a node went down within `quality_flap_window_ms` until it is at the floor."""
    quality_flap_window_ms: int = 900_000
    quality_fall_ms: int = 6000
    """A node must do badly for this long before it loses anything."""
    quality_proof_ms: int = 60_000
    quality_rise_per_minute: int = 20
    """What a node gets back once it did well for `quality_proof_ms`."""
    quality_step: int = 10
    """Smaller changes make no new epoch, except those that end at the floor or at 100."""
    control_interval_ms: int = 100
    """How often the leader looks while something happens."""
    control_rest_ms: int = 1000
    """... and where nothing has happened for three times as long."""
    control_settle_ms: int = 1000
    """A new leader, and one that was stalled, waits this long before it declares anybody down."""
    up_after_ms: int = 1000
    """A node that is down must be reachable for this long before it is up again."""
    voter_stable_ms: int = 10_000
    """A node must be reachable for this long before it votes."""
    voter_down_ms: int = 300_000
    """A voter that is down for this long is replaced, where there is somebody."""
    voter_change_pause_ms: int = 2000
    """Least time between two changes of the voters."""
    clock_agreement_ms: int = 2000
    """Clocks of voters that differ by no more agree with each other."""
    log_time_step_min_ms: int = 5000
    """Log time is stepped forward when it is this far behind the clocks of a majority of the voters."""
    layouts_kept: int = 8
    """Newest epochs that are never retired."""
    remove_pause_s: int = 3600
    """Least time between two removals of nodes that stayed away (the site's `remove_after_ms`)."""
    token_ttl_max_ms: int = 7 * 24 * 3_600_000
    joins_max: int = 4
    """Requests to join that a member serves at once: whoever sends one may be a stranger."""
    join_timeout_s: float = 30.0
    """How long a joiner asks the members that it was told of."""
    ask_timeout_s: float = 10.0
    certificate_life_ms: int = 90 * 24 * 3_600_000
    """By log time; renewed when two thirds of it are over."""
    renew_check_ms: int = 60_000
    identity_check_ms: int = 500
    """How long a node waits before it takes its row back from another start under its identity."""
    doubt_ms: int = 1000
    """How often a node that knows no leader, or lost a connection, asks whether it still is a member."""
    writer_check_ms: int = 1000
    """How soon a node that was down notices that it needs another writer."""

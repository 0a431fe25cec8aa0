"""What a node of several has beside a lone one: credentials, peers, the cluster; and how a site is founded.

Rule: credentials -> peers -> consensus and catalog -> cluster, none of which waits for a quorum (`begin`, `meet`); what
needs one comes later (`arrive`). A founder has its catalog first, for its authority lies in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from edgestore.catalog import commands
from edgestore.clock import Entropy
from edgestore.cluster import (
    Admission,
    Certifier,
    Detector,
    Facts,
    JoinServer,
    Leader,
    Presence,
    Renewal,
    Site,
)
from edgestore.config import host_and_port
from edgestore.core import membership
from edgestore.core.membership import Papers, SiteFile
from edgestore.core.site_view import MetaSites
from edgestore.core.upkeep import Upkeep
from edgestore.errors import EdgeStoreError
from edgestore.net import Credentials, Network, Peers
from edgestore.records import SHUT_OUT, SITE_TENANT, Member, NodeState
from edgestore.security import (
    authority_digest,
    load_key,
    make_request,
    new_authority,
    new_key,
    read_request,
)

if TYPE_CHECKING:
    from edgestore.core.opening import Core

log = logging.getLogger("edgestore.node")

NONCE_BYTES = 8


class Mesh:
    """The mesh side of one core. `settings`: site.json as it is, or as it will be once the site is founded."""

    def __init__(self, core: Core, settings: SiteFile, network: Network, entropy: Entropy) -> None:
        self._core, self._settings, self._entropy = core, settings, entropy
        self._network = network
        self._nonce = entropy(NONCE_BYTES)
        self._admission = Admission()
        self.peers: Peers
        self.site: Site | None = None
        self._detector: Detector | None = None
        self._operations = 0.0

    @property
    def address(self) -> str:
        """Where others reach this node."""
        return self._settings.address

    @property
    def s3_listen(self) -> str:
        """Where S3 listens."""
        return self._settings.s3

    @property
    def founds(self) -> bool:
        """Whether the folder is to become the first of a site."""
        return not self._settings.site_id

    @property
    def founders(self) -> tuple[Member, ...]:
        """Who votes, as this node was told when it joined; nobody named: it founds the group itself."""
        peers = self._settings.peers
        return tuple(Member(member, True, peers.get(member, "")) for member in self._settings.voters)

    @property
    def _member(self) -> str:
        return self._core.identity.member_id.hex()

    async def begin(self) -> None:
        """Before the catalog: whoever has papers answers and dials at once."""
        core = self._core
        papers = membership.read_papers(core.files)
        self.credentials = Credentials(self._admission.rights_of)
        self.credentials.start = self._nonce
        self.peers = Peers(
            self._network,
            core.config.net,
            self.credentials,
            member=self._member,
            clock=core.clock,
            entropy=self._entropy,
            metrics=core.metrics,
        )
        if papers is not None and not self.founds:
            await self._start(papers)

    async def _start(self, papers: Papers) -> None:
        self.credentials.load(papers.key, papers.certificate, papers.authority)
        host, port = host_and_port(self._settings.listen)
        await self.peers.start(host, port)
        for member, address in self._settings.peers.items():
            self.peers.know(member, address)

    def is_reached(self, member: str) -> bool:
        """Whether it is this node, or one that answers it."""
        return member == self._member or self.peers.is_connected(member)

    async def meet(self) -> None:
        """The catalog is open: what it says of the others counts from now on."""
        core, config = self._core, self._core.config.cluster
        self._admission.begin(core.meta, self._member)
        if self.founds:
            await core.meta.ready()
            await self._found()
        self._certifier = Certifier(core.meta, config)
        self._certifier.serve(self.peers)
        JoinServer(core.meta, self._certifier, config).serve(self.peers)
        self._presence = Presence(
            core.meta, self.peers, config, self._member, self._nonce, self._announcement, core.stop
        )
        self._presence.begin()
        self._detector = Detector(
            self.peers,
            config,
            start_nonce=self._nonce,
            facts=self._facts,
            clock=core.clock,
            entropy=self._entropy,
            metrics=core.metrics,
        )
        self._detector.start(node.member for node in core.meta.state.nodes() if node.state not in SHUT_OUT)
        detector = self._detector
        sites = MetaSites(core.meta, self._member, detector.is_suspected, detector.saw, detector.has_room)
        store = core.chunks.join_site(sites, self.peers)
        self._upkeep = Upkeep(core, store, self.peers, self._detector)
        digest = authority_digest(self.credentials.authority)
        upkeep = self._upkeep
        self.site = Site(
            core.meta, config, self._entropy, digest, self._detector, lambda: upkeep.progress, upkeep.loss_without
        )

    def lookouts(self) -> list[Coroutine[Any, Any, None]]:
        """What runs from the first moment: a node that was shut out never arrives, nor does one whose certificate ran
        out while it was away, before it has another."""
        core = self._core
        renewal = Renewal(
            core.meta,
            self.peers,
            self._certifier,
            self.credentials,
            core.config.cluster,
            lambda certificate: membership.write_certificate(core.files, certificate),
        )
        return [self._presence.acquaint(), self._presence.doubt(), renewal.run()]

    async def arrive(self) -> None:
        """With a quorum: the node says that it is here."""
        await self._presence.announce()

    def housekeeping(self) -> list[Coroutine[Any, Any, None]]:
        """What runs for as long as the node does."""
        core = self._core
        assert self._detector is not None
        leader = Leader(core.meta, self._detector, core.config.cluster, core.metrics, lambda: self._upkeep.margin)
        keeping = [self._presence.run(), leader.run(), self._keep_writer()]
        return [*keeping, *self._upkeep.housekeeping()]

    async def _keep_writer(self) -> None:
        """A node that was down has no open writer any more (rule 6): it opens another once it is there again. One
        that drains takes uploads, too."""
        core = self._core
        while True:
            await asyncio.sleep(core.config.cluster.writer_check_ms / 1000)
            row = core.meta.state.node_of(self._member)
            if row is None or row.state not in (NodeState.UP, NodeState.DRAINING):
                continue
            if core.meta.state.writer(core.writer.writer) is not None:
                continue
            try:
                await core.renew_writer()
                log.info("writer-renewed number=%d", row.number)
            except (EdgeStoreError, TimeoutError) as error:
                log.warning("writer-not-renewed error=%s", error)

    def _facts(self) -> Facts:
        """What this node says of itself to the others."""
        core = self._core
        applied = core.meta.applied_index
        return Facts(
            applied_index=applied,
            pin_floor_index=core.pins.lowest(applied + 1) - 1,
            reclaimed_index=core.reclaimer.reclaimed_index,
            disk_free_bytes=core.free_bytes,
            damaged_fragments=len(core.segments.damaged),
            feature_level=commands.FEATURE_LEVEL,
            serves_clients=self._serves_clients() or core.pins.lowest(applied + 1) <= applied,
            is_full=core.is_full,
        )

    def time_ms(self) -> int | None:
        """What the clocks of a majority of the voters show, where they agree."""
        return None if self._detector is None else self._detector.time_ms(self._core.meta.status().voters)

    def _serves_clients(self) -> bool:
        """Since this was last asked."""
        core, seen = self._core, self._operations
        self._operations = sum(core.metrics.value(f"objects_{name}_total") for name in ("puts", "gets"))
        enough = core.config.repair.clients_from_per_s * core.config.cluster.status_interval_ms / 1000
        return self._operations - seen >= enough or core.chunks.pool.taken_bytes > 0

    def _capacity_bytes(self) -> int:
        return self._settings.capacity_bytes or self._core.files.free_bytes()

    def _announcement(self, start_nonce: bytes) -> commands.UpdateNode:
        return commands.UpdateNode(
            self._member,
            self._settings.address,
            self._settings.s3,
            self._capacity_bytes(),
            commands.FEATURE_LEVEL,
            start_nonce,
            self._settings.zone,
        )

    async def _found(self) -> None:
        """Makes the site's authority and this node its first member. Whatever was done before a crash is kept."""
        core = self._core
        site_id = core.meta.state.site().site_id
        now_ms = core.meta.log_time_ms()
        if core.meta.state.authority() is None:
            authority = new_authority(self._entropy, site_id, now_ms)
            command = commands.SetAuthority(authority.certificate_der, authority.private_bytes)
            await core.meta.propose(SITE_TENANT, command)
        certifier = Certifier(core.meta, core.config.cluster)
        key = membership.read_key(core.files)
        if key is None:
            key = new_key(self._entropy)
            membership.write_key(core.files, key)
        facts = read_request(make_request(load_key(key), self._member))
        certificate = certifier.issue(facts)
        membership.write_certificate(core.files, certificate)
        membership.write_authority(core.files, certifier.authority_der())
        settings = self._settings
        await core.meta.propose(
            SITE_TENANT,
            commands.FoundNode(
                commands.NewNode(
                    self._member,
                    settings.address,
                    settings.s3,
                    settings.zone,
                    self._capacity_bytes(),
                    facts.key_digest,
                    self._nonce,
                    commands.FEATURE_LEVEL,
                )
            ),
        )
        self._settings = msgspec.structs.replace(settings, site_id=site_id.hex(), member=self._member)
        membership.write_site(core.files, self._settings)
        await self._start(Papers(key, certificate, certifier.authority_der()))

    async def close(self) -> None:
        """Leaves the others alone."""
        if self._detector is not None:
            self._detector.close()
        await self.peers.close()

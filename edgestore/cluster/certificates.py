"""Certificates of members: issued to who proves its key, renewed in time, judged by log time (rule 14).

Rule: a certificate says who somebody is; whether it may still take part stands in the catalog, so removal is at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from edgestore.config import ClusterConfig
from edgestore.errors import BadRequest, Corrupt, Denied, EdgeStoreError, Unavailable
from edgestore.meta import Meta
from edgestore.net import Caller, Credentials, Method, Peers, Reply, Rights
from edgestore.records import SHUT_OUT, NodeRecord
from edgestore.security import (
    Authority,
    CertificateFacts,
    RequestFacts,
    issue,
    make_request,
    read_certificate,
    read_request,
)

log = logging.getLogger("edgestore.cluster")

BARRIER_S = 1.0


def is_shut_out(node: NodeRecord, meta: Meta) -> bool:
    """Removed or in quarantine; but a voter is heard until the next incarnation begins without it (rule 4), for else
    the change that drops it might never be agreed on."""
    return node.state in SHUT_OUT and node.member not in meta.status().voters


class RenewRequest(msgspec.Struct, frozen=True, array_like=True):
    """`request`: the proof of possession of the member's key."""

    request: bytes


class RenewAnswer(msgspec.Struct, frozen=True, array_like=True):
    """A new certificate for the same member and key."""

    certificate: bytes


class Certifier:
    """Issues certificates with the authority that the catalog holds: every member can."""

    def __init__(self, meta: Meta, config: ClusterConfig) -> None:
        self._meta, self._config = meta, config

    def _authority(self) -> Authority:
        row = self._meta.state.authority()
        if row is None:
            raise Unavailable("the site has no authority yet: try again later")
        return Authority(row.certificate, row.key)

    def authority_der(self) -> bytes:
        """The certificate of the authority."""
        return self._authority().certificate_der

    def issue(self, facts: RequestFacts) -> bytes:
        """For a member that the catalog knows, from now on by log time."""
        return issue(
            self._authority(),
            facts.member,
            self._meta.state.site().site_id,
            facts.public_key,
            self._meta.log_time_ms(),
            self._config.certificate_life_ms,
        )

    def serve(self, peers: Peers) -> None:
        """Renews for members, also for those whose certificate ran out while they were away."""
        peers.serve(Method.RENEW, self._renew, rights=Rights.EXPIRED)

    async def _renew(self, caller: Caller, head: bytes, payload: memoryview) -> Reply:
        try:
            asked = msgspec.msgpack.decode(head, type=RenewRequest)
        except msgspec.MsgspecError as error:
            raise BadRequest(f"the request to renew does not decode: {error}") from error
        facts = read_request(asked.request)
        with suppress(Unavailable, TimeoutError):  # where nobody's certificate is good any more there is no quorum
            async with asyncio.timeout(BARRIER_S):
                await self._meta.read_barrier()
        node = self._meta.state.node_of(facts.member)
        if node is None or node.state in SHUT_OUT or node.key_digest != facts.key_digest:
            raise Denied("this key belongs to no member of the site")
        if caller.member != facts.member:
            raise Denied("a member renews its own certificate only")
        log.info("certificate-renewed number=%d", node.number)
        return Reply(msgspec.msgpack.encode(RenewAnswer(self.issue(facts))))


class Admission:
    """What a presented certificate allows. The signature was checked by TLS."""

    def __init__(self) -> None:
        self._meta: Meta | None = None
        self._member = ""

    def begin(self, meta: Meta, member: str) -> None:
        """The catalog of this node, `member`, is there. Before, a certificate of the site is all there is to go by: the
        first to call may be the one that has the catalog."""
        self._meta, self._member = meta, member

    def rights_of(self, facts: CertificateFacts) -> Rights:
        """Whom the catalog names, by the key that it names: who steals a node has the authority's key, and may make
        certificates for members that never were. A node that does not find itself there knows nobody yet."""
        if self._meta is None:
            return Rights.MEMBER
        state = self._meta.state
        node = state.node_of(facts.member)
        if node is None:
            return Rights.NONE if state.node_of(self._member) is not None else Rights.MEMBER
        if is_shut_out(node, self._meta) or node.key_digest != facts.key_digest:
            return Rights.NONE
        return Rights.MEMBER if self._meta.log_time_ms() < facts.not_after_ms else Rights.EXPIRED


@dataclass(slots=True)
class Renewal:
    """Keeps this node's own certificate young. `save`: makes a new one durable before it is used."""

    meta: Meta
    peers: Peers
    certifier: Certifier
    credentials: Credentials
    config: ClusterConfig
    save: Callable[[bytes], None]
    _left_before_ms: int = 0

    async def run(self) -> None:
        """Until cancelled; from the first moment of a start, for whose certificate ran out is told nothing else."""
        loop, lost, asked_s = asyncio.get_running_loop(), 0, -math.inf
        while True:
            await asyncio.sleep(min(self.config.doubt_ms, self.config.renew_check_ms) / 1000)
            lost = 0 if self.meta.status().leader else lost + 1
            if not (self._is_due() or lost > 1) or loop.time() < asked_s + self._pause_s(lost):
                continue
            asked_s = loop.time()
            try:
                await self.renew()
                if lost or self._left_before_ms <= 0:
                    self.peers.redial()  # what the old certificate opened stays as it is: without rights
            except (EdgeStoreError, TimeoutError) as error:
                log.warning("renewal-postponed error=%s", error)

    def _pause_s(self, lost: int) -> float:
        """Between two attempts: twice as long each time, while no leader is known."""
        least_s, most_s = self.config.doubt_ms / 1000, self.config.renew_check_ms / 1000
        return min(most_s, least_s * 2.0 ** min(lost, 16)) if lost else min(least_s, most_s)

    def _left_ms(self) -> int:
        return self.credentials.facts.not_after_ms - self.meta.log_time_ms()

    def _is_due(self) -> bool:
        """Two thirds of its life are over. Who was away for long cannot know: its log time has stood still."""
        return self._left_ms() < self.config.certificate_life_ms // 3

    async def renew(self) -> None:
        """From the first member that answers; a node that is alone signs for itself."""
        self._left_before_ms = self._left_ms()
        request = make_request(self.credentials.key, self.credentials.facts.member)
        certificate = b""
        failure: BaseException | None = None
        for member in sorted(self.peers.known(), key=lambda one: not self.peers.is_connected(one)):
            try:
                answer = await self.peers.call(
                    member,
                    Method.RENEW,
                    msgspec.msgpack.encode(RenewRequest(request)),
                    timeout_s=self.config.ask_timeout_s,
                )
                certificate = self._checked(answer.head)
                break
            except (EdgeStoreError, TimeoutError) as error:
                log.debug("renewal-refused member=%s error=%s", member, error)
                failure = error
        if not certificate:
            if failure is not None and not self.meta.can_read_now():
                raise Unavailable("no member renewed the certificate") from failure
            certificate = self.certifier.issue(read_request(request))
        self.save(certificate)
        self.credentials.replace(certificate)
        log.info("certificate-replaced left_ms=%d", self._left_ms())

    def _checked(self, head: bytes) -> bytes:
        """The certificate that a member sent: another one must not take the place of the one that is good. Raises
        Corrupt."""
        try:
            certificate = msgspec.msgpack.decode(head, type=RenewAnswer).certificate
        except (msgspec.MsgspecError, ValueError) as error:
            raise Corrupt(f"what a member answered is no certificate: {error}") from error
        own, facts = self.credentials.facts, read_certificate(certificate)
        if (facts.site_id, facts.member, facts.key_digest) != (own.site_id, own.member, own.key_digest):
            raise Corrupt("a member answered with a certificate that is not this node's")
        return certificate

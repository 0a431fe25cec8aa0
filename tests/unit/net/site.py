"""Members of one site for tests: an authority from a seed, and Peers with certificates of it."""

from __future__ import annotations

import random

from edgestore.clock import Clock, SystemClock
from edgestore.config import NetConfig
from edgestore.net import Credentials, Network, Peers, Rights
from edgestore.observe import Metrics
from edgestore.security import CertificateFacts, issue, load_key, new_authority, new_key

SITE = bytes(range(16))
NOW_MS = 1_760_000_000_000
LIFE_MS = 90 * 86_400_000


def member_of(number: int) -> str:
    return f"{number:032x}"


class Site:
    """`rights`: what members may do; those that are not named may all."""

    def __init__(self, seed: int = 1, site_id: bytes = SITE) -> None:
        self.entropy = random.Random(seed).randbytes
        self.site_id = site_id
        self.authority = new_authority(self.entropy, site_id, NOW_MS)
        self.rights: dict[str, Rights] = {}

    def credentials(self, number: int) -> Credentials:
        key = new_key(self.entropy)
        certificate = issue(
            self.authority, member_of(number), self.site_id, load_key(key).public_key(), NOW_MS, LIFE_MS
        )
        credentials = Credentials(self.rights_of)
        credentials.load(key, certificate, self.authority.certificate_der)
        return credentials

    def issue_again(self, credentials: Credentials, member: str, now_ms: int) -> bytes:
        return issue(self.authority, member, self.site_id, credentials.key.public_key(), now_ms, LIFE_MS)

    def rights_of(self, facts: CertificateFacts) -> Rights:
        return self.rights.get(facts.member, Rights.MEMBER)

    def peers(
        self, number: int, network: Network, config: NetConfig | None = None, clock: Clock | None = None
    ) -> Peers:
        return Peers(
            network,
            config or NetConfig(),
            self.credentials(number),
            member=member_of(number),
            clock=clock or SystemClock(),
            entropy=self.entropy,
            metrics=Metrics(),
        )


def introduce(members: dict[str, tuple[Peers, tuple[str, int]]]) -> None:
    """Everybody learns where the others are."""
    for name, (peers, _) in members.items():
        for other, (_, (host, port)) in members.items():
            if other != name:
                peers.know(other, f"{host}:{port}")

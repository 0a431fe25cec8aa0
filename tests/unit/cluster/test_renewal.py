"""When a node asks for another certificate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.msgpack import encode

from edgestore.cluster.certificates import Renewal, RenewAnswer
from edgestore.config import ClusterConfig
from edgestore.errors import Unavailable
from tests.unit.net.site import NOW_MS, Site, member_of

LIFE_MS = ClusterConfig().certificate_life_ms
BEGAN_MS = 1_760_000_000_000


@pytest.mark.parametrize(("share", "is_due"), [(0.0, False), (0.6, False), (0.66, False), (0.67, True), (1.2, True)])
def test_a_certificate_is_renewed_when_two_thirds_of_its_life_are_over(share: float, is_due: bool) -> None:
    meta: Any = SimpleNamespace(log_time_ms=lambda: BEGAN_MS + int(share * LIFE_MS))
    credentials: Any = SimpleNamespace(facts=SimpleNamespace(not_after_ms=BEGAN_MS + LIFE_MS))
    nobody: Any = None
    renewal = Renewal(meta, nobody, nobody, credentials, ClusterConfig(), lambda certificate: None)
    assert renewal._is_due() is is_due


async def test_an_answer_that_is_no_certificate_of_this_node_is_passed_over() -> None:
    """The next member is asked, and nothing takes the place of the certificate that is still good."""
    site, saved = Site(), list[bytes]()
    credentials = site.credentials(1)
    good = RenewAnswer(site.issue_again(credentials, member_of(1), NOW_MS))
    answers = {
        "1": b"\xc1",
        "2": encode(RenewAnswer(b"no certificate")),
        "3": encode(RenewAnswer(site.credentials(2).certificate)),
        "4": encode(good),
    }

    async def call(member: str, *_: object, timeout_s: float) -> Any:
        return SimpleNamespace(head=answers[member])

    peers: Any = SimpleNamespace(known=lambda: dict(answers), is_connected=lambda member: True, call=call)
    meta: Any = SimpleNamespace(log_time_ms=lambda: NOW_MS, can_read_now=lambda: False)
    nobody: Any = None
    renewal = Renewal(meta, peers, nobody, credentials, ClusterConfig(), saved.append)
    await renewal.renew()
    assert saved == [good.certificate] == [credentials.certificate]
    del answers["4"]
    with pytest.raises(Unavailable):  # which `run` tries again
        await renewal.renew()
    assert saved == [good.certificate]

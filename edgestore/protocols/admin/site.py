"""The routes for a site of several nodes: tokens and members.

Rule: a lone node knows them too, and says what to do for there to be a site.
"""

from __future__ import annotations

from typing import Any, Protocol

from edgestore.errors import BadRequest, Conflict
from edgestore.objects import BucketPolicy
from edgestore.records import BucketRecord

Question = dict[str, str]
NUMBER_DIGITS_MAX = 18


class AdminSite(Protocol):
    """What operators see and do of a site (`cluster.Site`)."""

    async def create_token(self, ttl_ms: int) -> dict[str, Any]:
        """`token` and `expires_ms`."""
        ...

    async def nodes(self) -> list[dict[str, Any]]:
        """A row a node."""
        ...

    async def set_state(self, number: int, state: str, *, force: bool = False) -> dict[str, Any]:
        """`draining` or `removed`; returns the node's row. `force`: whatever is lost with it."""
        ...

    async def set_weight(self, number: int, weight: int) -> dict[str, Any]:
        """Returns the node's row."""
        ...

    async def status(self) -> dict[str, Any]:
        """Where the site stands."""
        ...

    def redundancy(self, bucket: BucketRecord) -> str:
        """What a new object of the bucket gets now."""
        ...


class SiteRoutes:
    """The handlers, for `Admin`'s table."""

    def __init__(self, site: AdminSite | None) -> None:
        self._site = site

    @property
    def site(self) -> AdminSite:
        """Raises Conflict on a lone node."""
        if self._site is None:
            raise Conflict(
                "this is a lone node: start it with `serve --mesh HOST:PORT` and it is the first node of a site"
            )
        return self._site

    async def create_token(self, question: Question) -> Any:
        """PUT tokens."""
        return await self.site.create_token(number_of(question, "ttl_ms"))

    async def list_nodes(self, _: Question) -> Any:
        """GET nodes."""
        return await self.site.nodes()

    async def set_node(self, question: Question) -> Any:
        """PUT nodes: a state or a weight."""
        site, number = self.site, number_of(question, "number")
        if "weight" in question:
            return await site.set_weight(number, number_of(question, "weight"))
        if question.get("state") not in ("draining", "removed"):
            raise BadRequest("name a weight, or one of the states draining and removed")
        return await site.set_state(number, question["state"], force=question.get("force") == "true")

    async def status(self) -> dict[str, Any]:
        """What a node's status says of its site; nothing on a lone node."""
        return {} if self._site is None else {"site": await self._site.status()}


def redundancy_of(bucket: BucketRecord, site: AdminSite | None) -> dict[str, str]:
    """What was asked of a bucket, and on a site what it gets just now: the tolerance may be lower."""
    tolerate = "default" if bucket.tolerate is None else str(bucket.tolerate)
    asked = {"tolerate": tolerate, "scheme": bucket.scheme or "default"}
    return asked if site is None else {**asked, "now": site.redundancy(bucket)}


def number_of(question: Question, name: str) -> int:
    """A whole number of a question. Raises BadRequest."""
    text = question.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX):
        raise BadRequest(f"the request needs {name!r}, a whole number")
    return int(text)


def policy_of(question: Question) -> BucketPolicy | None:
    """What is asked of a bucket's redundancy; None for nothing. Raises BadRequest."""
    if "tolerate" not in question and "scheme" not in question:
        return None
    tolerate = question.get("tolerate", "default")
    scheme = question.get("scheme", "default")
    return BucketPolicy(
        None if tolerate == "default" else number_of(question, "tolerate"), "" if scheme == "default" else scheme
    )

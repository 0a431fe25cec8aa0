"""The site as the rooms of chunks see it (`chunks.Sites`): the catalog's layouts, and whom the detector doubts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgestore.errors import NoSuchLayout
from edgestore.meta import Meta
from edgestore.net import Outcome, Work
from edgestore.placement import Placement, Scheme, scheme_for
from edgestore.records import BucketRecord, LayoutRecord


def _unseen(member: str, work: Work, outcome: Outcome, seconds: float, size_bytes: int) -> None:
    """Where nobody judges the other nodes."""


def _roomy(voters: Callable[[], Sequence[str]]) -> bool:
    """Where nobody knows of the disks of the others."""
    return True


class MetaSites:
    """Reads the catalog as it is applied here; nothing is remembered but what the catalog keeps itself."""

    def __init__(
        self,
        meta: Meta,
        member: str,
        is_suspected: Callable[[str], bool],
        saw: Callable[[str, Work, Outcome, float, int], None] = _unseen,
        has_room: Callable[[Callable[[], Sequence[str]]], bool] = _roomy,
    ) -> None:
        self._meta, self._member, self._is_suspected, self._saw = meta, member, is_suspected, saw
        self._has_room = has_room
        self._members: dict[int, str] = {}
        self._members_epoch = -1

    @property
    def own_number(self) -> int:
        """0 before this node has joined."""
        return next((number for number, member in self._known().items() if member == self._member), 0)

    def layout(self) -> LayoutRecord:
        """See Sites."""
        return self._meta.state.layout()

    def placements(self, epoch: int) -> Sequence[Placement]:
        """See Sites."""
        newest = self._meta.state.placement()
        if epoch == newest.epoch:
            return (newest,)
        try:
            return self._meta.state.placement(epoch), newest
        except NoSuchLayout:
            return (newest,)

    def scheme(self, bucket: BucketRecord | None) -> Scheme:
        """See Sites."""
        return scheme_for(bucket, self.layout(), self._meta.state.settings())

    def member(self, number: int) -> str:
        """See Sites."""
        return self._known().get(number, "")

    def is_suspected(self, number: int) -> bool:
        """See Sites."""
        member = self.member(number)
        return bool(member) and member != self._member and self._is_suspected(member)

    def has_room(self) -> bool:
        """See Sites."""
        return self._has_room(lambda: self._meta.status().voters)

    def saw(self, number: int, work: Work, outcome: Outcome, seconds: float, size_bytes: int) -> None:
        """See Sites."""
        member = self.member(number)
        if member and member != self._member:
            self._saw(member, work, outcome, seconds, size_bytes)

    def _known(self) -> dict[int, str]:
        """Numbers are never reused, and who joins makes a new epoch."""
        epoch = self.layout().epoch
        if epoch != self._members_epoch:
            self._members = {node.number: node.member for node in self._meta.state.nodes()}
            self._members_epoch = epoch
        return self._members

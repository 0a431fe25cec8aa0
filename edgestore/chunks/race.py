"""One range of one chunk: the data fragments that hold it against any k others, whichever is there first. No I/O of its
own: `Fetcher` brings fragments."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from edgestore.chunks.encoder import pages_of
from edgestore.chunks.facts import Facts, Source
from edgestore.chunks.site import Manners
from edgestore.chunks.stripes import Piece, Stripes
from edgestore.disk import FragmentUnit
from edgestore.errors import Corrupt, EdgeStoreError, NotFound, Unavailable
from edgestore.placement import NOBODY

Units = tuple[FragmentUnit, ...]


class LeftForLast(Unavailable):
    """Only nodes that had better not be waited for may have the fragment."""


class OtherUnits(Exception):
    """The chunk is packed otherwise than was guessed, says a fragment."""

    def __init__(self, units: Units) -> None:
        self.units = units


@dataclass(slots=True)
class Fetch:
    """A fragment being fetched. `node`: who is being asked; `is_late`: nobody counts on it any more; `is_patient`:
    nodes that are slow or suspected are asked too, because nothing else is left; `is_again`: they refused once."""

    shard: int
    start: int
    stop: int
    node: int = NOBODY
    is_late: bool = False
    is_patient: bool = False
    is_again: bool = False
    begun_s: float = 0.0


class Fetcher(Protocol):
    """What a race asks for."""

    def preference(self, source: Source, shard: int) -> tuple[bool, bool, bool, int]:
        """Smaller is better to ask; the first two say that a shard is better made of others."""
        ...

    def is_anybody_away(self) -> bool:
        """Whether some may be there nevertheless, on a node that is down or where this node may not look any more."""
        ...

    async def fetch(self, source: Source, fetch: Fetch) -> tuple[Facts, int, memoryview]:
        """Whole pages of a fragment. Raises LeftForLast where it would take patience."""
        ...

    async def decode(
        self, source: Source, present: dict[int, memoryview], wanted: list[int]
    ) -> tuple[list[memoryview], bytes]:
        """The shards wanted out of k others."""
        ...


@dataclass(slots=True)
class _Have:
    """Bytes of one fragment from `start` on."""

    start: int
    data: memoryview

    def covers(self, start: int, stop: int) -> bool:
        return self.start <= start and stop <= self.start + len(self.data)

    def cut(self, start: int, stop: int) -> memoryview:
        return self.data[start - self.start : stop - self.start]


class Race:
    """One range of one chunk. `is_guess`: whether OtherUnits is raised where a fragment says so; else that fragment is
    taken for damaged, and `others` says how the last of them would have it."""

    def __init__(
        self,
        fetcher: Fetcher,
        manners: Manners,
        source: Source,
        units: Units,
        pieces: list[Piece],
        *,
        is_guess: bool = False,
    ) -> None:
        self._fetcher, self._manners, self._source, self._units = fetcher, manners, source, units
        self._pieces, self._is_guess = pieces, is_guess
        self.others: Units | None = None
        length = Stripes(source.k, sum(unit.stored_bytes for unit in units)).fragment_bytes
        self._wanted: dict[int, tuple[int, int]] = {}
        for piece in pieces:
            start, stop = self._wanted.get(piece.shard, (piece.start, piece.stop))
            self._wanted[piece.shard] = min(start, piece.start), max(stop, piece.stop)
        hull = min(start for start, _ in self._wanted.values()), max(stop for _, stop in self._wanted.values())
        self._hull = pages_of(*hull, length)
        self._have: dict[int, _Have] = {}
        self._tasks: dict[asyncio.Task[tuple[Facts, int, memoryview]], Fetch] = {}
        self._errors: dict[int, EdgeStoreError] = {}
        """By shard. It is not asked for any more, except once more where `_refused` says so."""
        self._refused: set[int] = set()
        """Shards whose nodes said at once that they could not answer, and have not been asked again."""
        self._last: list[int] = []
        self._spare = sorted(range(source.count), key=lambda one: fetcher.preference(source, one))

    async def run(self) -> list[memoryview]:
        """The pieces' bytes in their order."""
        self._manners.began()
        look_s = late_s = self._manners.late_s
        waited_s = 0.0
        self._begin_directly()
        while not self._is_direct():
            if len(self._whole()) >= self._source.k:
                return await self._decoded()
            if not (self._tasks or self._refused):
                raise worst(self._errors.values(), self._source, is_anybody_away=self._fetcher.is_anybody_away())
            done = await self._wait(look_s)
            waited_s = 0.0 if done else waited_s + look_s
            if done or self._leave_the_slow():
                continue
            self._ask_again()
            look_s = min(2 * look_s, self._manners.late_max_s)
            if waited_s >= late_s:
                late_s, waited_s = 2 * late_s, 0.0
                if self._manners.may_hedge():
                    self._give_up_waiting(list(self._tasks.values()))
        return [self._have[piece.shard].cut(piece.start, piece.stop) for piece in self._pieces]

    def stop(self) -> None:
        """What is still on its way is not wanted."""
        for task, fetch in self._tasks.items():
            task.cancel()
            if fetch.is_late:
                self._manners.overtaken(fetch.node)

    async def _wait(self, look_s: float) -> bool:
        """Whether any fetch has ended within that time."""
        if not self._tasks:
            await asyncio.sleep(look_s)
            return False
        done, _ = await asyncio.wait(self._tasks, timeout=look_s, return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=lambda one: self._tasks[one].shard):
            self._judge(task)
        return bool(done)

    def _ask_again(self) -> None:
        """A node that has just started refuses, and is needed a moment later: once each, where too few are on their
        way."""
        for shard in sorted(self._refused)[: max(0, self._lacking())]:
            self._refused.remove(shard)
            self._begin(Fetch(shard, *self._hull, is_patient=True, is_again=True))

    def _leave_the_slow(self) -> bool:
        """Whether a node was found slow, or is suspected, since it was asked. Not to wait for it costs no hedge."""
        fetches = [one for one in self._tasks.values() if not (one.is_late or one.is_patient)]
        slow = [one for one in fetches if self._manners.is_slow(one.node)]
        self._give_up_waiting(slow)
        return bool(slow)

    def _give_up_waiting(self, fetches: list[Fetch]) -> None:
        """They are late; where they come after all they are taken."""
        for fetch in fetches:
            fetch.is_late = True
        if fetches:
            self._recover()

    def _begin_directly(self) -> None:
        """Of copies the best one; else the data fragments that hold the range."""
        if self._source.k == 1:
            self._begin(Fetch(self._spare.pop(0), *self._hull))
            return
        for shard, (start, stop) in self._wanted.items():
            if self._fetcher.preference(self._source, shard)[:2] == (False, False):
                self._begin(Fetch(shard, start, stop))
        if len(self._tasks) < len(self._wanted):
            self._recover()

    def _begin(self, fetch: Fetch) -> None:
        loop = asyncio.get_running_loop()
        fetch.begun_s = loop.time()
        task = loop.create_task(self._fetcher.fetch(self._source, fetch))
        task.add_done_callback(_looked_at)
        self._tasks[task] = fetch

    def _is_direct(self) -> bool:
        """Whether the range is there as it is."""
        if self._source.k == 1 and self._have:
            self._have[0] = next(iter(self._have.values()))
        return all(
            shard in self._have and self._have[shard].covers(start, stop)
            for shard, (start, stop) in self._wanted.items()
        )

    def _whole(self) -> dict[int, memoryview]:
        """The hull of every shard that is there."""
        return {shard: have.cut(*self._hull) for shard, have in self._have.items() if have.covers(*self._hull)}

    def _judge(self, task: asyncio.Task[tuple[Facts, int, memoryview]]) -> None:
        fetch = self._tasks.pop(task)
        error = task.exception()
        if error is None:
            facts, start, data = task.result()
            if facts.units == self._units:
                known = self._have.get(fetch.shard)
                if known is None or len(known.data) < len(data):
                    self._have[fetch.shard] = _Have(start, data)
                return
            if sum(unit.plain_bytes for unit in facts.units) == self._source.chunk.size_bytes:
                if self._is_guess:
                    raise OtherUnits(facts.units)
                self.others = facts.units
            error = Corrupt("a fragment is packed otherwise than the others of its chunk", shard=fetch.shard)
        if not isinstance(error, EdgeStoreError):
            raise error
        if isinstance(error, LeftForLast):  # it says nothing of the fragment, which is asked for if need be
            self._last.append(fetch.shard)
        else:
            self._errors[fetch.shard] = error
            took_s = asyncio.get_running_loop().time() - fetch.begun_s
            if isinstance(error, Unavailable) and not fetch.is_again and took_s <= self._manners.late_max_s:
                self._refused.add(fetch.shard)
        self._recover()

    def _coming(self) -> set[int]:
        """Whole shards that are counted on."""
        return {
            fetch.shard
            for fetch in self._tasks.values()
            if (fetch.start, fetch.stop) == self._hull and not fetch.is_late
        }

    def _lacking(self) -> int:
        """How many whole shards are neither here nor counted on."""
        return self._source.k - len(self._whole().keys() | self._coming())

    def _recover(self) -> None:
        """Asks for as many whole shards as are still needed, the best first."""
        coming = self._coming()
        wanted = 1 if self._source.k == 1 else self._lacking()
        late = {fetch.shard for fetch in self._tasks.values() if fetch.is_late}
        not_now = self._errors.keys() | late | set(self._last)
        for shard in list(self._spare):
            if wanted <= 0:
                return
            self._spare.remove(shard)
            if shard in self._whole() or shard in coming or shard in not_now:
                continue
            self._begin(Fetch(shard, *self._hull))
            wanted -= 1
        for shard in self._last[: max(0, wanted)]:
            self._last.remove(shard)
            self._begin(Fetch(shard, *self._hull, is_patient=True))

    async def _decoded(self) -> list[memoryview]:
        """Out of k whole shards, those that lack."""
        present = self._whole()
        chosen = {shard: present[shard] for shard in sorted(present)[: self._source.k]}
        lacking = [shard for shard in self._wanted if shard not in present]
        made, _ = await self._fetcher.decode(self._source, chosen, lacking) if lacking else ([], b"")
        rows = {**present, **dict(zip(lacking, made, strict=True))}
        begin = self._hull[0]
        return [rows[piece.shard][piece.start - begin : piece.stop - begin] for piece in self._pieces]


def _looked_at(task: asyncio.Task[object]) -> None:
    if not task.cancelled():
        task.exception()


def worst(errors: Iterable[EdgeStoreError], source: Source, *, is_anybody_away: bool) -> EdgeStoreError:
    """Corrupt only where nobody could bring better bytes later.

    What lies on a node that is down counts as missing, and is there again when the node is. Who was refused by another
    node knows nothing of its fragments: this one may be no member any more, and not know it yet.
    """
    name, errors = source.chunk.chunk_id.hex(), list(errors)
    for error in errors:
        if not isinstance(error, Corrupt | NotFound) or (is_anybody_away and isinstance(error, NotFound)):
            return Unavailable(f"too few nodes with fragments of chunk {name} answer", chunk_id=name)
    for error in errors:
        if isinstance(error, Corrupt):
            return Corrupt(f"too few fragments of chunk {name} check out", chunk_id=name)
    return Corrupt(f"too few fragments of chunk {name} are there", chunk_id=name)

"""A TCP proxy in front of each node of a site: pairs of nodes are cut from each other, in one direction or both.

Rule: a cut loses nothing of what was sent and closes nothing, as a cable does: bytes wait until it is healed.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Protocol

PIECE_BYTES = 65_536
POLL_S = 0.02


class Cuts(Protocol):
    """Which directions between addresses (hosts of loopback, one a node) are cut."""

    def cut(self, source: str, target: str) -> None:
        """Nothing goes from one to the other any more."""
        ...

    def heal(self) -> None:
        """Everything goes again."""
        ...


class NoCuts:
    """Of a site whose connections nothing can cut."""

    def cut(self, source: str, target: str) -> None:
        """See Cuts."""
        raise AssertionError("the site has no proxies")

    def heal(self) -> None:
        """See Cuts."""


class ProxyCuts:
    """Asked by the proxies."""

    def __init__(self) -> None:
        self._cut: set[tuple[str, str]] = set()

    def cut(self, source: str, target: str) -> None:
        """See Cuts."""
        self._cut.add((source, target))

    def heal(self) -> None:
        """See Cuts."""
        self._cut.clear()

    def is_cut(self, source: str, target: str) -> bool:
        """Whether bytes from one to the other wait."""
        return (source, target) in self._cut


class Proxy:
    """Listens for one node; who connects is told by the address that it comes from."""

    def __init__(self, cuts: ProxyCuts, listen: tuple[str, int], node: tuple[str, int]) -> None:
        self._cuts, self._listen, self._node = cuts, listen, node

    async def run(self) -> None:
        """Until cancelled."""
        server = await asyncio.start_server(self._accept, *self._listen)
        async with server:
            await server.serve_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source, target = writer.get_extra_info("peername")[0], self._node[0]
        try:
            await self._passable(source, target)
            far_reader, far_writer = await asyncio.open_connection(*self._node, local_addr=(source, 0))
        except OSError:
            writer.close()
            return
        there = asyncio.ensure_future(self._pump(reader, far_writer, source, target))
        back = asyncio.ensure_future(self._pump(far_reader, writer, target, source))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            for end in (writer, far_writer):
                end.close()

    async def _passable(self, source: str, target: str) -> None:
        while self._cuts.is_cut(source, target):
            await asyncio.sleep(POLL_S)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str, target: str) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE_BYTES):
                await self._passable(source, target)
                writer.write(data)
                await writer.drain()


class Proxies:
    """The proxies of a site, on an event loop in a thread of their own."""

    def __init__(self) -> None:
        self.cuts = ProxyCuts()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def add(self, listen: tuple[str, int], node: tuple[str, int]) -> None:
        """A proxy at `listen` for the node at `node`."""
        asyncio.run_coroutine_threadsafe(Proxy(self.cuts, listen, node).run(), self._loop)

    def close(self) -> None:
        """Ends them all."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

"""What the clients know: the versions of each key, newest first, and which of them an unanswered operation left open.

Rule: a key belongs to one client, which does one thing at a time; so its versions are in the order of its operations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field


class Violation(AssertionError):
    """A promise was broken."""


class Lost(Violation):
    """Something acknowledged is not there, is another, or is there by half."""


class Damaged(Violation):
    """Bytes do not check out that nobody damaged, or the damage was not found."""


class Miscounted(Violation):
    """Names, counts and references of the catalog contradict each other."""


class Thin(Violation):
    """Content is named whose fragments are fewer than was promised, or lie on nodes that do not count."""


class Leaked(Violation):
    """The disk and the catalog name different chunks."""


class Refused(Violation):
    """The node does not start, or refuses what it promised to do."""


class NotLinearizable(Violation):
    """No order of the operations explains what the clients were told."""


class Split(Violation):
    """Two members lead in one term of one incarnation."""


class Diverged(Violation):
    """Two members hold different states at the same applied index."""


class Ahead(Violation):
    """A member counts or applies what its own disk does not hold yet."""


class Stalled(Violation):
    """The faults have stopped, and the site does not come back."""


class Overfull(Violation):
    """A queue, a buffer or a number of tasks is over its bound."""


class Crashed(Violation):
    """An error that nothing in the product should raise."""


def digest(body: bytes) -> str:
    """Names a body."""
    return hashlib.sha256(body).hexdigest()[:16]


@dataclass
class Entry:
    """One version. `version` None: its id was never told; `body` None: a delete marker, or nothing at all; `certain`:
    it is there, and was not only asked for or asked to go."""

    version: str | None
    body: str | None
    certain: bool = True
    etag: str | None = None


@dataclass
class Knowledge:
    """One key."""

    versioned: bool
    entries: list[Entry] = field(default_factory=list)

    def begin(self, body: str | None) -> Entry:
        """An operation that makes a version was sent."""
        entry = Entry(None, body, certain=False)
        self.entries.insert(0, entry)
        return entry

    def acknowledge(self, entry: Entry, version: str | None, etag: str | None = None) -> None:
        """It was answered."""
        entry.version, entry.etag, entry.certain = version, etag, True
        if not self.versioned:
            self.entries = [entry] if entry.body is not None else []

    def refuse(self, entry: Entry) -> None:
        """It did nothing, and says so."""
        self.entries.remove(entry)

    def current(self) -> set[str | None]:
        """What a read of the key may find."""
        found: set[str | None] = set()
        for entry in self.entries:
            found.add(entry.body)
            if entry.certain:
                return found
        return found | {None}

    def newest(self) -> Entry | None:
        """The current version where there is no doubt about it."""
        entry = self.entries[0] if self.entries else None
        return entry if entry is not None and entry.certain and entry.body is not None else None

    def adopt(self, found: Sequence[Entry], name: str) -> None:
        """What lies there is from now on what is known. Raises Lost where it cannot have come about."""
        if not self.versioned:
            if {row.body for row in found} - self.current() or len(found) > 1:
                raise Lost(f"{name}: found {found}, known {self.entries}")
            self.entries = list(found)
            return
        known = {entry.version for entry in self.entries} - {None}
        rest = list(self.entries)
        for row in found:
            while rest:
                entry = rest.pop(0)
                if entry.version == (row.version if row.version in known else None) and entry.body == row.body:
                    break
                if entry.certain:
                    raise Lost(f"{name}: {entry} is not there; found {found}, known {self.entries}")
            else:
                raise Lost(f"{name}: {row} was never asked for, or had gone; known {self.entries}")
        if any(entry.certain for entry in rest):
            raise Lost(f"{name}: {rest} are not there; found {found}")
        self.entries = list(found)

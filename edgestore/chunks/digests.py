"""The digests of a body, over its plain bytes: MD5 for the ETag, and what the request asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from edgestore.kernels import crc32, crc32c, crc64nvme

ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
_CRCS: dict[str, tuple[Callable[..., int], int]] = {
    "CRC32": (crc32, 4),
    "CRC32C": (crc32c, 4),
    "CRC64NVME": (crc64nvme, 8),
}


class WholeDigests:
    """The digests of bytes that are in memory, each made when it is asked for; what `Digests` is for a stream."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def md5(self) -> bytes:
        """The MD5."""
        return hashlib.md5(self._data, usedforsecurity=False).digest()

    def value(self, algorithm: str) -> bytes:
        """A digest, big-endian."""
        if algorithm in _CRCS:
            checksum, size = _CRCS[algorithm]
            return checksum(self._data).to_bytes(size, "big")
        if algorithm == "SHA256":
            return hashlib.sha256(self._data).digest()
        return hashlib.new(algorithm.lower(), self._data, usedforsecurity=False).digest()


class Digests:
    """Running digests. `update` may run in any thread, one call at a time."""

    def __init__(self, algorithms: tuple[str, ...] = (), *, sha256: bool = False) -> None:
        wanted = dict.fromkeys((*algorithms, "SHA256") if sha256 else algorithms)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashes: dict[str, Any] = {}
        self._crcs: dict[str, int] = {}
        for name in wanted:
            if name in _CRCS:
                self._crcs[name] = 0
            else:
                self._hashes[name] = hashlib.new(name.lower(), usedforsecurity=False)

    def update(self, data: bytes | memoryview) -> None:
        """Adds bytes."""
        self._md5.update(data)
        for name, value in self._crcs.items():
            self._crcs[name] = _CRCS[name][0](data, value)
        for running in self._hashes.values():
            running.update(data)

    @property
    def md5(self) -> bytes:
        """The MD5 so far."""
        return self._md5.digest()

    def value(self, algorithm: str) -> bytes:
        """A digest so far, big-endian."""
        if algorithm in self._crcs:
            return self._crcs[algorithm].to_bytes(_CRCS[algorithm][1], "big")
        return bytes(self._hashes[algorithm].digest())

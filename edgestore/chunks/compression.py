"""zstd for units, where it pays. Compressors are reused and never shared by two threads at once."""

from __future__ import annotations

import zstandard

from edgestore.errors import Corrupt

PLAIN, ZSTD = 0, 1
WINDOW_MAX_BYTES = 8 * 1024 * 1024


class Compression:
    """Compresses and decompresses units; its methods may run in any thread."""

    def __init__(self, level: int, saving_min: float) -> None:
        self._level, self._keep = level, 1.0 - saving_min
        self._compressors: list[zstandard.ZstdCompressor] = []
        self._decompressors: list[zstandard.ZstdDecompressor] = []

    def pack(self, data: memoryview) -> tuple[int, bytes | memoryview]:
        """(codec, stored bytes): compressed where that saves enough, else the data itself."""
        try:  # asking first whether there is one would race with other threads
            compressor = self._compressors.pop()
        except IndexError:
            compressor = zstandard.ZstdCompressor(level=self._level)
        packed = compressor.compress(data)
        self._compressors.append(compressor)
        return (ZSTD, packed) if len(packed) <= len(data) * self._keep else (PLAIN, data)

    def unpack(self, data: bytes | memoryview, plain_bytes: int) -> bytes:
        """The plain bytes of a compressed unit; output and window are bounded. Raises Corrupt."""
        try:
            decompressor = self._decompressors.pop()
        except IndexError:
            decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES)
        try:
            if zstandard.get_frame_parameters(bytes(data[:32])).content_size != plain_bytes:
                raise Corrupt("a compressed unit announces another size than its chunk")
            plain = decompressor.decompress(data, max_output_size=plain_bytes)
        except zstandard.ZstdError as error:
            raise Corrupt(f"a compressed unit does not decompress: {error}") from error
        self._decompressors.append(decompressor)
        return plain

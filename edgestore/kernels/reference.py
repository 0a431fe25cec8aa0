"""The specification of the kernels, in plain Python."""

from __future__ import annotations

import re
import struct
import zlib
from functools import lru_cache

from edgestore.kernels.erasure import SHARDS_MAX, encode_matrix, multiply

Buffer = bytes | bytearray | memoryview


def _table(polynomial: int) -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


_CRC32C = _table(0x82F63B78)
_CRC64NVME = _table(0x9A6C9329AC4BC9B5)


def crc32(data: Buffer, value: int = 0) -> int:
    """CRC32 with the polynomial of zlib."""
    return zlib.crc32(data, value)


def crc32c(data: Buffer, value: int = 0) -> int:
    """CRC32C (Castagnoli)."""
    state = value & 0xFFFFFFFF ^ 0xFFFFFFFF
    for byte in bytes(data):
        state = _CRC32C[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def crc64nvme(data: Buffer, value: int = 0) -> int:
    """CRC64NVME."""
    state = value & 0xFFFFFFFFFFFFFFFF ^ 0xFFFFFFFFFFFFFFFF
    for byte in bytes(data):
        state = _CRC64NVME[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFFFFFFFFFF


def _combine(crc_a: int, crc_b: int, length_b: int, polynomial: int, bits: int) -> int:
    """Multiplies crc_a by x^(8 * length_b) modulo the polynomial, and adds crc_b."""
    top = 1 << (bits - 1)

    def multiply(a: int, b: int) -> int:
        product = 0
        while a:
            if a & top:
                product ^= b
            a = (a << 1) & ((top << 1) - 1)
            b = (b >> 1) ^ (polynomial if b & 1 else 0)
        return product

    power, result, length = top >> 8, top, length_b
    while length:
        if length & 1:
            result = multiply(power, result)
        power = multiply(power, power)
        length >>= 1
    return multiply(result, crc_a) ^ crc_b


def crc32_combine(crc_a: int, crc_b: int, length_b: int) -> int:
    """The CRC32 of a + b."""
    return _combine(crc_a, crc_b, length_b, 0xEDB88320, 32)


def crc32c_combine(crc_a: int, crc_b: int, length_b: int) -> int:
    """The CRC32C of a + b."""
    return _combine(crc_a, crc_b, length_b, 0x82F63B78, 32)


def crc64nvme_combine(crc_a: int, crc_b: int, length_b: int) -> int:
    """The CRC64NVME of a + b."""
    return _combine(crc_a, crc_b, length_b, 0x9A6C9329AC4BC9B5, 64)


def page_crcs(data: Buffer, page_bytes: int = 65536) -> bytes:
    """CRC32C of every page, little-endian u32 each."""
    view = memoryview(data)
    return b"".join(struct.pack("<I", crc32c(view[at : at + page_bytes])) for at in range(0, len(view), page_bytes))


def transform(
    stripe: bytearray | memoryview,
    k: int,
    m: int,
    shard_bytes: int,
    stride: int,
    inputs: bytes,
    outputs: bytes,
    matrix: bytes,
) -> bytes:
    """outputs = matrix * inputs over shards of a stripe; returns the page CRCs of inputs, then outputs."""
    view = memoryview(stripe).cast("B")
    _check_stripe(view, k, m, shard_bytes, stride)
    if len(matrix) != len(inputs) * len(outputs) or any(shard >= k + m for shard in inputs + outputs):
        raise ValueError("the matrix does not fit the shards")
    shards = [view[shard * stride : shard * stride + shard_bytes] for shard in inputs]
    for row, shard in enumerate(outputs):
        total = 0
        for column, data in enumerate(shards):
            cell = matrix[row * len(inputs) + column]
            total ^= int.from_bytes(bytes(data).translate(_products(cell)), "little")
        view[shard * stride : shard * stride + shard_bytes] = total.to_bytes(shard_bytes, "little")
    every = [*inputs, *outputs]
    return b"".join(page_crcs(view[shard * stride : shard * stride + shard_bytes]) for shard in every)


def encode(stripe: bytearray | memoryview, k: int, m: int, shard_bytes: int, stride: int) -> bytes:
    """Writes the m parity shards; returns the CRC32C of every 64 KiB page of every shard, shard-major."""
    _check_stripe(memoryview(stripe).cast("B"), k, m, shard_bytes, stride)
    matrix = bytes(cell for row in encode_matrix(k, m) for cell in row)
    return transform(stripe, k, m, shard_bytes, stride, bytes(range(k)), bytes(range(k, k + m)), matrix)


@lru_cache(maxsize=256)
def _products(factor: int) -> bytes:
    return bytes(multiply(factor, value) for value in range(256))


def _check_stripe(view: memoryview, k: int, m: int, shard_bytes: int, stride: int) -> None:
    if k < 1 or m < 0 or k + m > SHARDS_MAX or shard_bytes < 0 or stride < shard_bytes:
        raise ValueError("a stripe has 1 <= k, k + m <= 32 shards, and a stride of at least a shard")
    if view.readonly:
        raise BufferError("the stripe is read-only")
    if (k + m - 1) * stride + shard_bytes > len(view):
        raise ValueError("the buffer is shorter than the stripe")


# --- heads of HTTP requests ------------------------------------------------------------------------------

HEAD_MAX_BYTES = 8000
"""aiohttp bounds each line; a longer head is left to it, so that both lanes refuse the same."""
FIELDS_MAX = 100
LENGTH_DIGITS_MAX = 15

# As every client writes them: one space behind the colon, none at the end, no empty values, no fragment.
_PLAIN_HEAD = re.compile(
    rb"(?:GET|HEAD|PUT) /[\x21\x22\x24-\x7e]*+ HTTP/1\.1"
    rb"(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]++: [\x21-\x7e][\t\x20-\x7e]*+(?<![\t ]))++"
)
_FRAMING = ("transfer-encoding", "upgrade", "te", "trailer", "proxy-connection", "http2-settings")


Head = tuple[str, str, str, dict[str, str], int, bool]
"""Method, path, query, headers with names in lower case, bytes of the body, whether it waits for `100 Continue`."""


def parse_head(data: bytes) -> Head | None:
    """A head without its final empty line. None unless everything about it is plain."""
    if len(data) > HEAD_MAX_BYTES or not _PLAIN_HEAD.fullmatch(data):
        return None
    request, *lines = data.decode("ascii").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    if len(headers) != len(lines) or len(lines) > FIELDS_MAX or "host" not in headers:
        return None
    method, target, _ = request.split(" ")
    length = plain_length(headers)
    if length is None or (method != "PUT" and "content-length" in headers):
        return None
    path, _, query = target.partition("?")
    return method, path, query, headers, length, "expect" in headers


def plain_length(headers: dict[str, str]) -> int | None:
    """The length of a body; None where the framing is not plain."""
    for name in _FRAMING:
        if name in headers:
            return None
    if "connection" in headers and headers["connection"].lower() != "keep-alive":
        return None
    if "expect" in headers and headers["expect"].lower() != "100-continue":
        return None
    length = headers.get("content-length")
    if length is None:
        return 0
    if not (length.isdigit() and len(length) <= LENGTH_DIGITS_MAX):
        return None
    return int(length)

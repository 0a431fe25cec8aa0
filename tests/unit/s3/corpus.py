"""The corpus of both lanes: one request for every rule that a lane could keep differently."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from tests.unit.s3.lanes import OTHER, ROOT, Case
from tests.unit.s3.stored import LATER, LONG_AGO, MEDIUM, ODD_KEY, SMALL, ZEROS, crc32

BODY = b"what is put"
ETAGS = {"small": hashlib.md5(SMALL).hexdigest(), "zeros": hashlib.md5(ZEROS).hexdigest()}


def digest(name: str, body: bytes) -> str:
    """A digest of hashlib in base64."""
    return base64.b64encode(hashlib.new(name, body).digest()).decode()


def put(target: str = "/lanes/put", body: bytes = BODY, **options: Any) -> Case:
    """A PUT."""
    return Case("PUT", target, body=body, **options)


def chunked(payload: str, *chunks: bytes, **options: Any) -> Case:
    """An `aws-chunked` PUT."""
    return Case("PUT", "/lanes/put", payload=payload, chunks=chunks, **options)


def both(name: str, target: str, keys: tuple[str, str] = ROOT, **headers: dict[str, str]) -> dict[str, Case]:
    """GET and HEAD of one target, for each set of headers."""
    sets = headers or {"plain": {}}
    return {
        f"{method} {name} {label}": Case(method, target, given, keys=keys)
        for label, given in sets.items()
        for method in ("GET", "HEAD")
    }


def flipped(data: bytes) -> bytes:
    """The first digit of the signature is another."""
    at = data.index(b"Signature=") + len(b"Signature=")
    return data[:at] + (b"0" if data[at : at + 1] != b"0" else b"1") + data[at + 1 :]


def swapped(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Changes the finished request."""
    return lambda data: data.replace(old, new, 1)


CONDITIONS = {
    "if-match": {"if-match": f'"{ETAGS["small"]}"'},
    "if-match of a list": {"if-match": f'"x", "{ETAGS["small"]}"'},
    "if-match any": {"if-match": "*"},
    "if-match another": {"if-match": '"0"'},
    "if-match bare": {"if-match": ETAGS["small"]},
    "if-none-match": {"if-none-match": f'"{ETAGS["small"]}"'},
    "if-none-match weak": {"if-none-match": f'W/"{ETAGS["small"]}"'},
    "if-none-match any": {"if-none-match": "*"},
    "if-none-match another": {"if-none-match": '"0"'},
    "if-modified-since long ago": {"if-modified-since": LONG_AGO},
    "if-modified-since later": {"if-modified-since": LATER},
    "if-modified-since no date": {"if-modified-since": "yesterday"},
    "if-unmodified-since long ago": {"if-unmodified-since": LONG_AGO},
    "if-unmodified-since later": {"if-unmodified-since": LATER},
    "if-match beats if-unmodified-since": {"if-match": "*", "if-unmodified-since": LONG_AGO},
    "if-none-match beats if-modified-since": {"if-none-match": '"0"', "if-modified-since": LATER},
    "both not modified": {"if-none-match": f'"{ETAGS["small"]}"', "if-modified-since": LATER},
}
RANGES = {
    text: {"range": text}
    for text in [
        *("bytes=0-0", "bytes=0-", "bytes=-1", "bytes=-0", "bytes=10-19", "bytes=999-", "bytes=1000-", "bytes=-5000"),
        *("bytes=5-4", "bytes=0-99999", "bytes=0-1,3-4", "bytes=", "bytes=a-b", "lines=0-1", "bytes=0-9 ", "BYTES=0-9"),
        *("bytes= 0-9", "bytes=99999999999999999999-", "bytes=0-99999999999999999999"),
    ]
} | {
    "if-range holds": {"range": "bytes=0-9", "if-range": f'"{ETAGS["small"]}"'},
    "if-range does not hold": {"range": "bytes=0-9", "if-range": '"0"'},
    "if-range date": {"range": "bytes=0-9", "if-range": LONG_AGO},
    "range with a condition": {"range": "bytes=0-9", "if-none-match": f'"{ETAGS["small"]}"'},
    "range beyond with a condition": {"range": "bytes=5000-", "if-match": '"0"'},
    "range with checksums": {"range": "bytes=0-9", "x-amz-checksum-mode": "ENABLED"},
}
MODES = {text: {"x-amz-checksum-mode": text} for text in ("ENABLED", "enabled", "DISABLED", "")}
READS: dict[str, Case] = {
    **both("small", "/lanes/small", **CONDITIONS, **RANGES, **MODES, plain={}),
    **both("empty", "/lanes/empty", **MODES, **{name: RANGES[name] for name in ("bytes=0-0", "bytes=-1", "bytes=0-")}),
    **both("medium", "/lanes/medium", plain={}, **{name: RANGES[name] for name in ("bytes=10-19", "bytes=0-99999")}),
    **both("zeros", "/lanes/zeros", plain={}, **{name: RANGES[name] for name in ("bytes=10-19", "bytes=0-99999")}),
    **both("large", "/lanes/large", plain={}, **{name: RANGES[name] for name in ("bytes=10-19", "bytes=-1")}),
    **both("odd", ODD_KEY),
    **both("missing key", "/lanes/nothing", plain={}, **{n: CONDITIONS[n] for n in ("if-match", "if-none-match any")}),
    **both("missing bucket", "/absent/key"),
    **both("no name of a bucket", "/A_/key"),
    **both("root's look into a bucket", "/foreign/small"),
    **both("foreign", "/lanes/small", OTHER, plain={}, known=CONDITIONS["if-none-match"], range=RANGES["bytes=-1"]),
    **both("missing key of a foreign bucket", "/lanes/nothing", OTHER),
    **both("missing bucket of another", "/absent/key", OTHER),
    **both("own", "/foreign/small", OTHER),
    **both("key that is too long", "/lanes/" + "k" * 1025),
    **both("key that is no UTF-8", "/lanes/%ff%fe"),
    **both("deleted", "/versioned/gone"),
    **both("deleted null", "/suspended/gone"),
    **both("versioned", "/versioned/key"),
    **both("suspended", "/suspended/key"),
    **both("null version", "/suspended/key?versionId=null"),
    **both("no null version", "/versioned/key?versionId=null"),
    **both("version that is not there", "/versioned/key?versionId=AAAAAAAAAAAAAAAAAAAAAAAA"),
    **both("version that is none", "/versioned/key?versionId=x"),
    **both("empty version", "/versioned/key?versionId="),
    **both("null of unversioned", "/lanes/small?versionId=null"),
    **both("part 1 of one", "/lanes/small?partNumber=1"),
    **both("part 2 of one", "/lanes/small?partNumber=2"),
    **both("part 1 of none", "/lanes/empty?partNumber=1"),
    **both("part 1 of two", "/lanes/parts?partNumber=1"),
    **both("part 2 of two", "/lanes/parts?partNumber=2", plain={}, **MODES),
    **both("part 3 of two", "/lanes/parts?partNumber=3"),
    **both("part 0", "/lanes/parts?partNumber=0"),
    **both("part x", "/lanes/parts?partNumber=x"),
    **both("part and range", "/lanes/parts?partNumber=2", both={"range": "bytes=0-1"}),
    **both("parts", "/lanes/parts", range={"range": "bytes=5242870-5242890"}, mode=MODES["ENABLED"]),
    **both("overrides", "/lanes/small?response-content-type=a%2Fb&response-expires=x&response-cache-control=no-store"),
    **both("override with a line end", "/lanes/small?response-content-type=a%0d%0ab"),
    **both("sdk id", "/lanes/small?x-id=GetObject"),
    **both("query that means nothing", "/lanes/small?what=ever"),
    **both("parameter twice", "/lanes/small?partNumber=1&partNumber=2"),
    **both("tagging", "/lanes/small?tagging"),
    **both("acl", "/lanes/small?acl"),
    **both("torrent", "/lanes/small?torrent"),
    **both("slash behind", "/lanes/small/"),
    **both("path of dots", "/lanes/../lanes/small"),
    **both("path of slashes", "//lanes//small"),
    **both("bucket", "/lanes"),
    **both("listing", "/lanes?list-type=2&prefix=o"),
    **both("service", "/"),
}
ASKED = {
    "unknown header": {"x-something": "else"},
    "empty header": {"x-something": ""},
    "expected owner": {"x-amz-expected-bucket-owner": "0123"},
    "requester pays": {"x-amz-request-payer": "requester"},
    "SSE-C": {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
    "token": {"x-amz-security-token": "t"},
    "unknown x-amz": {"x-amz-what": "ever"},
    "accept-encoding": {"accept-encoding": "gzip, br", "accept": "*/*"},
    "keep-alive": {"connection": "keep-alive"},
    "close": {"connection": "close"},
    "te": {"te": "trailers"},
    "upgrade": {"upgrade": "h2c", "connection": "upgrade"},
    "latin-1": {"x-something": "caf\u00e9"},
    "many": {f"x-{i}": str(i) for i in range(70)},
    "long": {"x-something": "v" * 7000},
    "content-type": {"content-type": "text/plain"},
}
REFUSED_PROOFS = {
    "wrong signature": {"tamper": flipped},
    "long signature": {"tamper": swapped(b"Signature=", b"Signature=0")},
    "host changed": {"tamper": swapped(b"\r\nhost: ", b"\r\nhost: x")},
    "wrong secret": {"keys": ("AKLANES00000000000001", "another")},
    "unknown key": {"keys": ("AKNOBODY", "another")},
    "foreign key": {"keys": OTHER},
    "skewed back": {"age_s": 1000},
    "skewed forward": {"age_s": -1000},
    "unsigned": {"sign": "none"},
    "date gone": {"tamper": swapped(b"x-amz-date", b"x-date")},
    "payload gone": {"tamper": swapped(b"x-amz-content-sha256: ", b"x-sha: ")},
    "x-amz header added": {"tamper": swapped(b"\r\nhost: ", b"\r\nx-amz-meta-a: b\r\nhost: ")},
    "copy source added": {"tamper": swapped(b"\r\nhost: ", b"\r\nx-amz-copy-source: /lanes/small\r\nhost: ")},
    "key changed": {"tamper": swapped(b" /lanes/", b" /lanes/x")},
    "basic": {"tamper": swapped(b"AWS4-HMAC-SHA256 ", b"Basic ")},
    "broken": {"tamper": swapped(b"Credential=", b"Cred=")},
    "bad payload": {"payload": "nonsense"},
    "expired": {"sign": "query", "age_s": 400},
    "expires too late": {"sign": "query", "expires_s": 700_000},
    "expires never": {"sign": "query", "expires_s": 0},
    "not yet": {"sign": "query", "age_s": -1000},
    "wrong query signature": {"sign": "query", "tamper": flipped},
    "query changed": {"sign": "query", "tamper": swapped(b"X-Amz-Expires=300", b"X-Amz-Expires=301")},
    "query and x-amz header": {"sign": "query", "headers": {"x-amz-checksum-mode": "ENABLED"}},
    "query and more": {"sign": "query", "tamper": swapped(b"?X-Amz", b"?versionId=null&X-Amz")},
}
PROOFS: dict[str, Case] = {
    **{
        f"{method} {name}": Case(method, "/lanes/put", **{"body": BODY if method == "PUT" else None, **options})
        for name, options in REFUSED_PROOFS.items()
        for method in ("GET", "HEAD", "PUT")
    },
    **{f"{m} {name}": Case(m, "/lanes/small", given) for name, given in ASKED.items() for m in ("GET", "HEAD")},
    "get in odd case": Case(
        headers=MODES["ENABLED"], tamper=swapped(b"x-amz-checksum-mode: ", b"X-AMZ-checksum-Mode:\t")
    ),
    "presigned get": Case(sign="query"),
    "presigned head": Case("HEAD", sign="query"),
    "presigned get of a part": Case(target="/lanes/parts?partNumber=2", sign="query"),
    "presigned get with overrides": Case(target="/lanes/small?response-content-type=a", sign="query"),
    "presigned get with a hoisted mode": Case(target="/lanes/small?x-amz-checksum-mode=ENABLED", sign="query"),
    "presigned get with a range": Case(headers={"range": "bytes=0-9"}, sign="query"),
    "presigned put": put(sign="query"),
    "presigned put of metadata": put("/lanes/put?x-amz-meta-a=b", sign="query"),
    "presigned put of a storage class": put("/lanes/put?x-amz-storage-class=GLACIER", sign="query"),
    "presigned put with a wrong checksum": put("/lanes/put?x-amz-checksum-crc32=AAAAAA%3D%3D", sign="query"),
    "get with a body": Case(body=b"hidden"),
    "get with unsigned payload": Case(payload="unsigned"),
    "get with the hash of something": Case(payload=hashlib.sha256(b"else").hexdigest()),
}
SIZES = [0, 1, 8191, 8192, 8193, 65_536, 100_000, 131_071, 131_072, 131_073, 300_000]
PUT_HEADERS: dict[str, dict[str, str]] = {
    "crc32": {"x-amz-checksum-crc32": crc32(BODY)},
    "crc32 with its name": {"x-amz-checksum-crc32": crc32(BODY), "x-amz-sdk-checksum-algorithm": "CRC32"},
    "crc32 with another name": {"x-amz-checksum-crc32": crc32(BODY), "x-amz-sdk-checksum-algorithm": "SHA1"},
    "crc32 wrong": {"x-amz-checksum-crc32": "AAAAAA=="},
    "crc32 short": {"x-amz-checksum-crc32": "AAAA"},
    "crc32c wrong": {"x-amz-checksum-crc32c": "AAAAAA=="},
    "crc64 wrong": {"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="},
    "sha1": {"x-amz-checksum-sha1": digest("sha1", BODY)},
    "sha1 wrong": {"x-amz-checksum-sha1": digest("sha1", b"")},
    "sha256": {"x-amz-checksum-sha256": digest("sha256", BODY)},
    "sha256 wrong": {"x-amz-checksum-sha256": digest("sha256", b"")},
    "sha512": {"x-amz-checksum-sha512": "AAAA"},
    "two checksums": {"x-amz-checksum-crc32": crc32(BODY), "x-amz-checksum-sha1": digest("sha1", BODY)},
    "algorithm without value": {"x-amz-sdk-checksum-algorithm": "CRC32"},
    "trailer without framing": {"x-amz-trailer": "x-amz-checksum-crc32"},
    "md5": {"content-md5": digest("md5", BODY)},
    "md5 wrong": {"content-md5": digest("md5", b"")},
    "md5 broken": {"content-md5": "nonsense"},
    "md5 wrong and crc32 wrong": {"content-md5": digest("md5", b""), "x-amz-checksum-crc32": "AAAAAA=="},
    "if-match any": {"if-match": "*"},
    "if-match": {"if-match": f'"{hashlib.md5(b"before").hexdigest()}"'},
    "if-match another": {"if-match": '"0"'},
    "if-match two": {"if-match": '"0", "1"'},
    "if-none-match": {"if-none-match": "*"},
    "if-none-match etag": {"if-none-match": '"0"'},
    "if-unmodified-since": {"if-unmodified-since": LATER},
    "if-modified-since": {"if-modified-since": LONG_AGO},
    "failed condition and wrong checksum": {"if-match": '"0"', "x-amz-checksum-crc32": "AAAAAA=="},
    "both conditions": {"if-match": "*", "if-none-match": "*"},
    "metadata": {"x-amz-meta-a": "b", "x-amz-meta-spaces": "a  b"},
    "metadata that is empty": {"x-amz-meta-empty": ""},
    "metadata beyond ASCII": {"x-amz-meta-a": "\u00fc\u4e2d"},
    "metadata too large": {"x-amz-meta-a": "v" * 2100},
    "system headers": {
        "content-type": "a/b",
        "cache-control": "no-store",
        "expires": "never",
        "content-language": "de",
    },
    "content-encoding": {"content-encoding": "gzip"},
    "content-encoding aws-chunked": {"content-encoding": "aws-chunked"},
    "storage class": {"x-amz-storage-class": "STANDARD"},
    "storage class GLACIER": {"x-amz-storage-class": "GLACIER"},
    "acl private": {"x-amz-acl": "private"},
    "acl public": {"x-amz-acl": "public-read"},
    "grant": {"x-amz-grant-read": "id=1"},
    "tagging": {"x-amz-tagging": "a=b"},
    "no tagging": {"x-amz-tagging": ""},
    "SSE": {"x-amz-server-side-encryption": "AES256"},
    "lock": {"x-amz-object-lock-mode": "GOVERNANCE"},
    "redirect": {"x-amz-website-redirect-location": "/a"},
    "append": {"x-amz-write-offset-bytes": "1"},
    "range": {"range": "bytes=0-1"},
    "content-range": {"content-range": "bytes 0-1/2"},
    "copy source": {"x-amz-copy-source": "/lanes/small"},
    "empty copy source": {"x-amz-copy-source": ""},
    "wrong owner": {"x-amz-expected-bucket-owner": "0123"},
    "mode": {"x-amz-checksum-mode": "ENABLED"},
}
PIECES = hashlib.shake_128(b"pieces").digest(131_072)
PUTS: dict[str, Case] = {
    **{f"put {size}": put(body=PIECES[:size] if size < 200_000 else PIECES * 3) for size in SIZES},
    **{f"put {size} unsigned": put(body=PIECES[:size], payload="unsigned") for size in SIZES[:9]},
    **{f"put {size} expecting": put(body=PIECES[:size], expects=True) for size in SIZES[1:9]},
    **{f"put {size} in pieces": put(body=PIECES[:size], cuts=(-9, 0, size - 1)) for size in SIZES[1:9]},
    **{f"put {size} over another": put(body=PIECES[:size], before=b"before") for size in SIZES[:6]},
    **{f"put {name}": put(headers=given) for name, given in PUT_HEADERS.items()},
    **{f"put over another {name}": put(headers=given, before=b"before") for name, given in PUT_HEADERS.items()},
    **{
        f"put over another {name} in pieces": put(headers=given, before=b"before", cuts=(-150, 5))
        for name, given in PUT_HEADERS.items()
        if "match" in name or "wrong" in name
    },
    "put of another body": put(payload=hashlib.sha256(b"else").hexdigest()),
    "put of another body, large": put(body=MEDIUM, payload=hashlib.sha256(b"else").hexdigest()),
    "put without a length": Case("PUT", "/lanes/put"),
    "put into nowhere": put("/absent/put"),
    "put into a foreign bucket": put("/foreign/put"),
    "put into nowhere with a wrong checksum": put("/absent/put", headers=PUT_HEADERS["crc32 wrong"]),
    "put into a foreign bucket with a wrong checksum": put("/foreign/put", headers=PUT_HEADERS["crc32 wrong"]),
    "put into nowhere of another body": put("/absent/put", payload=hashlib.sha256(b"else").hexdigest()),
    "put of a key that is too long": put("/lanes/" + "k" * 1025),
    "put of a key that is no UTF-8": put("/lanes/%ff"),
    "put of an odd key": put("/lanes/a%20b/../%2F//"),
    "put versioned": put("/versioned/put"),
    "put versioned absent": put("/versioned/put", headers={"if-none-match": "*"}),
    "put versioned over another": put("/versioned/put", before=b"before", headers={"if-match": "*"}),
    "put suspended": put("/suspended/put"),
    "put a version": put("/versioned/put?versionId=null"),
    "put a tagging": put("/lanes/put?tagging"),
    "put with an sdk id": put("/lanes/put?x-id=PutObject"),
    "put of a part nowhere": put("/lanes/put?partNumber=1&uploadId=x"),
    "put with a part number alone": put("/lanes/put?partNumber=1"),
}
TRAILER = {"x-amz-trailer": "x-amz-checksum-crc32"}
VALUE = {"x-amz-checksum-crc32": crc32(BODY)}
WRONG = {"x-amz-checksum-crc32": "AAAAAA=="}
CHUNKED: dict[str, Case] = {
    "signed": chunked("signed", BODY),
    "signed in two": chunked("signed", PIECES[:65_536], PIECES[65_536:100_000]),
    "signed of nothing": chunked("signed"),
    "signed in pieces": chunked("signed", PIECES[:65_536], PIECES[:1000], cuts=(-3, 1, 87, 30_000)),
    "signed expecting": chunked("signed", PIECES[:65_536], PIECES[:1000], expects=True),
    "signed with a checksum": chunked("signed", BODY, headers=VALUE),
    "signed with a wrong checksum": chunked("signed", BODY, headers=WRONG),
    "signed, changed": chunked("signed", BODY, tamper=swapped(BODY, BODY[::-1])),
    "signed, no chunk signature": chunked("signed", BODY, tamper=swapped(b"chunk-signature=", b"chunk-signaturf=")),
    "signed, another length": chunked("signed", BODY, headers={"x-amz-decoded-content-length": "5"}),
    "signed, a longer length": chunked("signed", BODY, headers={"x-amz-decoded-content-length": "500"}),
    "signed, no length": chunked("signed", BODY, headers={"x-amz-decoded-content-length": "x"}),
    "signed, a broken chunk": chunked("signed", BODY, tamper=swapped(b"\r\n\r\nb;", b"\r\n\r\ng;")),
    "signed, encoding": chunked("signed", BODY, headers={"content-encoding": "aws-chunked,gzip"}),
    "signed trailer": chunked("signed trailer", BODY, headers=TRAILER, trailers=VALUE),
    "signed trailer, wrong": chunked("signed trailer", BODY, headers=TRAILER, trailers=WRONG),
    "signed trailer, missing": chunked("signed trailer", BODY, headers=TRAILER),
    "signed trailer, changed": chunked(
        "signed trailer", BODY, headers=TRAILER, trailers=VALUE, tamper=lambda data: data[:-5] + b"0\r\n\r\n"
    ),
    "unsigned trailer": chunked("unsigned trailer", BODY, headers=TRAILER, trailers=VALUE),
    "unsigned trailer in two": chunked(
        "unsigned trailer", BODY[:5], BODY[5:], headers=TRAILER, trailers=VALUE, expects=True
    ),
    "unsigned trailer, wrong": chunked("unsigned trailer", BODY, headers=TRAILER, trailers=WRONG),
    "unsigned trailer, missing": chunked("unsigned trailer", BODY, headers=TRAILER),
    "unsigned trailer, not promised": chunked("unsigned trailer", BODY, trailers=VALUE),
    "unsigned trailer, another": chunked(
        "unsigned trailer", BODY, headers={"x-amz-trailer": "x-amz-checksum-sha1"}, trailers=VALUE
    ),
    "unsigned trailer, unknown": chunked(
        "unsigned trailer", BODY, headers={"x-amz-trailer": "x-amz-checksum-md7"}, trailers=VALUE
    ),
    "unsigned trailer and a header": chunked("unsigned trailer", BODY, headers=TRAILER | VALUE, trailers=VALUE),
    "unsigned without a trailer": chunked("unsigned trailer", BODY),
    "wrong chunk and no bucket": Case(
        "PUT", "/absent/put", payload="signed", chunks=(BODY,), tamper=swapped(BODY, BODY[::-1])
    ),
    "wrong chunk and a failed condition": chunked(
        "signed", BODY, headers={"if-match": '"0"'}, before=b"before", tamper=swapped(BODY, BODY[::-1])
    ),
    "wrong chunk and a refused header": chunked(
        "signed", BODY, headers={"if-none-match": '"0"'}, tamper=swapped(BODY, BODY[::-1])
    ),
    "wrong chunk and metadata too large": chunked(
        "signed", BODY, headers={"x-amz-meta-a": "v" * 2100}, tamper=swapped(BODY, BODY[::-1])
    ),
    "wrong trailer and a failed condition": chunked(
        "unsigned trailer", BODY, headers=TRAILER | {"if-match": '"0"'}, trailers=WRONG, before=b"before"
    ),
    "missing trailer and a failed condition": chunked(
        "unsigned trailer", BODY, headers=TRAILER | {"if-match": '"0"'}, before=b"before"
    ),
    "missing trailer and a wrong MD5": chunked(
        "unsigned trailer", BODY, headers=TRAILER | {"content-md5": digest("md5", b"")}
    ),
    "short body and a broken MD5": chunked(
        "signed", BODY, headers={"x-amz-decoded-content-length": "500", "content-md5": "nonsense"}
    ),
}
DELETES: dict[str, Case] = {
    "delete": Case("DELETE", "/lanes/put", before=b"before"),
    "delete nothing": Case("DELETE", "/lanes/put"),
    "delete if-match": Case("DELETE", "/lanes/put", {"if-match": '"0"'}, before=b"before"),
    "delete versioned": Case("DELETE", "/versioned/put", before=b"before"),
}
CORPUS: dict[str, Case] = {**READS, **PROOFS, **PUTS, **{f"chunked {n}": c for n, c in CHUNKED.items()}, **DELETES}

"""The network backend: a node's S3 endpoint, signed requests, the same errors as the embedded store raises."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode

import aiohttp
from defusedxml import ElementTree

from edgestore import errors
from edgestore.answers import date_ms, error_of, row_of, text_of
from edgestore.clock import Clock, SystemClock
from edgestore.records import Condition, IfAbsent
from edgestore.security import sign_headers
from edgestore.store_types import SYSTEM_HEADERS, Page, Version, shown_text, wire_text

MIB = 1024 * 1024
PART_BYTES = 8 * MIB
PARTS_MAX = 10_000
ATTEMPTS = 4
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)


class _Counted:
    """Passes pieces on and counts their bytes."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces, self.size_bytes = pieces, 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._pieces)
        self.size_bytes += len(piece)
        return piece


class RemoteBackend:
    """`Backend` over HTTP. `connector` where the way to the node is not a plain connection; it is closed with this."""

    def __init__(
        self,
        url: str,
        access_key: str,
        secret_key: str,
        *,
        region: str = "us-east-1",
        clock: Clock | None = None,
        connector: aiohttp.BaseConnector | None = None,
    ) -> None:
        self._url, self._access_key, self._secret_key = url.rstrip("/"), access_key, secret_key
        self.region, self._clock, self._connector = region, clock or SystemClock(), connector
        self._session: aiohttp.ClientSession | None = None

    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> aiohttp.ClientResponse:
        """One signed request; asked again where that is safe. Raises errors of the tree."""
        query, headers = query or {}, headers or {}
        again = _is_repeatable(method, query, headers)
        for attempt in range(ATTEMPTS):
            try:
                return await self._send(method, path, query, headers, body)
            except (aiohttp.ClientError, TimeoutError) as error:
                if not again or attempt == ATTEMPTS - 1:
                    raise errors.Unavailable(f"{self._url} does not answer ({error}): try again") from error
            except errors.InvalidCredentials as error:
                if attempt == ATTEMPTS - 1 or not self._learn_region(error):
                    raise
                continue
            except errors.BadRequest:
                if method != "HEAD" or attempt or not await self._ask_for_region():
                    raise
                continue
            except errors.Unavailable as error:
                refused = isinstance(error, errors.TooBusy)  # before anything was done
                if isinstance(error, errors.StorageFull) or not (again or refused) or attempt == ATTEMPTS - 1:
                    raise
            await asyncio.sleep(0.1 * 2**attempt)
        raise AssertionError("every attempt returns or raises")

    def _learn_region(self, error: errors.EdgeStoreError) -> bool:
        """Whether the node named another region than the one signed for; it is used from now on."""
        region, before = str(error.fields.get("region") or ""), self.region
        self.region = region or before
        return self.region != before

    async def _ask_for_region(self) -> bool:
        """The refusal of a HEAD says nothing: that of another request does."""
        before = self.region
        with suppress(errors.EdgeStoreError):
            await self.list_buckets()
        return self.region != before

    async def _document(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Any:
        """The XML that answers a request. Raises errors of the tree."""
        return await self._parsed(await self._request(method, path, query, headers=headers, body=body))

    async def _parsed(self, response: aiohttp.ClientResponse) -> Any:
        try:
            document = await response.read()
            root = ElementTree.fromstring(document)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise errors.Unavailable(f"the answer was cut short ({error}): try again") from error
        except ElementTree.ParseError as error:
            raise errors.EdgeStoreError(f"{self._url} answers what is no S3 document ({error})") from error
        finally:
            response.release()
        if root.tag == "Error":  # completing an upload may fail behind the 200
            raise error_of(response.method, 500, document)
        return root

    async def _send(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector,
                timeout=TIMEOUT,
                auto_decompress=False,
                skip_auto_headers=("Accept-Encoding", "Content-Type"),
            )
        text = urlencode(query, quote_via=quote, safe="-_.~")
        url = f"{self._url}{quote(path, safe='/-_.~')}{'?' + text if text else ''}"
        signed = sign_headers(
            method,
            url,
            headers,
            access_key=self._access_key,
            secret_key=self._secret_key,
            region=self.region,
            now_ms=self._clock.wall_ms(),
            payload=hashlib.sha256(body).hexdigest(),
        )
        response = await self._session.request(
            method, _encoded(url), headers=signed, data=io.BytesIO(body) if method in ("PUT", "POST") else None
        )
        if response.status < 300:
            return response
        document = await response.read()
        response.release()
        raise error_of(method, response.status, document)

    async def create_bucket(self, name: str) -> None:
        """See Backend."""
        (await self._request("PUT", f"/{name}")).release()

    async def delete_bucket(self, name: str) -> None:
        """See Backend."""
        (await self._request("DELETE", f"/{name}")).release()

    async def list_buckets(self) -> list[str]:
        """See Backend."""
        root = await self._document("GET", "/")
        return sorted(text_of(row, "Name") for row in root.findall(".//{*}Bucket"))

    async def put(
        self,
        bucket: str,
        key: str,
        pieces: AsyncIterator[bytes],
        size_bytes: int | None,
        *,
        metadata: dict[str, str],
        headers: dict[str, str],
        condition: Condition,
    ) -> Version:
        """See Backend. A body over 8 MiB goes as a multipart upload."""
        sent = {name.lower(): value for name, value in headers.items()}
        sent |= {f"x-amz-meta-{name}": value for name, value in metadata.items()}
        path, counted = f"/{bucket}/{key}", _Counted(pieces)
        parts = _parts(counted, size_bytes)
        first = await anext(parts, b"")
        second = await anext(parts, None)
        if second is None:
            response = await self._request("PUT", path, headers={**sent, **_condition(condition)}, body=first)
            response.release()
            answer: Mapping[str, str] = response.headers
            etag = answer["ETag"]
        else:
            etag, answer = await self._put_parts(path, sent, _condition(condition), _chain(first, second, parts))
        return Version(  # out of this answer: by now another version may be the current one
            key,
            answer.get("x-amz-version-id", "null"),
            etag.strip('"'),
            counted.size_bytes,
            date_ms(answer["Date"]),
            metadata=metadata,
            headers=headers,
        )

    async def _put_parts(
        self, path: str, sent: dict[str, str], condition: dict[str, str], parts: AsyncIterator[bytes]
    ) -> tuple[str, Mapping[str, str]]:
        """(ETag, headers of the answer)."""
        upload = text_of(await self._document("POST", path, {"uploads": ""}, headers=sent), "UploadId")
        try:
            rows, number = [], 0
            async for part in parts:
                number += 1
                query = {"partNumber": str(number), "uploadId": upload}
                done = await self._request("PUT", path, query, body=part)
                done.release()
                rows.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{done.headers['ETag']}</ETag></Part>")
            document = f"<CompleteMultipartUpload>{''.join(rows)}</CompleteMultipartUpload>".encode()
            finished = await self._request("POST", path, {"uploadId": upload}, headers=condition, body=document)
            return text_of(await self._parsed(finished), "ETag"), finished.headers
        except BaseException:
            with suppress(errors.EdgeStoreError):  # what went wrong first is what the caller must hear
                (await self._request("DELETE", path, {"uploadId": upload})).release()
            raise

    async def head(self, bucket: str, key: str, version_id: str | None, *, local: bool) -> Version:
        """See Backend."""
        query = {"versionId": version_id} if version_id else {}
        try:
            response = await self._request("HEAD", f"/{bucket}/{key}", query, headers=_consistency(local))
        except errors.NoSuchKey as error:
            await self._require_bucket(bucket, local)
            if version_id:
                raise errors.NoSuchVersion(f"{key!r} has no version {version_id!r}", key=key) from error
            raise errors.NoSuchKey("the key has no current version", key=key) from error
        response.release()
        given = {name.lower(): shown_text(wire_text(value)) for name, value in response.headers.items()}
        return Version(
            key,
            given.get("x-amz-version-id", "null"),
            given["etag"].strip('"'),
            int(given["content-length"]),
            date_ms(given["last-modified"]),
            metadata={name[11:]: value for name, value in given.items() if name.startswith("x-amz-meta-")},
            headers={name: given[name.lower()] for name in SYSTEM_HEADERS if name.lower() in given},
        )

    async def _require_bucket(self, bucket: str, local: bool) -> None:
        """The answer to a HEAD says 404 and not of what: this tells. Raises NoSuchBucket."""
        try:
            (await self._request("HEAD", f"/{bucket}", headers=_consistency(local))).release()
        except errors.NoSuchKey as error:
            raise errors.NoSuchBucket(f"there is no bucket {bucket!r}", bucket=bucket) from error

    async def read(
        self, bucket: str, version: Version, offset: int, length: int, *, local: bool
    ) -> AsyncIterator[bytes]:
        """See Backend."""
        if length <= 0:
            return
        headers = {"range": f"bytes={offset}-{offset + length - 1}", "if-match": f'"{version.etag}"'}
        headers |= _consistency(local)
        query = {"versionId": version.version_id} if version.version_id != "null" else {}
        response = await self._request("GET", f"/{bucket}/{version.key}", query, headers=headers)
        try:
            async for piece in response.content.iter_chunked(1 << 20):
                yield piece
        except aiohttp.ClientError as error:
            raise errors.Unavailable(f"the answer was cut short ({error}): read the rest again") from error
        finally:
            response.release()

    async def delete(self, bucket: str, key: str, version_id: str | None, condition: Condition) -> str:
        """See Backend."""
        query = {"versionId": version_id} if version_id else {}
        response = await self._request("DELETE", f"/{bucket}/{key}", query, headers=_condition(condition))
        response.release()
        return response.headers.get("x-amz-version-id", "")

    async def list_page(self, bucket: str, prefix: str, token: str, *, local: bool) -> Page:
        """See Backend."""
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        if token:
            query["continuation-token"] = token
        root = await self._document("GET", f"/{bucket}", query, headers=_consistency(local))
        found = [row_of(row) for row in root if row.tag.endswith("}Contents")]
        return Page(found, text_of(root, "NextContinuationToken"))

    async def versions_page(self, bucket: str, prefix: str, token: str, *, local: bool) -> Page:
        """See Backend."""
        key, _, version = token.rpartition("\n")
        query = {"versions": "", "prefix": prefix, "encoding-type": "url"}
        if token:
            query |= {"key-marker": key, "version-id-marker": version}
        root = await self._document("GET", f"/{bucket}", query, headers=_consistency(local))
        found = [row_of(row) for row in root if row.tag.endswith(("}Version", "}DeleteMarker"))]
        if text_of(root, "IsTruncated") != "true":
            return Page(found)
        return Page(found, f"{unquote_plus(text_of(root, 'NextKeyMarker'))}\n{text_of(root, 'NextVersionIdMarker')}")

    async def close(self) -> None:
        """See Backend."""
        if self._session is not None:
            await self._session.close()
        elif self._connector is not None:
            await self._connector.close()


def _encoded(url: str) -> Any:
    from yarl import URL

    return URL(url, encoded=True)


def _is_repeatable(method: str, query: dict[str, str], headers: dict[str, str]) -> bool:
    """Whether asking twice leaves what asking once leaves. A lost answer to a conditional write would come back as a
    failed condition; completing an upload or writing a delete marker twice differs too."""
    if method in ("GET", "HEAD"):
        return True
    if method == "PUT":
        return "if-none-match" not in headers and "if-match" not in headers
    return method == "DELETE" and "uploadId" in query


def _consistency(local: bool) -> dict[str, str]:
    return {"x-edgestore-consistency": "local"} if local else {}


def _condition(condition: Condition) -> dict[str, str]:
    if condition is None:
        return {}
    if isinstance(condition, IfAbsent):
        return {"if-none-match": "*"}
    return {"if-match": condition.etag if condition.etag == "*" else f'"{condition.etag}"'}


async def _parts(pieces: AsyncIterator[bytes], size_bytes: int | None) -> AsyncIterator[bytes]:
    """Pieces in runs of the size of their part, the last one shorter."""
    buffer, number = bytearray(), 1
    async for piece in pieces:
        buffer += piece
        while len(buffer) >= (part := part_bytes(size_bytes, number)):
            yield bytes(buffer[:part])
            del buffer[:part]
            number += 1
    if buffer:
        yield bytes(buffer)


def part_bytes(size_bytes: int | None, number: int) -> int:
    """How long a part is, so that 10,000 of them hold the largest object: all the same where the size is known, and
    doubled every 800 parts, up to 1 GiB, where it is not."""
    if size_bytes is not None:
        return max(PART_BYTES, -(-size_bytes // (PARTS_MAX * MIB)) * MIB)
    return PART_BYTES << min(7, (number - 1) // 800)


async def _chain(first: bytes, second: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    yield second
    async for part in rest:
        yield part

"""The network backend: a node's S3 endpoint, signed requests, the same errors as the embedded store raises."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode

import aiohttp
from defusedxml import ElementTree

from edgestore import errors
from edgestore.clock import Clock, SystemClock
from edgestore.records import Condition, IfAbsent
from edgestore.security import sign_headers
from edgestore.store_types import SYSTEM_HEADERS, Page, Version, shown_text, wire_text

PART_BYTES = 8 * 1024 * 1024
ATTEMPTS = 4
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
CODES: dict[str, type[errors.EdgeStoreError]] = {
    "AccessDenied": errors.Denied,
    "BadDigest": errors.BadDigest,
    "BucketAlreadyExists": errors.BucketExists,
    "BucketAlreadyOwnedByYou": errors.BucketExists,
    "BucketNotEmpty": errors.BucketNotEmpty,
    "EntityTooLarge": errors.TooLarge,
    "InsufficientStorage": errors.StorageFull,
    "InvalidAccessKeyId": errors.InvalidCredentials,
    "InvalidBucketName": errors.InvalidName,
    "InvalidPart": errors.InvalidPart,
    "InvalidRange": errors.InvalidRange,
    "KeyTooLongError": errors.TooLarge,
    "NoSuchBucket": errors.NoSuchBucket,
    "NoSuchKey": errors.NoSuchKey,
    "NoSuchUpload": errors.NoSuchUpload,
    "NoSuchVersion": errors.NoSuchVersion,
    "NotImplemented": errors.NotSupported,
    "PreconditionFailed": errors.PreconditionFailed,
    "SignatureDoesNotMatch": errors.InvalidCredentials,
    "SlowDown": errors.TooBusy,
}
STATUSES: dict[int, type[errors.EdgeStoreError]] = {
    403: errors.Denied,
    404: errors.NoSuchKey,
    409: errors.Conflict,
    412: errors.PreconditionFailed,
    416: errors.InvalidRange,
    503: errors.Unavailable,
    507: errors.StorageFull,
}


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
        self._region, self._clock, self._connector = region, clock or SystemClock(), connector
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
            except errors.Unavailable as error:
                refused = isinstance(error, errors.TooBusy)  # before anything was done
                if isinstance(error, errors.StorageFull) or not (again or refused) or attempt == ATTEMPTS - 1:
                    raise
            await asyncio.sleep(0.1 * 2**attempt)
        raise AssertionError("every attempt returns or raises")

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
        response = await self._request(method, path, query, headers=headers, body=body)
        try:
            return ElementTree.fromstring(await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise errors.Unavailable(f"the answer was cut short ({error}): try again") from error
        except ElementTree.ParseError as error:
            raise errors.EdgeStoreError(f"{self._url} answers what is no S3 document ({error})") from error
        finally:
            response.release()

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
            region=self._region,
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
        raise _error(method, response.status, document)

    async def create_bucket(self, name: str) -> None:
        """See Backend."""
        (await self._request("PUT", f"/{name}")).release()

    async def delete_bucket(self, name: str) -> None:
        """See Backend."""
        (await self._request("DELETE", f"/{name}")).release()

    async def list_buckets(self) -> list[str]:
        """See Backend."""
        root = await self._document("GET", "/")
        return sorted(_text(row, "Name") for row in root.findall(".//{*}Bucket"))

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
        path, parts = f"/{bucket}/{key}", _parts(pieces)
        first = await anext(parts, b"")
        second = await anext(parts, None)
        if second is None:
            response = await self._request("PUT", path, headers={**sent, **_condition(condition)}, body=first)
            response.release()
            version_id = response.headers.get("x-amz-version-id")
        else:
            version_id = await self._put_parts(path, sent, _condition(condition), _chain(first, second, parts))
        return await self.head(bucket, key, version_id)

    async def _put_parts(
        self, path: str, sent: dict[str, str], condition: dict[str, str], parts: AsyncIterator[bytes]
    ) -> str | None:
        upload = _text(await self._document("POST", path, {"uploads": ""}, headers=sent), "UploadId")
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
            finished.release()
            return finished.headers.get("x-amz-version-id")
        except BaseException:
            with suppress(errors.EdgeStoreError):  # what went wrong first is what the caller must hear
                (await self._request("DELETE", path, {"uploadId": upload})).release()
            raise

    async def head(self, bucket: str, key: str, version_id: str | None) -> Version:
        """See Backend."""
        query = {"versionId": version_id} if version_id else {}
        try:
            response = await self._request("HEAD", f"/{bucket}/{key}", query)
        except errors.NoSuchKey as error:
            await self._require_bucket(bucket)
            if version_id:
                raise errors.NoSuchVersion(f"{key!r} has no version {version_id!r}", key=key) from error
            raise errors.NoSuchKey("the key has no current version", key=key) from error
        response.release()
        given = {name.lower(): shown_text(wire_text(value)) for name, value in response.headers.items()}
        modified = parsedate_to_datetime(given["last-modified"])
        return Version(
            key,
            given.get("x-amz-version-id", "null"),
            given["etag"].strip('"'),
            int(given["content-length"]),
            int(modified.timestamp() * 1000),
            metadata={name[11:]: value for name, value in given.items() if name.startswith("x-amz-meta-")},
            headers={name: given[name.lower()] for name in SYSTEM_HEADERS if name.lower() in given},
        )

    async def _require_bucket(self, bucket: str) -> None:
        """The answer to a HEAD says 404 and not of what: this tells. Raises NoSuchBucket."""
        try:
            (await self._request("HEAD", f"/{bucket}")).release()
        except errors.NoSuchKey as error:
            raise errors.NoSuchBucket(f"there is no bucket {bucket!r}", bucket=bucket) from error

    async def read(self, bucket: str, version: Version, offset: int, length: int) -> AsyncIterator[bytes]:
        """See Backend."""
        if length <= 0:
            return
        headers = {"range": f"bytes={offset}-{offset + length - 1}", "if-match": f'"{version.etag}"'}
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

    async def list_page(self, bucket: str, prefix: str, token: str) -> Page:
        """See Backend."""
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        if token:
            query["continuation-token"] = token
        root = await self._document("GET", f"/{bucket}", query)
        found = [_row(row) for row in root if row.tag.endswith("}Contents")]
        return Page(found, _text(root, "NextContinuationToken"))

    async def versions_page(self, bucket: str, prefix: str, token: str) -> Page:
        """See Backend."""
        key, _, version = token.rpartition("\n")
        query = {"versions": "", "prefix": prefix, "encoding-type": "url"}
        if token:
            query |= {"key-marker": key, "version-id-marker": version}
        root = await self._document("GET", f"/{bucket}", query)
        found = [_row(row) for row in root if row.tag.endswith(("}Version", "}DeleteMarker"))]
        if _text(root, "IsTruncated") != "true":
            return Page(found)
        return Page(found, f"{unquote_plus(_text(root, 'NextKeyMarker'))}\n{_text(root, 'NextVersionIdMarker')}")

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


def _condition(condition: Condition) -> dict[str, str]:
    if condition is None:
        return {}
    if isinstance(condition, IfAbsent):
        return {"if-none-match": "*"}
    return {"if-match": condition.etag if condition.etag == "*" else f'"{condition.etag}"'}


def _error(method: str, status: int, document: bytes) -> errors.EdgeStoreError:
    code = message = ""
    with suppress(ElementTree.ParseError, ValueError):  # a proxy may answer in HTML
        root = ElementTree.fromstring(document)
        code, message = root.findtext("Code", ""), root.findtext("Message", "")
    if status == 405 and method in ("GET", "HEAD"):  # of a version: it exists and has nothing to read
        return errors.DeleteMarkerMethod("the version is a delete marker", code=code, status=status)
    kind = CODES.get(code) or STATUSES.get(status) or (errors.Unavailable if status >= 500 else errors.BadRequest)
    return kind(message or f"the node answered {status}", code=code, status=status)


def _text(root: Any, name: str) -> str:
    found = root.find(f"{{*}}{name}")
    return (found.text or "") if found is not None else ""


def _row(row: Any) -> Version:
    modified = datetime.fromisoformat(_text(row, "LastModified").replace("Z", "+00:00"))
    return Version(
        unquote_plus(_text(row, "Key")),
        _text(row, "VersionId") or "null",
        _text(row, "ETag").strip('"'),
        int(_text(row, "Size") or 0),
        int(modified.timestamp() * 1000),
        _text(row, "IsLatest") != "false",
        row.tag.endswith("}DeleteMarker"),
    )


async def _parts(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces in runs of 8 MiB, the last one shorter."""
    buffer = bytearray()
    async for piece in pieces:
        buffer += piece
        while len(buffer) >= PART_BYTES:
            yield bytes(buffer[:PART_BYTES])
            del buffer[:PART_BYTES]
    if buffer:
        yield bytes(buffer)


async def _chain(first: bytes, second: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    yield second
    async for part in rest:
        yield part

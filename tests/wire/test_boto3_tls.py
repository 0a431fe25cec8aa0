"""boto3 over TLS, where its checksums come as trailers of unsigned `aws-chunked` bodies; and virtual-host names."""

from __future__ import annotations

import datetime
import hashlib
import io
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess
from tests.wire.answers import refused

DOMAIN = "s3.localhost"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for the loopback address, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgestore test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName(DOMAIN), x509.DNSName(f"*.{DOMAIN}")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "cert.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path


@pytest.fixture(scope="module")
def make_tls_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(folder)
    node = NodeProcess(folder / "data", configuration=f'[s3]\ndomain = "{DOMAIN}"\n')
    node.arguments += ["--s3-cert", str(certificate), "--s3-key", str(key)]
    node.start()

    def make(host: str = "127.0.0.1", style: str = "path", **config: Any) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"https://{host}:{node.port}",
            verify=str(certificate),
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": style}, signature_version="s3v4", retries={"total_max_attempts": 1}, **config
            ),
        )

    yield make
    assert node.stop() == 0


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
@pytest.mark.parametrize("size", [0, 1, 5000, 131_072, 262_144, 3_000_001])
def test_trailing_checksums_are_checked_and_kept(
    make_tls_client: Callable[..., Any], algorithm: str, size: int
) -> None:
    s3 = make_tls_client()
    s3.create_bucket(Bucket="trailers")
    sent: list[dict[str, str]] = []
    s3.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(dict(request.headers)))
    body = os.urandom(size)
    put = s3.put_object(Bucket="trailers", Key="k", Body=io.BytesIO(body), ChecksumAlgorithm=algorithm)
    assert f"x-amz-checksum-{algorithm.lower()}" in str(sent[0]["X-Amz-Trailer"])
    answer = s3.get_object(Bucket="trailers", Key="k", ChecksumMode="ENABLED")
    assert answer["Body"].read() == body
    assert answer["Checksum" + algorithm] == put["Checksum" + algorithm]
    assert "ContentEncoding" not in answer


def test_transfer_manager_over_tls(make_tls_client: Callable[..., Any]) -> None:
    s3 = make_tls_client()
    s3.create_bucket(Bucket="large")
    body = os.urandom(20_000_001)
    s3.upload_fileobj(io.BytesIO(body), "large", "k")
    found = io.BytesIO()
    s3.download_fileobj("large", "k", found)
    assert hashlib.sha256(found.getvalue()).digest() == hashlib.sha256(body).digest()


def test_signed_chunks_over_tls_are_refused_for_another_secret(make_tls_client: Callable[..., Any]) -> None:
    s3 = make_tls_client()
    s3.create_bucket(Bucket="refused")
    other = boto3.client(
        "s3",
        endpoint_url=s3.meta.endpoint_url,
        verify=s3._endpoint.http_session._verify,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key="another secret",
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with refused(403, "SignatureDoesNotMatch"):
        other.put_object(Bucket="refused", Key="k", Body=io.BytesIO(b"x" * 200_000))
    assert "Contents" not in s3.list_objects_v2(Bucket="refused")


def test_virtual_host_names(make_tls_client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def resolve_here(host: str, *rest: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(DOMAIN) else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    s3 = make_tls_client(host=DOMAIN, style="virtual")
    s3.create_bucket(Bucket="by-name")
    for key in ("a/b ü", "by-name/k", "x" * 200):
        s3.put_object(Bucket="by-name", Key=key, Body=key.encode())
        assert s3.get_object(Bucket="by-name", Key=key)["Body"].read() == key.encode()
    assert len(s3.list_objects_v2(Bucket="by-name")["Contents"]) == 3
    assert "by-name" in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    assert make_tls_client().head_object(Bucket="by-name", Key="by-name/k")["ContentLength"] == 9

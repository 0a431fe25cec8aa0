"""Which lane serves what, with TLS and where the fast one is shut."""

from __future__ import annotations

import datetime
import socket
import ssl
import time
from pathlib import Path

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.web import StreamResponse
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgestore.chunks import Body
from edgestore.protocols.http import RequestHead, Response, unlaned
from edgestore.protocols.http import front as front_file
from tests.unit.http.served import Served, request


def test_lane_stays_shut_where_aiohttp_is_not_as_expected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loop: str
) -> None:
    """Another aiohttp, without what the lane needs and without its own way to wait for a slow reader."""
    monkeypatch.setattr(unlaned, "PRIVATE_NAMES", ("_waiter", "_no_such_name"))
    monkeypatch.delattr(BaseProtocol, "_drain_helper")
    monkeypatch.delattr(StreamResponse, "_eof_sent")
    assert front_file.missing_private_names() == ["_no_such_name"]
    served = Served("fast", loop=loop, write_buffer_max_bytes=65_536)
    assert [record.message for record in caplog.records] == ["fast-lane-shut missing=_no_such_name"]
    with served.connect() as client:
        for data in (request(), request("PUT", body=b"x" * 300_000), request(target="/big/1024")):
            client.send(data)
            assert client.answer().status == 200
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.send(request(target="/stream/8") + request(target="/behind"))
        time.sleep(0.3)
        assert len(client.answer().body) == 8 << 20
        assert client.answer().seen["path"] == "/behind"
    assert served.metrics.value("http_fast_lane_shut") == 1
    assert served.metrics.value("http_fast_requests_total") == 0
    served.close()


def test_routes_below_their_prefix_never_reach_the_service() -> None:
    async def ready(head: RequestHead, body: Body) -> Response:
        return Response(200, [], b"ready")

    served = Served("fast")
    served.front.route("/-/ready", ready)
    with served.connect() as client:
        for target, expected in (("/-/ready", 200), ("/-/other", 404), ("/-/", 404)):
            client.send(request(target=target))
            assert client.answer().status == expected
    assert served.echo.seen == []
    served.close()


def test_tls_serves_both_lanes(tmp_path: Path) -> None:
    context = certificate(tmp_path)
    served = Served("fast", tls=context)
    trust = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    client = served.connect()
    client.socket = trust.wrap_socket(client.socket, server_hostname="localhost")
    with client:
        for data in (
            request("PUT", body=b"x"),
            request("PUT", body=b"y" * 3_000_000),
            request("POST", body=b"z"),
            request(target="/stream/3"),
        ):
            client.send(data)
            assert client.answer().status == 200
    served.close()


def certificate(folder: Path) -> ssl.SSLContext:
    """A certificate for localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context

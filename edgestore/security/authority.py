"""The site's own certificate authority, and the certificates of its members. Pure.

Rule: Ed25519 throughout, and every key comes from the entropy that is handed in, so that a simulated site replays
exactly. A certificate names site and member in a URI (`edgestore:SITE:MEMBER`); how long it holds is judged by log time
(rule 14).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from edgestore.clock import Entropy
from edgestore.errors import BadRequest, Corrupt

AUTHORITY_LIFE_MS = 100 * 365 * 86_400_000
KEY_BYTES = 32
SERIAL_BYTES = 16
_EARLY = timedelta(days=1)
_SCHEME = "edgestore"


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate (DER) and the private key (PKCS 8, DER) that sign all others of a site."""

    certificate_der: bytes
    private_bytes: bytes


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says. `key_digest`: SHA-256 of the public key (SubjectPublicKeyInfo)."""

    site_id: bytes
    member: str
    key_digest: bytes
    not_after_ms: int


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """A request whose signature proves that the asker holds the key."""

    member: str
    public_key: Ed25519PublicKey
    key_digest: bytes


def new_key(entropy: Entropy) -> bytes:
    """A private key, as PKCS 8 in DER."""
    key = Ed25519PrivateKey.from_private_bytes(entropy(KEY_BYTES))
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(data: bytes) -> Ed25519PrivateKey:
    """The reverse of `new_key`. Raises Corrupt."""
    try:
        key = serialization.load_der_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise Corrupt(f"the private key does not load: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Corrupt("the private key is no Ed25519 key")
    return key


def new_authority(entropy: Entropy, site_id: bytes, now_ms: int) -> Authority:
    """Of a new site."""
    private_bytes = new_key(entropy)
    key = load_key(private_bytes)
    name = _name(f"edgestore {site_id.hex()}")
    builder = _builder(name, name, key.public_key(), now_ms, AUTHORITY_LIFE_MS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = builder.sign(key, None)
    return Authority(certificate.public_bytes(serialization.Encoding.DER), private_bytes)


def issue(
    authority: Authority, member: str, site_id: bytes, public_key: Ed25519PublicKey, now_ms: int, life_ms: int
) -> bytes:
    """The certificate of a member, in DER."""
    issuer = x509.load_der_x509_certificate(authority.certificate_der).subject
    name = x509.UniformResourceIdentifier(f"{_SCHEME}:{site_id.hex()}:{member}")
    builder = _builder(_name(member), issuer, public_key, now_ms, life_ms)
    builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    certificate = builder.sign(load_key(authority.private_bytes), None)
    return certificate.public_bytes(serialization.Encoding.DER)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: Ed25519PublicKey, now_ms: int, life_ms: int
) -> x509.CertificateBuilder:
    serial = hashlib.sha256(_spki(public_key) + now_ms.to_bytes(8, "big")).digest()[:SERIAL_BYTES]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(int.from_bytes(b"\x40" + serial[1:], "big"))
        .not_valid_before(_date(now_ms) - _EARLY)
        .not_valid_after(_date(now_ms + life_ms))
    )


def make_request(key: Ed25519PrivateKey, member: str) -> bytes:
    """Proof of possession: a certificate request (RFC 2986) in DER."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(member)).sign(key, None)
    return request.public_bytes(serialization.Encoding.DER)


def read_request(der: bytes) -> RequestFacts:
    """Raises BadRequest where the request is none, or was not signed by the key that it names."""
    try:
        request = x509.load_der_x509_csr(der)
        public_key = request.public_key()
        is_good = request.is_signature_valid
        member = str(request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    except (ValueError, IndexError) as error:
        raise BadRequest(f"the proof of the key does not check out: {error}") from error
    if not is_good or not isinstance(public_key, Ed25519PublicKey):
        raise BadRequest("the proof of the key does not check out")
    return RequestFacts(member, public_key, hashlib.sha256(_spki(public_key)).digest())


def read_certificate(der: bytes) -> CertificateFacts:
    """Raises Corrupt for what is no certificate of a member. Who signed it is not looked at here."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        public_key = certificate.public_key()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        scheme, site, member = names.get_values_for_type(x509.UniformResourceIdentifier)[0].split(":")
        site_id = bytes.fromhex(site)
    except (ValueError, IndexError, x509.ExtensionNotFound, UnsupportedAlgorithm) as error:
        raise Corrupt(f"the certificate names no member of a site: {error}") from error
    if scheme != _SCHEME or not isinstance(public_key, Ed25519PublicKey):
        raise Corrupt("the certificate names no member of a site")
    not_after_ms = int(certificate.not_valid_after_utc.timestamp() * 1000)
    return CertificateFacts(site_id, member, hashlib.sha256(_spki(public_key)).digest(), not_after_ms)


def authority_digest(certificate_der: bytes) -> bytes:
    """SHA-256 of the authority's public key: what a token names it by. Raises Corrupt for what is none."""
    try:
        public_key = x509.load_der_x509_certificate(certificate_der).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Corrupt(f"this is no certificate of an authority: {error}") from error
    if not isinstance(public_key, Ed25519PublicKey):
        raise Corrupt("the authority has no Ed25519 key")
    return hashlib.sha256(_spki(public_key)).digest()


def _spki(public_key: Ed25519PublicKey) -> bytes:
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)

"""TLS 1.3 both ways between nodes, and who the other side is.

Rule: the wall clock judges no certificate (rule 14): TLS checks the signature of the site's authority, and `rights_of`
what the certificate allows by log time. A joiner has no certificate yet, so a node lets those in who show none, and
gives them no rights.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgestore.errors import BadRequest, Corrupt, Denied
from edgestore.net.methods import Rights
from edgestore.security import CertificateFacts, authority_digest, load_key, read_certificate

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which `ssl` does not name."""


class Credentials:
    """This node's certificate and key, the site's authority, and the judge of those who call. `start`: random bytes
    that tell this start of the member from any other."""

    def __init__(self, rights_of: Callable[[CertificateFacts], Rights]) -> None:
        self._rights_of = rights_of
        self.certificate = self.authority = self.start = b""
        self.key: Ed25519PrivateKey
        self.facts: CertificateFacts
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether this node has a certificate."""
        return bool(self.certificate)

    def load(self, key: bytes, certificate: bytes, authority: bytes) -> None:
        """DER of the private key (PKCS 8), of its certificate, and of the authority's."""
        self.key, self.authority = load_key(key), authority
        self.replace(certificate)

    def replace(self, certificate: bytes) -> None:
        """A renewed certificate: connections made from now on show it."""
        self.facts, self.certificate = read_certificate(certificate), certificate
        self._server = self._client = None

    def rights_of(self, certificate: bytes) -> tuple[str, Rights]:
        """(member, what it may do) of who shows this certificate; nobody's is empty. Its signature was checked."""
        if not certificate:
            return "", Rights.NONE
        try:
            facts = read_certificate(certificate)
        except Corrupt:
            return "", Rights.NONE
        if facts.site_id != self.facts.site_id:
            return "", Rights.NONE
        return facts.member, self._rights_of(facts)

    def server_context(self) -> ssl.SSLContext:
        """For those who call."""
        if self._server is None:
            self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._server.verify_mode = ssl.CERT_OPTIONAL
            self._server.num_tickets = 0  # every connection proves its certificate
            self._prepare(self._server)
        return self._server

    def client_context(self) -> ssl.SSLContext:
        """For calling members; a node without a certificate calls as a stranger, whom nobody has checked."""
        if not self.is_loaded:
            return stranger_context()
        if self._client is None:
            self._client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._client.check_hostname = False
            self._client.verify_mode = ssl.CERT_REQUIRED
            self._prepare(self._client)
        return self._client

    def _prepare(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | NO_CHECK_TIME)
        context.load_verify_locations(cadata=self.authority)
        chain = x509.load_der_x509_certificate(self.certificate).public_bytes(serialization.Encoding.PEM)
        private = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        descriptor = os.memfd_create("credentials")  # `ssl` takes them from files only; these never reach a disk
        try:
            os.write(descriptor, private + chain)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)


def stranger_context() -> ssl.SSLContext:
    """For a joiner: who answers is judged by `check_authority`, before anything is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_is_node(address: str, certificate: bytes) -> None:
    """Whether what listens there is a node of whatever site. Raises BadRequest: asking it again would not help."""
    try:
        read_certificate(certificate)
    except Corrupt as error:
        message = f"{address} is not a mesh address: what answers there is no node (is it the S3 address?)"
        raise BadRequest(message) from error


def check_authority(authority: bytes, digest: bytes, certificate: bytes) -> None:
    """Whether `authority` is the one that `digest` (SHA-256 of its public key) names, and has signed `certificate`,
    which the other side has just proved to hold. Raises Denied."""
    try:
        found = authority_digest(authority)
        leaf = x509.load_der_x509_certificate(certificate)
        if found == digest:
            public_key = x509.load_der_x509_certificate(authority).public_key()
            public_key.verify(leaf.signature, leaf.tbs_certificate_bytes)  # type: ignore[union-attr,call-arg]
            return
    except (Corrupt, ValueError, TypeError, AttributeError, InvalidSignature) as error:
        raise Denied("the node that answered does not belong to the site of the token") from error
    raise Denied("the node that answered belongs to another site than the token: ask a member for a new one")

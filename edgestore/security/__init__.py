"""Who asks and whether the request is what was signed (AWS Signature Version 4, checked and made), and who a node is
(the site's authority and its certificates). Pure.

Certificates are loaded when they are first asked for: a lone node and a client have none.
"""

from typing import TYPE_CHECKING

from edgestore.later import later
from edgestore.security.chunked import ChunkedDecoder
from edgestore.security.signer import presign_url, sign_headers
from edgestore.security.sigv4 import Claim, SignedRequest, SigningLimits, Verified, read_plain_presign, verify_request

if TYPE_CHECKING:
    from edgestore.security.authority import (
        Authority,
        CertificateFacts,
        RequestFacts,
        authority_digest,
        issue,
        load_key,
        make_request,
        new_authority,
        new_key,
        read_certificate,
        read_request,
    )
else:
    __getattr__ = later(
        __name__,
        {
            "authority": (
                "Authority",
                "CertificateFacts",
                "RequestFacts",
                "authority_digest",
                "issue",
                "load_key",
                "make_request",
                "new_authority",
                "new_key",
                "read_certificate",
                "read_request",
            )
        },
    )

__all__ = [
    "Authority",
    "CertificateFacts",
    "ChunkedDecoder",
    "Claim",
    "RequestFacts",
    "SignedRequest",
    "SigningLimits",
    "Verified",
    "authority_digest",
    "issue",
    "load_key",
    "make_request",
    "new_authority",
    "new_key",
    "presign_url",
    "read_certificate",
    "read_plain_presign",
    "read_request",
    "sign_headers",
    "verify_request",
]

"""Who asks and whether the request is what was signed: AWS Signature Version 4, checked and made. Pure."""

from edgestore.security.chunked import ChunkedDecoder
from edgestore.security.signer import presign_url, sign_headers
from edgestore.security.sigv4 import SignedRequest, SigningLimits, Verified, read_plain_presign, verify_request

__all__ = [
    "ChunkedDecoder",
    "SignedRequest",
    "SigningLimits",
    "Verified",
    "presign_url",
    "read_plain_presign",
    "sign_headers",
    "verify_request",
]

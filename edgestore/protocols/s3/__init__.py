"""The S3 face: bytes of HTTP requests to calls of the object service and back.

`S3Protocol` is what the front is given. Behind it: the operation table (`operations`), one file per family of
operations, the pure parts (`addressing`, `conditions`, `ranges`, `checksums`, `headers`, `xml`), and the table of
errors (`faults`).
"""

from edgestore.protocols.s3.protocol import S3Protocol

__all__ = ["S3Protocol"]

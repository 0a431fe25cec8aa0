"""What tests ask of a refused request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from botocore.exceptions import ClientError


@contextmanager
def refused(status: int, code: str | None = None) -> Iterator[None]:
    """Passes when the block is refused with this status and code."""
    with pytest.raises(ClientError) as failed:
        yield
    response = failed.value.response
    found = (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"])
    assert found == (status, code if code is not None else found[1]), response

"""Rule 9 and what happens without it: operation ids are applied once, and log time never goes back."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from unittest import mock

import pytest

from edgestore.catalog import apply, commands, list_versions
from edgestore.catalog.memory import OperationMemory
from edgestore.records import Versioning
from tests.unit.catalog.site import Site, inline, put

BOTH = pytest.mark.parametrize("broken", [False, True], ids=["with the rule", "without it"])


@BOTH
def test_an_operation_that_is_proposed_twice_is_applied_once(broken: bool) -> None:
    site = Site()
    bucket = site.bucket()
    site.do(commands.SetVersioning(bucket.bucket_id, Versioning.ENABLED))
    operation = site.operation(put(bucket, "key", inline(b"body")))
    payload = commands.encode_entry(commands.Entry(1, 0, 0, site.time_ms, (operation,)))
    rule: AbstractContextManager[object] = nullcontext()
    if broken:
        rule = mock.patch.object(OperationMemory, "is_known", lambda self, context, operation: False)
    with rule:
        for _ in range(2):
            site.applier.apply(site.applier.applied_index + 1, 1, payload)
    once = len(list_versions(site.state, bucket).entries) == 1
    assert once is not broken


@BOTH
def test_log_time_never_goes_back(broken: bool) -> None:
    """A leader whose clock is behind carries nothing that has expired back to life."""
    site = Site()
    before_ms = site.applier.site.log_time_ms
    rule: AbstractContextManager[object] = nullcontext()
    if broken:
        rule = mock.patch.object(apply, "max", lambda entry_ms, site_ms: entry_ms, create=True)
    with rule:
        payload = commands.encode_entry(commands.Entry(1, 0, 0, before_ms - 60_000, ()))
        site.applier.apply(site.applier.applied_index + 1, 1, payload)
    kept = site.applier.site.log_time_ms >= before_ms
    assert kept is not broken

"""The overlay of a log entry reads its own writes, in scans too."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgestore.catalog.view import Transaction
from tests.unit.catalog.site import MemoryStore

KEYS = st.binary(max_size=2, min_size=1).map(lambda key: bytes(byte % 4 for byte in key))
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "keep", "forget", "get", "scan"]), KEYS, KEYS), max_size=40
)


@given(st.sets(KEYS, max_size=6), STEPS)
def test_transaction_reads_like_a_dict_that_was_changed(
    stored: set[bytes], steps: list[tuple[str, bytes, bytes]]
) -> None:
    store = MemoryStore()
    store.write([(key, b"stored") for key in stored])
    transaction = Transaction(store)
    kept: dict[bytes, bytes] = dict(store.rows)
    running = dict(kept)
    for turn, (step, key, other) in enumerate(steps):
        if step == "put":
            transaction.put(key, b"%d" % turn)
            running[key] = b"%d" % turn
        elif step == "delete":
            transaction.delete(key)
            running.pop(key, None)
        elif step == "keep":
            transaction.keep()
            kept = dict(running)
        elif step == "forget":
            transaction.forget()
            running = dict(kept)
        elif step == "get":
            assert transaction.get(key) == running.get(key)
        else:
            expected = sorted((at, value) for at, value in running.items() if key <= at < other)
            assert list(transaction.scan(key, other)) == expected
    transaction.forget()
    store.write(list(transaction.changes.items()))
    assert dict(store.rows) == kept


def test_scan_is_not_disturbed_by_changes_made_meanwhile() -> None:
    store = MemoryStore()
    transaction = Transaction(store)
    for number in range(4):
        transaction.put(b"%d" % number, b"value")
    transaction.keep()
    seen = []
    for key, _ in transaction.scan(b"0", b"9"):
        transaction.delete(key)
        transaction.put(key + b"x", b"new")
        seen.append(key)
    assert seen == [b"0", b"1", b"2", b"3"]

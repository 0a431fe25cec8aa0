"""Everything that touches the disk: files, the ordered index, the journal, the segments, the node's identity."""

from edgestore.disk.files import File, Files, SystemFiles, Worker
from edgestore.disk.index import OrderedStore, RocksIndex
from edgestore.disk.journal import Journal
from edgestore.disk.journal_frames import JournalRecord, RecordKind

__all__ = [
    "File",
    "Files",
    "Journal",
    "JournalRecord",
    "OrderedStore",
    "RecordKind",
    "RocksIndex",
    "SystemFiles",
    "Worker",
]

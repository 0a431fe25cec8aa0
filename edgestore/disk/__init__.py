"""Everything that touches the disk: files, the ordered index, the journal, the segments."""

from edgestore.disk.compaction import compact
from edgestore.disk.files import File, Files, Lock
from edgestore.disk.fragments import FragmentInfo
from edgestore.disk.fragments import Unit as FragmentUnit
from edgestore.disk.identity import Identity, open_identity
from edgestore.disk.index import OrderedStore, RocksIndex
from edgestore.disk.journal import Journal
from edgestore.disk.journal_frames import JournalRecord, RecordKind
from edgestore.disk.journal_recovery import recover, salvage_records
from edgestore.disk.scrubber import Scrubber, ScrubReport, scrub
from edgestore.disk.segment_scan import SegmentFile, open_segments
from edgestore.disk.segment_writer import FragmentWriter
from edgestore.disk.segments import Segments
from edgestore.disk.system_files import SystemFiles
from edgestore.disk.workers import Worker

__all__ = [
    "File",
    "Files",
    "FragmentInfo",
    "FragmentUnit",
    "FragmentWriter",
    "Identity",
    "Journal",
    "JournalRecord",
    "Lock",
    "OrderedStore",
    "RecordKind",
    "RocksIndex",
    "ScrubReport",
    "Scrubber",
    "SegmentFile",
    "Segments",
    "SystemFiles",
    "Worker",
    "compact",
    "open_identity",
    "open_segments",
    "recover",
    "salvage_records",
    "scrub",
]

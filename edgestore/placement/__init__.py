"""Which nodes own which fragments, and how many there are: pure functions of a layout and a chunk id."""

from edgestore.placement.owners import (
    NOBODY,
    QUALITY_POOR,
    Placement,
    Places,
    is_counted,
    is_storage,
    may_hold,
)
from edgestore.placement.partitions import PARTITIONS, partition_of
from edgestore.placement.schemes import (
    FRAGMENTS_MAX,
    TOLERATE_MAX,
    Scheme,
    copies_for,
    default_scheme,
    default_tolerance,
    parse_scheme,
    scheme_for,
    wanted_tolerance,
)

__all__ = [
    "FRAGMENTS_MAX",
    "NOBODY",
    "PARTITIONS",
    "QUALITY_POOR",
    "TOLERATE_MAX",
    "Placement",
    "Places",
    "Scheme",
    "copies_for",
    "default_scheme",
    "default_tolerance",
    "is_counted",
    "is_storage",
    "may_hold",
    "parse_scheme",
    "partition_of",
    "scheme_for",
    "wanted_tolerance",
]

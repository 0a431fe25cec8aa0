"""Logs and the one table of metrics. Rooms count plain integers; Prometheus collects them when it asks.

Rule: a metric that is not in the table does not exist; names are `<room>_<what>_<unit>`, here prefixed `edgestore_`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TextIO

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry


class Kind(Enum):
    """What a metric is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One row of the table."""

    name: str
    kind: Kind
    help: str
    bounds: tuple[float, ...] = ()


SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec("disk_journal_syncs_total", Kind.COUNTER, "Group fdatasyncs of the journal."),
    MetricSpec("disk_segment_syncs_total", Kind.COUNTER, "Group fdatasyncs of segments."),
    MetricSpec("disk_free_bytes", Kind.GAUGE, "Bytes that the disk of the data folder still takes."),
    MetricSpec("disk_corrupt_pages_total", Kind.COUNTER, "Pages that did not check out when read or scrubbed."),
    MetricSpec("disk_damaged_fragments_total", Kind.COUNTER, "Fragments that scrub or compaction found damaged."),
    MetricSpec("disk_compacted_bytes_total", Kind.COUNTER, "Live bytes moved out of mostly dead segments."),
    MetricSpec("disk_scrubbed_bytes_total", Kind.COUNTER, "Bytes checked by the scrub."),
    MetricSpec("net_refused_total", Kind.COUNTER, "Connections of other nodes that were refused or cut off."),
    MetricSpec("net_timeouts_total", Kind.COUNTER, "Connections of other nodes that were silent or too slow."),
    MetricSpec("net_rival_messages_total", Kind.COUNTER, "Messages of members of which two starts were connected."),
    MetricSpec("consensus_entries_total", Kind.COUNTER, "Log entries applied."),
    MetricSpec("meta_operations_total", Kind.COUNTER, "Catalog operations applied."),
    MetricSpec("meta_flushes_total", Kind.COUNTER, "Flushes of the catalog, each followed by a trim of the journal."),
    MetricSpec("meta_proposals_waiting", Kind.GAUGE, "Operations that wait for their commit."),
    MetricSpec("chunks_reclaimed_total", Kind.COUNTER, "Chunks whose fragments were deleted."),
    MetricSpec("chunks_housekeeping_failures_total", Kind.COUNTER, "Sweeps, reclaims and compactions that failed."),
    MetricSpec("repair_extents_total", Kind.COUNTER, "Extents that were made whole, moved or encoded anew."),
    MetricSpec("repair_fragments_total", Kind.COUNTER, "Fragments that were brought or made anew here."),
    MetricSpec("repair_bytes_total", Kind.COUNTER, "Bytes of fragments that were brought or made anew here."),
    MetricSpec(
        "repair_failures_total",
        Kind.COUNTER,
        "Extents and fragments that could not be mended yet.",
    ),
    MetricSpec("repair_departed_total", Kind.COUNTER, "Fragments deleted because they belong elsewhere."),
    MetricSpec("repair_extents_waiting", Kind.GAUGE, "Extents of the site that are not whole or not in their place."),
    MetricSpec("repair_left_bytes", Kind.GAUGE, "Their bytes."),
    MetricSpec("chunks_pool_taken_bytes", Kind.GAUGE, "Bytes of body buffers in use."),
    MetricSpec("cluster_suspicions_total", Kind.COUNTER, "Times that another node was suspected here."),
    MetricSpec("cluster_failures_total", Kind.COUNTER, "Times that another node counted as failed here."),
    MetricSpec("cluster_messages_dropped_total", Kind.COUNTER, "Membership messages that did not decode."),
    MetricSpec("cluster_decisions_total", Kind.COUNTER, "Decisions that this node took as leader of its site."),
    MetricSpec("cluster_looks_failed_total", Kind.COUNTER, "Times that looking at the site failed; it goes on."),
    MetricSpec("objects_puts_total", Kind.COUNTER, "Objects and parts stored."),
    MetricSpec("objects_gets_total", Kind.COUNTER, "Objects read."),
    MetricSpec("http_requests_total", Kind.COUNTER, "Requests answered, both lanes."),
    MetricSpec("http_fast_requests_total", Kind.COUNTER, "Requests answered by the fast lane."),
    MetricSpec("http_fast_lane_shut", Kind.GAUGE, "1 where the fast lane is shut because aiohttp is not as expected."),
    MetricSpec("http_connections", Kind.GAUGE, "Open client connections."),
    MetricSpec("http_connections_refused_total", Kind.COUNTER, "Connections closed at once: too many are open."),
    MetricSpec("http_timeouts_total", Kind.COUNTER, "Connections closed for being too slow."),
    MetricSpec("http_errors_total", Kind.COUNTER, "Requests answered with a 5xx status."),
    MetricSpec("s3_refused_total", Kind.COUNTER, "S3 requests answered with an error."),
)


class _Histogram:
    """Counts by upper bound, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """One observation."""
        position = sum(value > bound for bound in self.bounds)
        self.counts[position] += 1
        self.total += value


class Metrics:
    """The metrics of one node."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {spec.name: 0 for spec in METRICS if spec.kind is not Kind.HISTOGRAM}
        self._histograms = {spec.name: _Histogram(spec.bounds) for spec in METRICS if spec.kind is Kind.HISTOGRAM}
        self._gauges: dict[str, Callable[[], float]] = {}

    def count(self, name: str, amount: float = 1) -> None:
        """Adds to a counter."""
        self._values[name] += amount

    def set(self, name: str, value: float) -> None:
        """Sets a gauge."""
        self._values[name] = value

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        self._gauges[name] = read

    def observe(self, name: str, value: float) -> None:
        """Adds an observation to a histogram."""
        self._histograms[name].add(value)

    def value(self, name: str) -> float:
        """What a counter or gauge stands at."""
        return self._gauges[name]() if name in self._gauges else self._values[name]

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self))
        return generate_latest(registry)

    def families(self) -> Iterable[Metric]:
        """Every metric as Prometheus knows it."""
        for spec in METRICS:
            name = f"edgestore_{spec.name}"
            if spec.kind is Kind.COUNTER:
                yield CounterMetricFamily(name, spec.help, value=self.value(spec.name))
            elif spec.kind is Kind.GAUGE:
                yield GaugeMetricFamily(name, spec.help, value=self.value(spec.name))
            else:
                histogram = self._histograms[spec.name]
                running, buckets = 0, []
                for bound, counted in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
                    running += counted
                    buckets.append((str(bound), float(running)))
                yield HistogramMetricFamily(name, spec.help, buckets=buckets, sum_value=histogram.total)


class _Collector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        return self._metrics.families()


class _NoMetrics(Metrics):
    """Keeps no gauge: what it would read, a whole node, must be able to go."""

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Nobody asks."""


NO_METRICS = _NoMetrics()
"""For parts that are built without a node; nobody reads it."""


def start_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """One line an event on stderr: time, level, room, event."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger("edgestore")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False

"""What is counted for those who run the server, and how Prometheus reads it.

Counting is adding to plain numbers: it happens for every batch of every stream. What Prometheus wants is made of them
when it asks. Nothing here says who called, or what was said.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from antiphon.protocol.transcript import Note
from antiphon.store.base import Claim

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
APPEND_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

GAUGES = {
    "streams": "Streams that are open.",
    "held_bytes": "Bytes of requests, of what they continue and of what is said, in memory.",
    "leases": "Responses that this process works on.",
    "queue": "Background responses that are open, on all nodes.",
}
"""What is asked for at the time, with its meaning."""


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by operation and status
        self.events = 0
        self.responses: Counter[str] = Counter()  # that were worked on here, by how that ended
        self.takeovers = 0
        self.upstream_errors: Counter[str] = Counter()  # by the status that the caller was to see
        self.tokens: Counter[str] = Counter()  # by kind
        self._append_counts = [0] * (len(APPEND_SECONDS) + 1)
        self._append_sum = 0.0
        self._gauges: Mapping[str, float] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def begun(self, claim: Claim) -> None:
        """A worker has begun with a response."""
        self.takeovers += claim.tries > 1

    def appended(self, events: int, seconds: float) -> None:
        """So many entries of a log were committed, together, in that time."""
        self.events += events
        self._append_counts[bisect_left(APPEND_SECONDS, seconds)] += 1
        self._append_sum += seconds

    def ended(self, status: str, last: Sequence[Mapping[str, Any] | Note]) -> None:
        """A worker is done with a response. last: the entries that it appended last."""
        self.responses[status] += 1
        for entry in last:
            if isinstance(entry, Note):
                if entry.kind == "failed":
                    self.upstream_errors[str(entry.fields["status"])] += 1
            elif usage := (entry.get("response") or {}).get("usage"):
                cached = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
                self.tokens["input"] += usage["input_tokens"]
                self.tokens["cached"] += cached
                self.tokens["output"] += usage["output_tokens"]

    def page(self, gauges: Mapping[str, float]) -> bytes:
        """All of it as Prometheus reads it. gauges: a value for each of GAUGES that is known."""
        self._gauges = gauges
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What `prometheus_client` asks a collector for."""
        yield _counter("requests", "Answers.", ("operation", "status"), self.requests)
        yield _counter("events", "Entries committed to logs.", (), {(): self.events})
        yield _counter("responses", "Responses worked on.", ("status",), self.responses)
        yield _counter("takeovers", "Responses begun again after their worker was lost.", (), {(): self.takeovers})
        yield _counter("upstream_errors", "Responses failed by the model's server.", ("status",), self.upstream_errors)
        yield _counter("tokens", "Tokens used.", ("kind",), self.tokens)
        bounds = [*(f"{bound:g}" for bound in APPEND_SECONDS), "+Inf"]
        buckets = list(zip(bounds, accumulate(map(float, self._append_counts)), strict=True))
        yield HistogramMetricFamily(
            "antiphon_append_seconds", "How long a commit to a log took.", buckets=buckets, sum_value=self._append_sum
        )
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(f"antiphon_{name}", GAUGES[name], value=value)


def _counter(name: str, help: str, labels: Sequence[str], counts: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(f"antiphon_{name}", help, labels=labels)
    for key, count in counts.items():
        family.add_metric([str(part) for part in (key if isinstance(key, tuple) else (key,))], count)
    return family

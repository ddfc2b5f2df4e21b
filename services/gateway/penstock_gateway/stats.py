"""What is counted per endpoint: plain integers, written on the hot path and read by /metrics."""

from penstock_common.contracts.statistics import BUCKETS_MAX, SUB_BITS
from penstock_common.contracts.statistics import bucket_of as bucket

CLIENT_LEFT = 499
"""Recorded for a request whose client left before the answer was complete."""


class Histogram:
    """Times in microseconds in logarithmic buckets. Mergeable: add the counts."""

    __slots__ = ("counts", "total_us")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS_MAX
        self.total_us = 0

    def record(self, us: int) -> None:
        self.counts[bucket(us)] += 1
        self.total_us += us

    @property
    def count(self) -> int:
        return sum(self.counts)

    def below(self, bits: int) -> int:
        """How many were shorter than 2**bits microseconds. `bits` is at least 2."""
        return sum(self.counts[: (bits - SUB_BITS + 1) << SUB_BITS])

    def add(self, other: "Histogram") -> None:
        for index, count in enumerate(other.counts):
            self.counts[index] += count
        self.total_us += other.total_us


class EndpointStats:
    """Counters and histograms of one endpoint since the process started."""

    __slots__ = (
        "cold_starts",
        "completion_tokens",
        "first_byte",
        "first_token",
        "latency",
        "prompt_tokens",
        "queue_wait",
        "statuses",
    )

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.latency = Histogram()
        self.queue_wait = Histogram()
        self.first_byte = Histogram()
        self.first_token = Histogram()
        """To the first event of an answer that is a stream of events."""
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cold_starts = 0
        """Times that a request woke the endpoint."""

    @property
    def requests(self) -> int:
        """All that have ended, whatever became of them."""
        return sum(self.statuses.values())

    def answered(self, status: int, wait_us: int, first_byte_us: int, total_us: int) -> None:
        """Count a request that a replica answered. All times are from when the request was received."""
        statuses = self.statuses
        statuses[status] = statuses.get(status, 0) + 1
        latency, first_byte, wait = self.latency, self.first_byte, self.queue_wait
        index = bucket(total_us)
        latency.counts[index] += 1
        latency.total_us += total_us
        first_byte.counts[index if first_byte_us == total_us else bucket(first_byte_us)] += 1
        first_byte.total_us += first_byte_us
        wait.counts[bucket(wait_us) if wait_us else 0] += 1
        wait.total_us += wait_us

    def ended(self, status: int) -> None:
        """Count a request that no replica answered: refused, failed or given up."""
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def add(self, other: "EndpointStats") -> None:
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        for mine, theirs in zip(self._histograms(), other._histograms(), strict=True):
            mine.add(theirs)
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.cold_starts += other.cold_starts

    def copy(self) -> "EndpointStats":
        """How everything stands now."""
        found = EndpointStats()
        found.add(self)
        return found

    def _histograms(self) -> tuple[Histogram, ...]:
        return self.latency, self.queue_wait, self.first_byte, self.first_token

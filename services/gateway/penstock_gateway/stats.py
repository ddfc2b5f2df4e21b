"""What is counted per endpoint: plain integers, written on the hot path and read by /metrics."""

CLIENT_LEFT = 499
"""Recorded for a request whose client left before the answer was complete."""

_SUB_BITS = 2
_SUBS = 1 << _SUB_BITS
_BITS_MAX = 40
_LAST = (_BITS_MAX - 1) * _SUBS - 1


def bucket(us: int) -> int:
    """The bucket of a time in microseconds: four to a doubling, so a bucket is exact to 19 %."""
    bits = us.bit_length()
    if bits <= _SUB_BITS:
        return us
    if bits > _BITS_MAX:
        return _LAST
    return ((bits - _SUB_BITS) << _SUB_BITS) | ((us >> (bits - _SUB_BITS - 1)) & (_SUBS - 1))


class Histogram:
    """Times in microseconds in logarithmic buckets. Mergeable: add the counts."""

    __slots__ = ("counts", "total_us")

    def __init__(self) -> None:
        self.counts = [0] * (_LAST + 1)
        self.total_us = 0

    def record(self, us: int) -> None:
        self.counts[bucket(us)] += 1
        self.total_us += us

    @property
    def count(self) -> int:
        return sum(self.counts)

    def below(self, bits: int) -> int:
        """How many were shorter than 2**bits microseconds. `bits` is at least 2."""
        return sum(self.counts[: (bits - _SUB_BITS + 1) << _SUB_BITS])

    def add(self, other: "Histogram") -> None:
        for index, count in enumerate(other.counts):
            self.counts[index] += count
        self.total_us += other.total_us


class EndpointStats:
    """Counters and histograms of one endpoint since the process started."""

    __slots__ = ("first_byte", "latency", "queue_wait", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.latency = Histogram()
        self.queue_wait = Histogram()
        self.first_byte = Histogram()

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
        self.latency.add(other.latency)
        self.queue_wait.add(other.queue_wait)
        self.first_byte.add(other.first_byte)

"""What a gateway counted of an endpoint in about a second, on core NATS; losing one costs nothing.

Times are kept in logarithmic buckets, four to a doubling, so a quantile is exact to 19 %. Histograms
merge by adding counts, whatever they came from.
"""

from collections.abc import Mapping

from pydantic import Field

from penstock_common.contracts.base import Contract, UtcTime

STATISTICS = "stats.*"
"""Subject of every endpoint's statistics."""

SUB_BITS = 2
"""Buckets to a doubling, as a power of two."""
_SUBS = 1 << SUB_BITS
_BITS_MAX = 40
BUCKETS_MAX = (_BITS_MAX - 1) * _SUBS


def bucket_of(us: int) -> int:
    """The bucket of a time in microseconds, from 0 up to BUCKETS_MAX - 1."""
    bits = us.bit_length()
    if bits <= SUB_BITS:
        return us
    if bits > _BITS_MAX:
        return BUCKETS_MAX - 1
    return ((bits - SUB_BITS) << SUB_BITS) | ((us >> (bits - SUB_BITS - 1)) & (_SUBS - 1))


def upper_us(bucket: int) -> int:
    """The first time that is too long for `bucket`, in microseconds."""
    following = bucket + 1
    if following <= _SUBS:
        return following
    doublings, part = divmod(following, _SUBS)
    return (_SUBS + part) << (doublings - 1)


def quantile_us(counts: Mapping[int, int], share: float) -> int | None:
    """The time that `share` (0 to 1) of all were shorter than, in microseconds; None without any."""
    total = sum(counts.values())
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= share * total and seen:
            return upper_us(bucket)
    return None


class EndpointStatistics(Contract):
    """Published on `stats.<endpoint_id>` by the gateway that owns the endpoint, while anything happens there.

    Counts are of the interval that ended at `at`; gauges are as they were then.
    """

    gateway_id: str
    endpoint_id: str
    organization_id: str
    at: UtcTime
    interval_s: float
    statuses: dict[int, int] = Field(default_factory=dict)
    """HTTP status → requests that ended with it; 499 for a client that left."""
    latency: dict[int, int] = Field(default_factory=dict)
    """Histograms: bucket → requests. This one from the request's arrival to the end of its answer."""
    queue_wait: dict[int, int] = Field(default_factory=dict)
    first_byte: dict[int, int] = Field(default_factory=dict)
    first_token: dict[int, int] = Field(default_factory=dict)
    """To the first event of an answer that is a stream of events."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    in_flight: int = 0
    queued: int = 0
    replicas: int = 0
    desired_replicas: int = 0
    cold_starts: int = 0
    """Times that a request woke the endpoint."""


def statistics_subject(endpoint_id: str) -> str:
    return f"stats.{endpoint_id}"

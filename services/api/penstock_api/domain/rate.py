"""A token bucket: so many requests at once, and so many a second after that."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    per_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is left at a time, in seconds of any clock that only goes forward."""

    tokens: float
    at_s: float


def full(rate: Rate, now_s: float) -> Bucket:
    return Bucket(rate.burst, now_s)


def take(bucket: Bucket, rate: Rate, now_s: float) -> tuple[Bucket, float]:
    """Take one token: the bucket after, and 0, or the seconds to wait until there is one."""
    tokens = min(float(rate.burst), bucket.tokens + (now_s - bucket.at_s) * rate.per_s)
    if tokens < 1:
        return Bucket(tokens, now_s), (1 - tokens) / rate.per_s
    return Bucket(tokens - 1, now_s), 0.0


def is_full(bucket: Bucket, rate: Rate, now_s: float) -> bool:
    """Whether it may be forgotten, because a new one would be the same."""
    return bucket.tokens + (now_s - bucket.at_s) * rate.per_s >= rate.burst

"""Bounds the requests of each API key in this process."""

import asyncio
import math

from penstock_api.domain.problems import RATE_LIMITED, Problem
from penstock_api.domain.rate import Bucket, Rate, full, is_full, take

_SWEEP_AT = 10_000


class RateLimit:
    """One token bucket for each key that was used lately."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: dict[str, Bucket] = {}

    def count(self, key_id: str) -> None:
        """One more request of this key. Raises Problem when there are too many."""
        now_s = asyncio.get_running_loop().time()
        if len(self._buckets) >= _SWEEP_AT:
            self._buckets = {
                key: bucket for key, bucket in self._buckets.items() if not is_full(bucket, self._rate, now_s)
            }
        bucket = self._buckets.get(key_id) or full(self._rate, now_s)
        self._buckets[key_id], wait_s = take(bucket, self._rate, now_s)
        if wait_s > 0:
            raise Problem(
                RATE_LIMITED,
                f"This API key may make {self._rate.per_s:g} requests a second: wait, and then send fewer.",
                retry_after_s=math.ceil(wait_s),
            )

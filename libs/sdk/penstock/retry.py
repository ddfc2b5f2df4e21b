"""When to try again: exponential backoff with full jitter, bounded in number and in time."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds on repeating a request. `RetryPolicy(attempts=1)` never repeats."""

    attempts: int = 8
    """Most times that one request is sent."""
    first_delay_s: float = 0.25
    """Longest wait before the second attempt; it doubles with each further one."""
    longest_delay_s: float = 10.0
    """Where the doubling ends."""
    total_s: float = 60.0
    """A wait that would end later than this after the first attempt is not begun."""
    connect_s: float = 10.0
    """The same while nothing answers at all."""

    def delay_s(
        self,
        tried: int,
        *,
        elapsed_s: float,
        random: float,
        retry_after_s: float | None = None,
        reached: bool = True,
    ) -> float | None:
        """How long to wait before another attempt; None to give up.

        `tried` is how often the request was sent, `random` a number in [0, 1). The server's
        Retry-After is the least wait; the jitter on top keeps clients from returning together.
        `reached` says whether there was a server to refuse or lose the request.
        """
        if tried >= self.attempts:
            return None
        delay_s = random * self.ceiling_s(tried) + (retry_after_s or 0.0)
        longest_s = self.total_s if reached else min(self.total_s, self.connect_s)
        return delay_s if elapsed_s + delay_s <= longest_s else None

    def ceiling_s(self, tried: int) -> float:
        """Longest wait after `tried` attempts, before jitter."""
        return min(self.longest_delay_s, self.first_delay_s * 2.0 ** min(tried - 1, 60))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The server's Retry-After in seconds; a date counts from the answer's own Date header."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None

"""How much of a replica's output is kept. Pure: the time is an argument."""

from dataclasses import dataclass

_BYTES_PER_TOKEN = 1024


@dataclass(slots=True)
class Allowance:
    """A bucket of tokens: one for each line and each further KB of it, filled at `per_s`, holding `burst`."""

    per_s: float
    burst: float
    tokens: float
    at_s: float

    @classmethod
    def full(cls, per_s: float, burst: float, now_s: float) -> "Allowance":
        return cls(per_s, burst, burst, now_s)

    def fill(self, now_s: float) -> None:
        """Add what time has earned."""
        self.tokens = min(self.burst, self.tokens + (now_s - self.at_s) * self.per_s)
        self.at_s = now_s

    def take(self, line_bytes: int) -> bool:
        """Whether a line of this size may pass now; if so, it is paid for."""
        cost = min(1 + line_bytes // _BYTES_PER_TOKEN, self.burst)
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True

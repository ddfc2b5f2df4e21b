"""Knative's pod autoscaler (KPA) for one revision with `containerConcurrency: 1`, as it decides.

From knative/serving: pkg/autoscaler/scaling/autoscaler.go (windows, rates, panic), the defaults of
config/core/configmaps/autoscaler.yaml, and pkg/reconciler/autoscaling/kpa/scaler.go (zero). Kinder than
the real one where the simulation is simpler: what it decides is carried out at once, it counts waiting
requests exactly, and it has the same central queue as we do.
"""

import math
from collections import deque

from bench.autoscale.simulation import Seen

STABLE_WINDOW_S = 60.0
PANIC_WINDOW_S = 6.0
PANIC_THRESHOLD = 2.0
TARGET_UTILISATION = 0.7
MAX_SCALE_UP_RATE = 1000.0
MAX_SCALE_DOWN_RATE = 2.0
TICK_S = 2.0
ZERO_GRACE_S = 30.0
DIGITS = 6
"""To which averages are rounded, before they are rounded up to whole pods."""


class Kpa:
    tick_s = TICK_S
    when_pressed = False

    def __init__(self, *, target_utilisation: float = TARGET_UTILISATION, most: int) -> None:
        self._target = target_utilisation
        self._most = most
        self._past: deque[tuple[float, float]] = deque([(0.0, 0.0)])
        """Time and integral of the concurrency, at each tick of the stable window and just before it."""
        self._panic_s: float | None = None
        self._panic_most = 0
        self._zero_s: float | None = None

    def look(self, seen: Seen) -> int:
        self._past.append((seen.now_s, seen.load_s))
        while self._past[1][0] <= seen.now_s - STABLE_WINDOW_S:
            self._past.popleft()
        desired = self._scale(seen)
        # The bounds come after, in the reconciler; it keeps one pod for the grace period.
        if desired > 0:
            self._zero_s = None
            return min(desired, self._most)
        if self._zero_s is None:
            self._zero_s = seen.now_s
        return 0 if seen.now_s - self._zero_s >= ZERO_GRACE_S else min(seen.wanted, 1)

    def _scale(self, seen: Seen) -> int:
        ready = max(1, seen.ready)
        most = math.ceil(MAX_SCALE_UP_RATE * ready)
        least = math.floor(ready / MAX_SCALE_DOWN_RATE)
        stable = math.ceil(self._mean(seen, STABLE_WINDOW_S) / self._target)
        panic = math.ceil(self._mean(seen, PANIC_WINDOW_S) / self._target)
        over = panic / ready >= PANIC_THRESHOLD
        if over:
            self._panic_s = seen.now_s
        elif self._panic_s is not None and self._panic_s + STABLE_WINDOW_S < seen.now_s:
            self._panic_s = None
            self._panic_most = 0
        desired = min(max(stable, least), most)
        if self._panic_s is None:
            return desired
        self._panic_most = max(self._panic_most, desired, min(max(panic, least), most))
        return self._panic_most

    def _mean(self, seen: Seen, window_s: float) -> float:
        """Mean concurrency of the window, or of what there was of it so far."""
        from_s, from_load_s = next(one for one in self._past if one[0] >= seen.now_s - window_s)
        return round((seen.load_s - from_load_s) / (seen.now_s - from_s), DIGITS)

"""Deadlines of many connections on one timer.

A connection only notes its next deadline as a number, which costs nothing; it is looked at when the
deadline it was registered with passes, and registered again if it has moved on since. With nothing
registered there is no timer.
"""

import asyncio
import math
from time import monotonic
from typing import Protocol

NEVER_S = math.inf


class Timed(Protocol):
    """Something with a deadline. `looked_at_s` belongs to Deadlines: when it looks next, NEVER_S for
    not at all. Who moves a deadline to an earlier time than that must call `watch`."""

    looked_at_s: float

    def on_deadline(self, now_s: float) -> float:
        """Act if the deadline has passed; returns when to look again, NEVER_S for not at all."""


class Deadlines:
    """Looks at each item no earlier than it asked, and at most `step_s` later."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, step_s: float = 1.0) -> None:
        self._loop = loop
        self._step_s = step_s
        self._slots: dict[float, set[Timed]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = NEVER_S

    def watch(self, item: Timed, at_s: float) -> None:
        """Look at `item` when the monotonic clock shows `at_s`. Only an earlier time replaces another."""
        if at_s >= item.looked_at_s or at_s == NEVER_S:
            return
        self.forget(item)
        slot_s = (int(at_s / self._step_s) + 1) * self._step_s
        item.looked_at_s = slot_s
        self._slots.setdefault(slot_s, set()).add(item)
        if slot_s < self._timer_s:
            self._arm(slot_s)

    def forget(self, item: Timed) -> None:
        """The item is gone."""
        members = self._slots.get(item.looked_at_s)
        if members is not None:
            members.discard(item)
        item.looked_at_s = NEVER_S

    def stop(self) -> None:
        self._disarm()
        self._slots.clear()

    def _arm(self, slot_s: float) -> None:
        self._disarm()
        self._timer_s = slot_s
        self._timer = self._loop.call_later(max(0.0, slot_s - monotonic()), self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._timer_s = NEVER_S

    def _fire(self) -> None:
        self._disarm()
        now_s = monotonic()
        for slot_s in [slot_s for slot_s in self._slots if slot_s <= now_s]:
            for item in self._slots.pop(slot_s):
                # One that was forgotten meanwhile, by what another did, is left alone.
                if item.looked_at_s == slot_s:
                    item.looked_at_s = NEVER_S
                    self.watch(item, item.on_deadline(now_s))
        for slot_s in [slot_s for slot_s, members in self._slots.items() if not members]:
            del self._slots[slot_s]
        if self._slots:
            self._arm(min(self._slots))

"""Who is next when requests wait: classes of priority by weight, API keys in turn, each key first in, first out.

The classes share the slots that free as 16 : 4 : 1, by self-clocked fair queueing: the head of each class carries
a tag, the lowest tag goes first, and the next head's tag is one stride further, the stride being the inverse of
the weight. While two classes wait, what they get never differs by more than one request of each from their
weights (Golestani, "A self-clocked fair queueing scheme for broadband applications", INFOCOM 1994). Within a class
the keys that wait take turns. With one key and one class all of it is first in, first out. Pure.
"""

from collections import OrderedDict
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Priority(IntEnum):
    """What a caller says of a request: X-Penstock-Priority."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


WEIGHTS = {Priority.HIGH: 16, Priority.NORMAL: 4, Priority.LOW: 1}
_STRIDES = tuple(max(WEIGHTS.values()) // WEIGHTS[priority] for priority in Priority)


class Place(NamedTuple):
    """Where a request waits: behind those of the same key and priority. Callers without a key are as one."""

    key_id: str = ""
    priority: Priority = Priority.NORMAL


class FairLine(Generic[T]):
    """Those who wait (compared by identity or equality, whichever they have). Every operation but `gives_way` and
    `clear` takes the same time however many wait.

    `waiting` holds them in the order in which they joined, with the time and the place; only read it.
    """

    __slots__ = ("_classes", "_rings", "_served", "_tags", "waiting")

    def __init__(self) -> None:
        # OrderedDict and not dict: leaving the middle and joining the front cost the same as the end.
        self.waiting: OrderedDict[T, tuple[float, Place]] = OrderedDict()
        # For each class the keys that wait, the next one first, each with its requests.
        self._rings: tuple[OrderedDict[str, OrderedDict[T, None]], ...] = tuple(OrderedDict() for _ in Priority)
        self._classes: list[int] = []
        """The classes in which anybody waits."""
        self._tags = [0] * len(Priority)
        self._served = 0
        """Tag of the request that started last."""

    def join(self, item: T, place: Place, now_s: float) -> None:
        """Wait behind all of the same place."""
        self.waiting[item] = (now_s, place)
        key_id, priority = place
        ring = self._rings[priority]
        line = ring.get(key_id)
        if line is None:
            if not ring:
                self._open(priority, _STRIDES[priority])
            line = ring[key_id] = OrderedDict()
        line[item] = None

    def join_first(self, item: T, place: Place, since_s: float) -> None:
        """Wait again, as the next of its class, after a start that came to nothing: it counts as not served."""
        self.waiting[item] = (since_s, place)
        self.waiting.move_to_end(item, last=False)
        key_id, priority = place
        ring = self._rings[priority]
        if ring:
            self._tags[priority] = max(self._tags[priority] - _STRIDES[priority], self._served)
        else:
            self._open(priority, 0)
        line = ring.setdefault(key_id, OrderedDict())
        line[item] = None
        line.move_to_end(item, last=False)
        ring.move_to_end(key_id, last=False)

    def pop(self) -> T:
        """Who is next. Raises IndexError when nobody waits."""
        classes, tags = self._classes, self._tags
        priority = classes[0]
        if len(classes) > 1:
            priority = min(classes, key=tags.__getitem__)
        ring = self._rings[priority]
        key_id = next(iter(ring))
        line = ring[key_id]
        item, _ = line.popitem(last=False)
        del self.waiting[item]
        self._served = tags[priority]
        if line:
            if len(ring) > 1:
                ring.move_to_end(key_id)
        else:
            del ring[key_id]
            if not ring:
                classes.remove(priority)
                return item
        tags[priority] += _STRIDES[priority]
        return item

    def leave(self, item: T) -> None:
        """Stop waiting. Unknown items are ignored."""
        found = self.waiting.pop(item, None)
        if found is None:
            return
        key_id, priority = found[1]
        ring = self._rings[priority]
        line = ring[key_id]
        del line[item]
        if not line:
            del ring[key_id]
            if not ring:
                self._classes.remove(priority)
                self._tags[priority] -= _STRIDES[priority]

    def gives_way(self, place: Place) -> T | None:
        """Who should leave a full line for a newcomer at `place`, or None when the newcomer has to go.

        The newest request of lower priority of the same key; else the newest of whoever has most waiting, if the
        newcomer's key has less than an equal share: nobody can fill the line for all others.
        """
        rings = self._rings
        for priority in range(Priority.LOW, place.priority, -1):
            lower = rings[priority].get(place.key_id)
            if lower:
                return next(reversed(lower))
        own = len(rings[place.priority].get(place.key_id, ()))
        shares = sum(map(len, rings)) + (not own)
        if own * shares >= len(self.waiting):
            return None
        longest = max((line for ring in reversed(rings) for line in ring.values()), key=len)
        return next(reversed(longest)) if len(longest) > own + 1 else None

    def clear(self) -> list[T]:
        """Everybody who waited, in the order in which they joined; nobody waits any more."""
        items = list(self.waiting)
        for item in items:
            self.leave(item)
        return items

    def _open(self, priority: int, stride: int) -> None:
        """Somebody joins a class in which nobody waits."""
        classes, tags = self._classes, self._tags
        classes.append(priority)
        if len(classes) > 1:
            classes.sort()
        if tags[priority] < self._served:
            tags[priority] = self._served
        tags[priority] += stride

"""The unfinished inferences, in memory: who waits, who runs, and how many there are. Plain data, no I/O.

Every change comes with the revision that the record's stream gave it. Changes come twice, from whoever makes
them and from the stream, in any order: older ones are passed over.
"""

import asyncio
import heapq
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from penstock_common.contracts.inference import OpenInference

REMEMBERED_MAX = 20_000
"""Ids of finished inferences that are remembered, so that a late change does not bring one back."""


class Tracked(NamedTuple):
    """An inference as it was last seen, and the revision of that."""

    inference: OpenInference
    revision: int


class Board:
    """`changed(id, tracked)` is called after each change, with None when the inference is no longer open."""

    def __init__(self) -> None:
        self.complete = False
        """Whether everything that was kept before is here."""
        self.listeners: list[Callable[[str, Tracked | None], None]] = []
        self._open: dict[str, Tracked] = {}
        self._removed: OrderedDict[str, int] = OrderedDict()
        self._queued: dict[str, set[str]] = {}
        self._busy: dict[str, None] = {}
        """Those that run, or whose webhook is due."""
        self._per_endpoint: defaultdict[str, int] = defaultdict(int)
        self._per_organization: defaultdict[str, int] = defaultdict(int)
        self._awaited: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Tracked]:
        return iter(list(self._open.values()))

    def not_queued(self) -> list[Tracked]:
        """Those that run, or whose webhook is due."""
        return [self._open[each] for each in self._busy]

    def get(self, inference_id: str) -> Tracked | None:
        return self._open.get(inference_id)

    def unfinished(self, endpoint_id: str) -> int:
        """Queued and running inferences of an endpoint; those whose webhook is due are finished."""
        return self._per_endpoint.get(endpoint_id, 0)

    def unfinished_of(self, organization_id: str) -> int:
        return self._per_organization.get(organization_id, 0)

    def waited_for(self) -> list[str]:
        """Endpoints with queued inferences."""
        return list(self._queued)

    def queued(self, endpoint_id: str, most: int) -> list[Tracked]:
        """The first of those that wait for an endpoint, in the order in which they came: ids sort by creation."""
        ids = heapq.nsmallest(most, self._queued.get(endpoint_id, ()))
        return [self._open[each] for each in ids]

    # --- changes --------------------------------------------------------------------------

    def put(self, inference: OpenInference, revision: int) -> None:
        """It was written."""
        inference_id = inference.inference_id
        known = self._open.get(inference_id)
        if (known is not None and known.revision >= revision) or self._removed.get(inference_id, -1) >= revision:
            return
        if known is not None:
            self._count(known.inference, -1)
        tracked = self._open[inference_id] = Tracked(inference, revision)
        self._count(inference, 1)
        if inference.state == "notifying":
            self._tell(inference_id)
        self._say(inference_id, tracked)

    def remove(self, inference_id: str, revision: int) -> None:
        """It is no longer open."""
        known = self._open.get(inference_id)
        if known is not None and known.revision > revision:
            return
        self._removed[inference_id] = max(revision, self._removed.pop(inference_id, 0))
        while len(self._removed) > REMEMBERED_MAX:
            self._removed.popitem(last=False)
        if known is not None:
            del self._open[inference_id]
            self._count(known.inference, -1)
            self._tell(inference_id)
            self._say(inference_id, None)

    def keep_only(self, seen: set[str], *, before: int) -> None:
        """A whole snapshot was read: what is older than revision `before` and not in it is no longer open."""
        for inference_id, tracked in list(self._open.items()):
            if inference_id not in seen and tracked.revision < before:
                self.remove(inference_id, tracked.revision)
        self.complete = True

    async def finished(self, inference_id: str, wait_s: float) -> bool:
        """Wait until an open inference is finished; False when it is not within `wait_s`."""
        tracked = self._open.get(inference_id)
        if tracked is None or tracked.inference.state == "notifying":
            return True
        future = asyncio.get_running_loop().create_future()
        self._awaited[inference_id].add(future)
        try:
            async with asyncio.timeout(wait_s):
                await future
        except TimeoutError:
            return False
        finally:
            waiting = self._awaited[inference_id]
            waiting.discard(future)
            if not waiting:
                del self._awaited[inference_id]
        return True

    def release(self) -> None:
        """Nobody waits for an end any longer: the gateway stops."""
        for inference_id in list(self._awaited):
            self._tell(inference_id)

    # --- parts ----------------------------------------------------------------------------

    def _count(self, inference: OpenInference, by: int) -> None:
        if inference.state != "queued":
            if by > 0:
                self._busy[inference.inference_id] = None
            else:
                del self._busy[inference.inference_id]
        if inference.state == "notifying":
            return
        for counts, key in (
            (self._per_endpoint, inference.endpoint_id),
            (self._per_organization, inference.organization_id),
        ):
            counts[key] += by
            if not counts[key]:
                del counts[key]
        if inference.state == "queued":
            ids = self._queued.setdefault(inference.endpoint_id, set())
            if by > 0:
                ids.add(inference.inference_id)
            else:
                ids.discard(inference.inference_id)
            if not ids:
                del self._queued[inference.endpoint_id]

    def _tell(self, inference_id: str) -> None:
        for future in self._awaited.get(inference_id, ()):
            if not future.done():
                future.set_result(None)

    def _say(self, inference_id: str, tracked: Tracked | None) -> None:
        for listener in self.listeners:
            listener(inference_id, tracked)

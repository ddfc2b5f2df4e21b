"""Watching a key-value bucket: a whole snapshot at every (re)connection, then each change."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError
from nats.js.kv import KeyValue, StopIterSentinel
from pydantic import ValidationError

from penstock_common.contracts.base import Record
from penstock_common.contracts.topology import BUCKETS, COMPLETE, BucketSpec

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)

CHECK_S = 15.0
"""How often the server is asked whether it still has our consumer."""
SNAPSHOT_WAIT_S = 2.0
"""The library can miss that a snapshot has ended; then it is taken again."""
RETRY_S = 0.5


class BucketWatch(Generic[R]):
    """Keeps `snapshot` equal to the bucket's records under `keys`.

    `on_change(key, record)` is called for every difference, with None when the key is gone. While
    NATS is away the last snapshot stands; so it does for records missing from a bucket that was made
    anew, until its owner has written the mark that it is complete again. `js` gives JetStream once it is reached.
    """

    def __init__(
        self,
        js: Callable[[], JetStreamContext],
        record_type: type[R],
        on_change: Callable[[str, R | None], None],
        *,
        keys: str = ">",
    ) -> None:
        self.snapshot: dict[str, R] = {}
        self.ready = asyncio.Event()
        self.current = False
        """Whether `snapshot` is known to be the whole bucket: from a whole snapshot until the watch is lost."""
        self._js = js
        self._record_type = record_type
        self._on_change = on_change
        self._keys = keys
        self._restart = asyncio.Event()

    def lost(self) -> None:
        """The connection was lost: what changes from now on is not heard of."""
        self.current = False

    def restart(self) -> None:
        """Take a new snapshot now; called when the connection was lost and is back."""
        self.current = False
        self._restart.set()

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            self._restart.clear()
            try:
                await self._watch()
            except (nats.errors.Error, JetStreamError, TimeoutError) as error:
                log.warning(
                    "watch interrupted; starting again",
                    extra={"bucket": self._record_type.bucket, "error": repr(error)},
                )
                await asyncio.sleep(RETRY_S)

    async def _watch(self) -> None:
        bucket = await self._js().key_value(self._record_type.bucket)
        watcher = await bucket.watch(self._keys)
        try:
            whole: dict[str, R] | None = {}
            seen: set[str] = set()
            while True:
                entry = await self._next(watcher, SNAPSHOT_WAIT_S if whole is not None else None)
                if isinstance(entry, _Lost):
                    return
                if entry is None:
                    if whole is not None:
                        # The library can say that this was all while entries are still on their way.
                        if not await self._keys_there() <= seen:
                            return
                        if not await is_complete(self._js(), BUCKETS[self._record_type.bucket]):
                            for key, found in whole.items():
                                self._set(key, found)
                            await asyncio.sleep(RETRY_S)
                            return
                        self._replace(whole)
                        whole = None
                    continue
                seen.add(entry.key)
                if entry.key == COMPLETE:
                    continue
                try:
                    record = self._parse(entry)
                except ValidationError as error:
                    # What cannot be read changes nothing: the last readable record stands.
                    log.error("unreadable record", extra={"key": entry.key, "error": str(error)})
                    record = self.snapshot.get(entry.key)
                if whole is None:
                    self._set(entry.key, record)
                elif record is not None:
                    whole[entry.key] = record
        finally:
            self.current = False
            with suppress(nats.errors.Error, JetStreamError):
                await watcher.stop()  # type: ignore[no-untyped-call]

    async def _keys_there(self) -> set[str]:
        """The keys the server has under `keys`, deleted ones among them."""
        spec = BUCKETS[self._record_type.bucket]
        info = await self._js().stream_info(spec.stream, subjects_filter=spec.subject(self._keys))
        return {subject.removeprefix(spec.subject("")) for subject in info.state.subjects or {}}

    async def _next(self, watcher: KeyValue.KeyWatcher, wait_s: float | None) -> "KeyValue.Entry | _Lost | None":
        """The next entry; None at the end of the snapshot; _Lost when the watch must start again, which
        it must when nothing comes for `wait_s`."""
        update = asyncio.ensure_future(watcher._updates.get())
        restart = asyncio.ensure_future(self._restart.wait())
        try:
            while True:
                done, _ = await asyncio.wait(
                    {update, restart}, timeout=wait_s or CHECK_S, return_when=asyncio.FIRST_COMPLETED
                )
                if restart in done or (not done and wait_s is not None):
                    return _Lost()
                if update in done:
                    entry = update.result()
                    return _Lost() if isinstance(entry, StopIterSentinel) else entry
                # Raises when the server forgot the consumer, as after the loss of its data.
                if watcher._sub is not None:
                    await watcher._sub.consumer_info()
        finally:
            update.cancel()
            restart.cancel()

    def _parse(self, entry: KeyValue.Entry) -> R | None:
        if entry.operation is not None or not entry.value:
            return None
        return self._record_type.model_validate_json(entry.value, extra="ignore")

    def _replace(self, whole: dict[str, R]) -> None:
        for key in [key for key in self.snapshot if key not in whole]:
            self._set(key, None)
        for key, record in whole.items():
            self._set(key, record)
        self.current = True
        self.ready.set()

    def _set(self, key: str, record: R | None) -> None:
        if self.snapshot.get(key) == record:
            return
        if record is None:
            del self.snapshot[key]
        else:
            self.snapshot[key] = record
        self._on_change(key, record)


async def is_complete(js: JetStreamContext, bucket: BucketSpec) -> bool:
    """Whether the owner of the bucket has written every record since the bucket was made.

    Raises nats errors when NATS or the bucket is away.
    """
    try:
        await js.get_last_msg(bucket.stream, bucket.subject(COMPLETE), direct=True)
    except NotFoundError:
        return False
    return True


class _Lost:
    """The connection was lost, or the watch was stopped."""

"""From the Authorization header to the caller."""

import asyncio
from dataclasses import replace

from penstock_api.domain.access import Caller
from penstock_api.domain.keys import is_key, sha256_of
from penstock_api.domain.problems import UNAUTHENTICATED, Problem
from penstock_api.handlers.platform import Platform

REMEMBERED_S = 1.0
REMEMBERED_MAX = 10_000


class Authentication:
    """Checks API keys, and remembers each answer for a moment so that a busy key costs one query a second."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._known: dict[str, tuple[float, Caller | None]] = {}

    async def caller(self, authorization: str | None) -> Caller:
        """Who sent this Authorization header. Raises Problem unless it holds a usable key."""
        text = _key_in(authorization)
        if not is_key(text):
            raise _unauthenticated("The API key is mistyped or cut off: its checksum is wrong.")
        caller = await self._look_up(sha256_of(text))
        if caller is None:
            raise _unauthenticated("The API key is unknown, expired or revoked: use another one.")
        return replace(caller, key_text=text)

    def forget_all(self) -> None:
        """Keys, members or roles were changed: what was known may be wrong."""
        self._known.clear()

    async def _look_up(self, sha256: str) -> Caller | None:
        now_s = asyncio.get_running_loop().time()
        until, caller = self._known.get(sha256, (0.0, None))
        if until > now_s:
            return caller
        async with self._platform.transaction() as store:
            caller = await store.keys.caller(sha256)
        if len(self._known) >= REMEMBERED_MAX:
            self._known.clear()
        self._known[sha256] = (now_s + REMEMBERED_S, caller)
        return caller


def _key_in(authorization: str | None) -> str:
    if not authorization:
        raise _unauthenticated("There is no API key: send the header `Authorization: Bearer psk_…`.")
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthenticated("The Authorization header must be `Bearer psk_…`.")
    return text.strip()


def _unauthenticated(detail: str) -> Problem:
    return Problem(UNAUTHENTICATED, detail)

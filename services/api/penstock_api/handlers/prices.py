"""The prices in force, remembered for a few seconds: every endpoint shown asks for them."""

import asyncio
from collections.abc import Mapping

from penstock_api.domain.problems import Problem
from penstock_api.handlers.platform import Platform, answer_of
from penstock_common.contracts.questions import AskPrices, Price, PricesReply

FRESH_S = 3.0
ANSWER_WITHIN_S = 2.0


class PriceBoard:
    """Asks billing at most once in FRESH_S, also while billing is away."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._answer: Mapping[str, Price] | Problem = {}

    async def now(self) -> Mapping[str, Price]:
        """The price of each GPU type. Raises Problem while billing is away."""
        answer = await self._fresh_answer()
        if isinstance(answer, Problem):
            raise answer
        return answer

    async def now_or_none(self) -> Mapping[str, Price] | None:
        """The same, or None while billing is away: what is shown must not depend on it."""
        answer = await self._fresh_answer()
        return None if isinstance(answer, Problem) else answer

    def forget(self) -> None:
        """Ask again at the next need: a price was set."""
        self._asked_at = None

    async def _fresh_answer(self) -> Mapping[str, Price] | Problem:
        async with self._asking:
            now_s = asyncio.get_running_loop().time()
            if self._asked_at is None or now_s - self._asked_at >= FRESH_S:
                self._answer = await self._ask()
                self._asked_at = asyncio.get_running_loop().time()
            return self._answer

    async def _ask(self) -> Mapping[str, Price] | Problem:
        try:
            reply: PricesReply = await answer_of(self._platform, AskPrices(), deadline_s=ANSWER_WITHIN_S)
        except Problem as problem:
            return problem
        return {price.gpu_type: price for price in reply.prices}

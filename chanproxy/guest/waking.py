"""
Waking calls and waking streams for asyncio: wait for the next message, then be done with the last.

The order is what matters, and it is the same each time: arm the wait, mark what came before as
handled, wait.  Between the last two the container may be suspended, and the wait is there already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import TypeVar

from chanproxy.guest._pending import Handling, Pending

__all__ = ["Handling", "WakingCalls"]

T = TypeVar("T")


class WakingCalls(Pending):
    """
    Calls whose answers are messages on one channel, made one after the other.

    Each L{call} marks what the calls before it received as handled, as soon as it is armed.  Use
    it in a C{with}: at its end, also when an exception passes, the last message is handled.
    """

    async def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """
        Wait for one message.

        @param make: what begins to wait when it is awaited, such as C{reader.read}.
        @return: its result, a message that is handled with the next call.
        """
        future = asyncio.ensure_future(make())
        try:
            # A task begins in the next turn, and only what has begun is armed.
            await asyncio.sleep(0)
            self.finish()
            result = await future
        except BaseException:
            if not future.done():
                future.cancel()
            elif not future.cancelled() and future.exception() is None:
                # Received, and lost by a cancellation: not to be counted for ever.
                self._received()
            raise
        self._received()
        return result

    async def stream(self, items: AsyncIterable[T]) -> AsyncIterator[T]:
        """
        Iterate; an item is handled when the next one is asked for.

        @param items: each of which is a message.
        """
        iterator = items.__aiter__()
        while True:
            try:
                item = await self.call(iterator.__anext__)
            except StopAsyncIteration:
                return
            yield item

"""What of an import is done in threads, for who must not be held up by it, and how its blocks are read."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar

from segment_tools.bulk.rows import Block

_T = TypeVar("_T")

Reading = Callable[[Iterator[Block]], Iterable[Block] | AsyncIterable[Block]]


def at_once(blocks: Iterator[Block]) -> Iterator[Block]:
    """The blocks, read where they are asked for."""
    return blocks


async def in_thread(blocks: Iterator[Block]) -> AsyncIterator[Block]:
    """The blocks, each read in a thread."""
    while (block := await aside(partial(next, blocks, None))) is not None:
        yield block


async def aside(work: Callable[[], _T]) -> _T:
    """What the function returns, called in a thread; who is cancelled waits for it: no file is closed under it."""
    called = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(called)
    except asyncio.CancelledError:
        with suppress(Exception):
            await called
        raise

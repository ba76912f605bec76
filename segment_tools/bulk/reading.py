"""How the blocks of a file are read: as they are asked for, or in a thread, for who must not be held up by it."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress

from segment_tools.bulk.rows import Block

Reading = Callable[[Iterator[Block]], Iterable[Block] | AsyncIterable[Block]]


def at_once(blocks: Iterator[Block]) -> Iterator[Block]:
    """The blocks, read where they are asked for."""
    return blocks


async def in_thread(blocks: Iterator[Block]) -> AsyncIterator[Block]:
    """The blocks, each read in a thread; who is cancelled waits for it, so that no file is closed under it."""
    while True:
        read = asyncio.ensure_future(asyncio.to_thread(next, blocks, None))
        try:
            block = await asyncio.shield(read)
        except asyncio.CancelledError:
            with suppress(Exception):
                await read
            raise
        if block is None:
            return
        yield block

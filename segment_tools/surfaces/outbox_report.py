"""The outbox as a report for people, and how it is asked for in the shell."""

import asyncio
from collections.abc import Callable

from segment_tools.client import Segment
from segment_tools.tools.outbox import OutboxArguments, OutboxState, state

_LOOK_SECONDS = 0.5


async def asked(segment: Segment, action: str, message_ids: tuple[str, ...], limit: int) -> OutboxState:
    """What the tool does and answers.

    Raises:
        SegmentError: as `state`.
    """
    known = None if action == "flush" else action
    return await state(
        segment, OutboxArguments.model_validate({"action": known, "messageIds": message_ids, "limit": limit})
    )


async def flushed(segment: Segment, seconds: float, told: Callable[[OutboxState], None]) -> OutboxState:
    """Deliver what waits, until nothing does or the time is up; `told` is shown how far it is.

    Raises:
        SegmentError: as `state`.
    """
    segment.start()
    loop = asyncio.get_running_loop()
    end, last = loop.time() + seconds, -1
    while True:
        found = await state(segment, OutboxArguments(limit=1))
        if found.pending != last:
            last = found.pending
            told(found)
        if not found.pending or loop.time() >= end:
            other = found.pending and segment.courier and not segment.courier.delivering
            text = "Another process delivers this outbox; ask it, or read its log, for what is wrong."
            return found.model_copy(update={"trouble": [*found.trouble, text]}) if other else found
        await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, end - loop.time())))


def report_lines(found: OutboxState) -> list[str]:
    """What waits, what is wrong, and each dead letter."""
    lines: list[str] = []
    if found.retried is not None:
        lines.append(f"put back into the queue: {found.retried}")
    if found.discarded is not None:
        lines.append(f"discarded: {found.discarded}")
    oldest = f", the first since {found.oldest_seconds:g} s" if found.oldest_seconds is not None else ""
    lines.append(f"waiting: {found.pending}{oldest}")
    lines.append(f"room: {found.bytes:,} of {found.most_bytes:,} bytes")
    lines += [
        f"  {each['messageId']}  {each['acceptedAt']}  {each.get('source', '')}".rstrip() for each in found.waiting
    ]
    if found.pending > len(found.waiting):
        lines.append(f"  and {found.pending - len(found.waiting)} more")
    lines += [f"trouble: {text}" for text in found.trouble]
    lines += [found.hint] if found.hint else []
    lines.append(f"dead letters: {found.dead}")
    for letter in found.dead_letters:
        message = letter["message"]
        name = message.get("event") or message.get("type", "")
        lines.append(f"  {letter['messageId']}  {letter['diedAt']}  {name}  {letter['reason']}: {letter['text']}")
    if found.dead > len(found.dead_letters):
        lines.append(
            f"  and {found.dead - len(found.dead_letters)} more; --json shows their messages, --limit more of them"
        )
    return lines

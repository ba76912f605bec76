"""What became of an import, as JSON."""

from collections.abc import Sequence

import msgspec

from segment_tools.bulk.counts import Counts
from segment_tools.bulk.files import Imported
from segment_tools.bulk.rejections import reason
from segment_tools.spec.names import printable

_MOST_BYTES = 2000
"""Ours: a longer message is not shown whole, since a model reads it."""

_MOST_COLUMNS = 50


def shown(done: Imported) -> dict[str, object]:
    """What became of a file, as JSON."""
    first = [{"row": each.number, **reason(each.problems[0])} for each in done.first]
    return {
        **numbers(done.counts),
        "resumedAt": done.resumed,
        "importedBefore": done.before,
        **({"rejectedFile": str(done.rejected)} if done.rejected else {}),
        **({"firstRejections": first} if first else {}),
        **({"firstMessages": [_message(*each) for each in done.messages]} if done.messages else {}),
        **_named("notSent", done.unused),
        **_named("notFound", done.missing),
    }


def _named(name: str, columns: Sequence[str]) -> dict[str, object]:
    return {name: [printable(each) for each in columns[:_MOST_COLUMNS]]} if columns else {}


def _message(number: int, message: bytes) -> dict[str, object]:
    """The row's message, or the beginning of a long one's text."""
    if len(message) <= _MOST_BYTES:
        return {"row": number, "message": msgspec.json.decode(message)}
    return {"row": number, "begin": message[: _MOST_BYTES // 2].decode(errors="ignore"), "bytes": len(message)}


def numbers(counts: Counts) -> dict[str, object]:
    """The counts as JSON."""
    return {
        "rows": counts.rows,
        "accepted": counts.accepted,
        "rejected": counts.rejected,
        "requests": counts.requests,
        "bytes": counts.bytes,
        "sentBytes": counts.sent_bytes,
        "messages": [
            {"type": kind, **({"event": event} if event else {}), "count": number}
            for (kind, event), number in counts.kinds.most_common()
        ],
        "warnings": dict(counts.warnings),
    }

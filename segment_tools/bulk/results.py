"""What became of an import, as JSON."""

from segment_tools.bulk.counts import Counts
from segment_tools.bulk.files import Imported
from segment_tools.bulk.rejections import reason


def shown(done: Imported) -> dict[str, object]:
    """What became of a file, as JSON."""
    first = [{"row": each.number, **reason(each.problems[0])} for each in done.first]
    return {
        **numbers(done.counts),
        "resumedAt": done.resumed,
        "importedBefore": done.before,
        **({"rejectedFile": str(done.rejected)} if done.rejected else {}),
        **({"firstRejections": first} if first else {}),
    }


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

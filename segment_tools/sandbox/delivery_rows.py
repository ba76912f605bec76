"""The deliveries in the sandbox's file: one row a message and webhook, stored together with the message."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from segment_tools.sandbox.javascript_json import stringify
from segment_tools.sandbox.judge import delivered, iso
from segment_tools.sandbox.store import Store
from segment_tools.sandbox.webhooks import Webhook, shown

STATES = ("pending", "delivered", "failed")


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is to be tried, or was."""

    sequence: int
    attempts: int
    first_at: datetime | None
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Tried:
    """What a delivery is after an attempt."""

    due: Due
    state: str
    first_at: datetime
    due_at: datetime | None
    last_status: int | str


class DeliveryRows:
    """The deliveries of a store. Every method waits for the file: call them beside the event loop.

    All raise sqlite3.OperationalError where the file is locked or full.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, webhooks: Sequence[Webhook]) -> None:
        """From now on keep a delivery to each of the webhooks with every accepted message, in its transaction.

        Triggers of this connection alone do so: a sandbox without webhooks pays nothing.
        """
        kept = ", ".join(f"(NEW.sequence, {_quoted(webhook.name)}, NEW.received_at)" for webhook in webhooks)
        with self._store.transaction() as database:
            database.execute("DELETE FROM deliveries WHERE sequence NOT IN (SELECT sequence FROM messages)")
            database.execute(
                "CREATE TEMP TRIGGER deliver AFTER INSERT ON messages WHEN NEW.discarded IS NULL BEGIN"  # noqa: S608
                f" INSERT INTO deliveries (sequence, webhook, due_at) VALUES {kept}; END"
            )
            database.execute(
                "CREATE TEMP TRIGGER forget AFTER DELETE ON messages BEGIN"
                " DELETE FROM deliveries WHERE sequence = OLD.sequence; END"
            )

    def next(self, webhook: Webhook, limit: int) -> list[Due]:
        """The webhook's pending deliveries, the one that is due first at the front."""
        found = self._store.query(
            "SELECT sequence, attempts, first_at, due_at FROM deliveries JOIN messages USING (sequence)"
            " WHERE webhook = ? AND state = 'pending' ORDER BY due_at, sequence LIMIT ?",
            (webhook.name, limit),
        )
        return [
            Due(sequence, attempts, _moment(first_at) if first_at else None, _moment(due_at))
            for sequence, attempts, first_at, due_at in found
        ]

    def messages(self, sequences: Sequence[int]) -> list[str]:
        """The messages as they are delivered, as JSON; what was forgotten meanwhile is missing."""
        marks = ", ".join("?" * len(sequences))
        found = self._store.query(
            "SELECT sent, message_id, sent_at, received_at FROM messages"  # noqa: S608
            f" WHERE sequence IN ({marks}) ORDER BY sequence",
            sequences,
        )
        return [
            stringify(delivered(json.loads(sent), message_id, sent_at, received_at))
            for sent, message_id, sent_at, received_at in found
        ]

    def record(self, webhook: Webhook, tried: Iterable[Tried]) -> bool:
        """Keep what became of the attempts; True once it is kept."""
        rows = [
            (
                one.state,
                one.due.attempts + 1,
                iso(one.first_at),
                iso(one.due_at) if one.due_at else None,
                one.last_status,
                webhook.name,
                one.due.sequence,
            )
            for one in tried
        ]
        with self._store.transaction() as database:
            database.executemany(
                "UPDATE deliveries SET state = ?, attempts = ?, first_at = ?, due_at = ?, last_status = ?"
                " WHERE webhook = ? AND sequence = ?",
                rows,
            )
        return True

    def shown(self, state: str | None, limit: int) -> dict[str, Any]:
        """The newest deliveries, and how many there are of each state."""
        # Counted first: what the totals say is settled is not pending in the list.
        counts = dict(self._store.query("SELECT state, count(*) FROM deliveries GROUP BY state", ()))
        where = "WHERE state = ?" if state else ""
        found = self._store.query(
            "SELECT webhook, sequence, attempts, state, last_status, due_at FROM deliveries"  # noqa: S608
            f" {where} ORDER BY sequence DESC, webhook LIMIT ?",
            (*([state] if state else []), limit),
        )
        names = ("sequence", "attempts", "state", "lastStatus", "dueAt")
        return {
            "deliveries": [{"webhook": shown(name), **dict(zip(names, row, strict=True))} for name, *row in found],
            "totals": {state: counts.get(state, 0) for state in STATES},
        }


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)

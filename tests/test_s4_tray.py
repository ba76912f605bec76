"""What the fifth document promises: the trigger of the Tray connector."""

from pathlib import Path

import pytest
from test_triggers import deliver, ids, listed, message, receiver

pytestmark = pytest.mark.anyio
statement = pytest.mark.statement


@statement("S4.72")
async def test_a_trigger_takes_all_messages_or_allowed_types_or_a_channel(tmp_path: Path) -> None:
    async with receiver(tmp_path / "a.db") as (client, http):
        await deliver(
            http,
            message(1, channel="server"),
            message(2, type="identify", channel="browser"),
            message(3, type="page", channel="mobile"),
            {"type": "delete", "userID": "u1", "timestamp": "2026-01-01T00:00:00Z", "messageId": "m4"},
        )
        assert ids(await listed(client, order="oldest")) == ["m1", "m2", "m3", "m4"]
        assert ids(await listed(client, order="oldest", types=["identify", "page"])) == ["m2", "m3"]
        assert ids(await listed(client, channel="mobile")) == ["m3"]
        assert ids(await listed(client, types=["delete"], userId="u1")) == ["m4"]


@statement("S4.73")
async def test_a_webhook_is_checked_and_kept_and_the_tools_say_that_they_only_read(tmp_path: Path) -> None:
    async with receiver(tmp_path / "a.db") as (client, http):
        assert (await http.post("/webhooks/segment", json=message(1))).status_code == 401
        assert (await deliver(http, message(2))).status_code == 200
        assert ids(await listed(client)) == ["m2"]
        texts = {tool.name: tool.description or "" for tool in (await client.list_tools()).tools}
    for name in ("segment_list_deliveries", "segment_wait_for_delivery"):
        assert "A tool cannot be pushed to a model" in texts[name]

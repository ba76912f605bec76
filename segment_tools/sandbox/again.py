"""A message once more: the shell command and the tool call that send what the sandbox took."""

import json
import shlex
from typing import Any

from segment_tools.sandbox.judge import TYPES, as_fields

_STAMPED = frozenset(
    ("type", "writeKey", "sentAt", "receivedAt", "originalTimestamp", "channel", "version", "projectId", "_metadata")
)
"""What no argument of a tool stands for: the tool's own name, and what libraries and Segment stamp."""


def curl(sent: object, discarded: str | None, path: str, url: str) -> str:
    """The command for a POSIX shell that sends the message to the sandbox at this address by the way it came.

    An item of a batch goes in a batch of its own, so that it is judged as it was.
    """
    kind = as_fields(sent).get("type")
    if discarded in ("empty_batch", "bad_request") and "batch" in as_fields(sent):  # it never came to its items
        path, body = "/v1/batch", sent
    elif kind in TYPES and not path.endswith(("/batch", "/import", "/b")):
        path = f"/v1/{kind}"
        body = {name: value for name, value in as_fields(sent).items() if name != "type"}
    else:
        path, body = "/v1/batch", {"batch": [sent]}
    parts = [
        f"curl -s {_quoted(url + path)}",
        '-u "$SEGMENT_WRITE_KEY:"',
        "-H 'Content-Type: application/json'",
        f"--data-raw {_quoted(json.dumps(body))}",
    ]
    return " \\\n  ".join(parts)


def tool_call(sent: object) -> dict[str, Any] | None:
    """The MCP tool call that makes the message; None where it is of none of Segment's six types."""
    fields = as_fields(sent)
    kind = fields.get("type")
    if kind not in TYPES:
        return None
    arguments = {name: value for name, value in fields.items() if name not in _STAMPED}
    return {"name": f"segment_{kind}", "arguments": arguments}


def _quoted(text: str) -> str:
    """The text as one word, whatever is in it."""
    return shlex.quote(text).replace("'\"'\"'", "'\\''")

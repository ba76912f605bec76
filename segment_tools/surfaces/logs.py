"""How the program writes its log to standard error: lines of text, or JSON objects, one a line."""

import json
import logging
import sys
from datetime import UTC, datetime

from segment_tools.log_line import Line
from segment_tools.spec.timestamps import iso_utc

FORMATS = ("text", "json")

_QUIET = ("httpx", "httpcore", "mcp")
"""At their lower levels they log headers, which may repeat the key, and arguments, which are people's data."""


class JsonLines(logging.Formatter):
    """A JSON object for each record: time, level, logger, message, and the fields of a `Line`."""

    def format(self, record: logging.LogRecord) -> str:
        """The object on one line."""
        line = record.msg if isinstance(record.msg, Line) else Line(record.getMessage(), {})
        found: dict[str, object] = {
            "time": iso_utc(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": line.what,
            **line.fields,
        }
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found)


def configure(level: str, form: str) -> None:
    """Write the log of this process to standard error from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for library in _QUIET:
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))


def announcement(text: str) -> str:
    """What the program says whatever the level of the log, in the log's format."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonLines):
            said = {"name": "segment_tools", "levelname": "INFO", "msg": text}
            return handler.formatter.format(logging.makeLogRecord(said))
    return f"segment-tools: {text}"

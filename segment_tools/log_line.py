"""A line of the log with fields: one text for people, apart for who writes JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

_PLAIN = re.compile(r"[\w.:@/+-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """What happened, and what is known of it: passed to a logger as its message, which is text once it is shown."""

    what: str
    fields: Mapping[str, str | int | float]

    def __str__(self) -> str:
        return " ".join([self.what, *(f"{name}={_shown(value)}" for name, value in self.fields.items())])


def _shown(value: str | float) -> str:
    """The value on one line, however long the text and whoever wrote it."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)

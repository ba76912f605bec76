"""Segment's own library sends a file of events, as a process of its own.

    python benchmarks/official.py URL FILE [--gzip] [--upload-size N]

Its defaults otherwise. It drops what does not fit into its queue, so the queue is emptied whenever it is nearly full;
on one core that costs it nothing, and without it it would keep all of the file in memory.
"""

import argparse
import json
import os
import sys
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from single import KEY

QUEUE = 10_000
"""The queue's own size. It is emptied when this many were put into it: a number of whole requests."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Send a file of events by Segment's own library.")
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--upload-size", type=int, default=100)
    given = parser.parse_args()
    analytics: Any = import_module("segment.analytics.client")  # it has no types
    client = analytics.Client(KEY, host=given.url, gzip=given.gzip, upload_size=given.upload_size)
    with given.file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            event = json.loads(line)
            client.track(
                event["userId"],
                event["event"],
                event["properties"],
                event["context"],
                datetime.fromisoformat(event["timestamp"]),
                event["anonymousId"],
            )
            if number % QUEUE == QUEUE - 1:
                client.flush()
    client.flush()
    sys.stdout.flush()
    os._exit(0)  # at an ordinary end it waits half a second more for messages that do not come


if __name__ == "__main__":
    main()

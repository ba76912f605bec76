"""Segment's own Python library, unmodified, against the sandbox: what it sent is what is stored."""

import atexit
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
from segment.analytics.client import Client as Library

from segment_tools.sandbox.run import Sandbox

KEY = "official-client-key"
ABOUT = {"user_id": "user-1", "anonymous_id": "visitor-1"}
COMMON = {
    "context": {"ip": "8.8.8.8", "app": {"name": "Käse 🧀"}},
    "integrations": {"All": False, "Amplitude": {"s": 1}},
}
CALLS: dict[str, dict[str, Any]] = {
    "identify": {**ABOUT, **COMMON, "traits": {"email": "ada@example.com", "seats": 3, "note": ""}},
    "track": {**ABOUT, **COMMON, "event": "Order Completed", "properties": {"revenue": 19.5, "items": [{"id": 1}]}},
    "page": {**ABOUT, **COMMON, "category": "Docs", "name": "Pricing", "properties": {"url": "https://e.com/"}},
    "screen": {**ABOUT, **COMMON, "category": "Shop", "name": "Checkout", "properties": {"step": 2}},
    "group": {**ABOUT, **COMMON, "group_id": "company-42", "traits": {"employees": 329}},
    "alias": {"user_id": "user-1", "previous_id": "visitor-1", **COMMON},
}
NAMES = {"user_id": "userId", "anonymous_id": "anonymousId", "group_id": "groupId", "previous_id": "previousId"}


@contextmanager
def library(sandbox: Sandbox, **options: Any) -> Iterator[Library]:
    """The library, its threads ended at the end, its failures none."""
    failures: list[Exception] = []
    client = Library(
        KEY, host=sandbox.url, max_retries=0, timeout=10, on_error=lambda error, _: failures.append(error), **options
    )
    try:
        yield client
        if not options.get("sync_mode"):
            client.flush()
    finally:
        if not options.get("sync_mode"):
            for consumer in client.consumers:  # its own join ends only the last of several
                consumer.pause()
            for consumer in client.consumers:
                consumer.join(30)
        atexit.unregister(client.join)
    assert failures == []


def wire(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {NAMES.get(name, name): value for name, value in arguments.items()}


def told(message: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a delivered message says of what the call was given; the library puts its own name into the context."""
    context = {name: value for name, value in message["context"].items() if name != "library"}
    return {name: context if name == "context" else message.get(name) for name in wire(arguments)}


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize("sync_mode", [False, True])
@pytest.mark.parametrize("kind", CALLS)
def test_every_method_arrives_as_it_was_called(kind: str, sync_mode: bool, gzip: bool, sandbox: Sandbox) -> None:
    with library(sandbox, gzip=gzip, sync_mode=sync_mode) as client:
        getattr(client, kind)(**deepcopy(CALLS[kind]))  # it writes into what it is given
    (message,) = sandbox.messages()
    assert message["type"] == kind
    assert told(message, CALLS[kind]) == wire(CALLS[kind])
    assert message["context"]["library"]["name"] == "analytics-python"
    assert sandbox.discards() == []


@pytest.mark.parametrize("gzip", [False, True])
def test_many_threads_and_consumers_lose_nothing_and_repeat_nothing(gzip: bool, sandbox: Sandbox) -> None:
    threads, each = 8, 250
    with library(sandbox, gzip=gzip, thread=4, upload_size=50, upload_interval=0.05) as client:

        def send(sender: int) -> None:
            for number in range(each):
                client.track(f"user-{sender}", "Step", {"number": number})

        senders = [threading.Thread(target=send, args=(sender,)) for sender in range(threads)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(30)
    found = [(message["userId"], message["properties"]["number"]) for message in sandbox.messages()]
    assert sorted(found) == sorted((f"user-{sender}", number) for sender in range(threads) for number in range(each))
    assert sandbox.discards() == []


def test_its_largest_message_and_batch_are_taken(sandbox: Sandbox) -> None:
    with library(sandbox, upload_size=100, upload_interval=2) as client:
        for number in range(15):
            client.track("user-1", "Large", {"number": number, "padding": "x" * 32_000})
    assert len(sandbox.messages()) == 15
    assert sandbox.discards() == []

"""Events as shops and apps have them, the same ones every time: about 580 bytes each, one JSON object a line."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

SEED = 7
FIRST = datetime(2026, 11, 1, tzinfo=UTC)
USERS = 50_000
GOODS = ("Mug", "Notebook", "Desk Lamp", "Fountain Pen", "Rucksack", "Water Bottle", "Phone Case", "Wool Socks")
PAGES = ("pricing", "checkout", "account/orders", "blog/autumn-sale", "help/returns", "search")
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:132.0) Gecko/20100101 Firefox/132.0",
)


def events() -> Iterator[dict[str, Any]]:
    """Messages without end, a tenth of a second or so apart."""
    chance, moment = random.Random(SEED), FIRST
    while True:
        moment += timedelta(milliseconds=chance.randrange(200))
        yield _event(chance, moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"))


def _event(chance: random.Random, timestamp: str) -> dict[str, Any]:
    user, page = chance.randrange(USERS), chance.choice(PAGES)
    name, properties = _happened(chance)
    return {
        "type": "track",
        "event": name,
        "userId": f"user-{user:06}",
        "anonymousId": f"{user:08x}-7c1e-4f0a-9d3b-{chance.getrandbits(48):012x}",
        "timestamp": timestamp,
        "properties": properties,
        "context": {
            "ip": f"203.0.113.{chance.randrange(1, 255)}",
            "locale": chance.choice(("en-US", "de-DE", "pt-BR")),
            "page": {"url": f"https://shop.example.com/{page}", "path": f"/{page}", "title": page.title()},
            "userAgent": chance.choice(AGENTS),
        },
    }


def _happened(chance: random.Random) -> tuple[str, dict[str, Any]]:
    price, quantity = chance.randrange(100, 20_000) / 100, chance.randrange(1, 4)
    product = {
        "product_id": f"sku-{chance.randrange(10_000):05}",
        "name": chance.choice(GOODS),
        "price": price,
        "quantity": quantity,
    }
    name = chance.choice(("Product Viewed", "Product Added", "Order Completed"))
    if name == "Order Completed":
        return name, {
            "order_id": f"order-{chance.getrandbits(32):08x}",
            "total": round(price * quantity, 2),
            "currency": "USD",
            "products": [product],
        }
    return name, {
        **product,
        "currency": "USD",
        "category": "Home & Office",
        "cart_id": f"{chance.getrandbits(64):016x}",
    }


def write(path: Path, number: int) -> None:
    """Write so many, the first ones of them all."""
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as lines:
        lines.writelines(encode(event) + b"\n" for event in islice(events(), number))

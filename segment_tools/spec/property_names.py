"""Properties of semantic events: what Segment's spec calls them, and which of them are numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from segment_tools.spec.event_names import MOST_CHARACTERS
from segment_tools.spec.known_events import KnownProperty
from segment_tools.spec.names import folded
from segment_tools.spec.semantic_events import semantic_events

_SAID: Mapping[str, str] = {
    "cartitems": "products",
    "checkoutstep": "step",
    "couponcode": "coupon",
    "currencycode": "currency",
    "discountamount": "discount",
    "discountcode": "coupon",
    "grandtotal": "total",
    "image": "image_url",
    "itemid": "product_id",
    "itemname": "name",
    "itemprice": "price",
    "items": "products",
    "lineitems": "products",
    "orderitems": "products",
    "ordernumber": "order_id",
    "ordertotal": "total",
    "paymenttype": "payment_method",
    "productbrand": "brand",
    "productcategory": "category",
    "productimage": "image_url",
    "productname": "name",
    "productprice": "price",
    "productquantity": "quantity",
    "productsku": "sku",
    "producttitle": "name",
    "producturl": "url",
    "productvariant": "variant",
    "promocode": "coupon",
    "qty": "quantity",
    "searchquery": "query",
    "searchterm": "query",
    "shippingamount": "shipping",
    "shippingcost": "shipping",
    "shippingfee": "shipping",
    "stepnumber": "step",
    "taxamount": "tax",
    "taxes": "tax",
    "totalamount": "total",
    "totalprice": "total",
    "transactionid": "order_id",
    "unitprice": "price",
    "vouchercode": "coupon",
}
"""What other analytics and shop systems call a property; ours. Only where the event has Segment's and not the other."""


@dataclass(frozen=True, slots=True)
class Names:
    """What an object's fields are called."""

    known: frozenset[str]
    numbers: frozenset[str]
    meant: Mapping[str, str]
    """From a folded name to the right one."""
    items: "Names | None" = None
    """Of the objects in `products`."""

    def instead_of(self, name: str, given: Mapping[str, object]) -> str | None:
        """The right name for an unknown one; None where there is none, or it is given as well."""
        meant = self.meant.get(_folded(name)) if len(name) <= MOST_CHARACTERS else None
        return meant if meant is not None and meant not in given else None


@cache
def names_of(event: str) -> Names | None:
    """What the properties of a semantic event are called; None of another event."""
    known = semantic_events().get(event)
    return _names(known.properties) if known else None


def _names(properties: Iterable[KnownProperty]) -> Names:
    found = {each.name: each for each in properties}
    by_fold = {folded(name): name for name in found}
    said = {other: name for other, name in _SAID.items() if name in found and other not in by_fold}
    products = found.get("products")
    return Names(
        known=frozenset(found),
        numbers=frozenset(name for name, each in found.items() if each.type.startswith(("number", "integer"))),
        meant={**said, **by_fold},
        items=_names(products.fields) if products else None,
    )


_folded = lru_cache(maxsize=4096)(folded)

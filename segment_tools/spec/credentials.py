"""What is plainly a credential or a payment card's number, by the forms that its issuer documents.

Detectors of secrets in source code go by entropy too, and take hashes and ids for secrets; here those must pass.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, cast

from segment_tools.errors import Problem
from segment_tools.spec.lookalikes import plain
from segment_tools.spec.names import printable

CODE = "secret_in_message"
_HINT = (
    "Take it out: pass nothing in its place, or what is no secret, such as the last four digits or an id of your own."
)

_CARD = "a payment card's number"
_OWN = "one of this server's own keys"
_HIDDEN = "[secret]"

_STORES = tuple(
    f"{scheme}://"
    for scheme in ["postgres", "postgresql", "mysql", "mongodb", "mongodb+srv", "redis", "rediss", "amqp", "amqps"]
)
_BASE64, _OF_ASCII = "[A-Za-z0-9+/]", "[A-Za-f][A-Za-z0-9+/]"
"""What Base64 makes of a name and a password: of three ASCII letters the first of four has its highest bit clear."""

_NAME_AND_PASSWORD = (
    rf"(?=[a-z+/]{{0,60}}+[A-Z0-9])(?:{_OF_ASCII}{{3}}){{2,100}}"
    rf"(?:{_OF_ASCII}{{2}}=|{_OF_ASCII}==|(?<={_BASE64}{{12}})(?![\w+/=]))"
)
_SLACK = tuple(f"xox{kind}" for kind in ("a-", "b-", "e-", "e.", "p-", "r-", "s-"))

_FORMS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("a private key", ("-----BEGIN ",), r"(?:[A-Z0-9]+ ){0,8}PRIVATE KEY(?: BLOCK)?-----"),
    ("a private key", ("AGE-SECRET-KEY-1",), r"[0-9A-Z]{50}"),
    ("an AWS key", ("AKIA", "ASIA"), r"[A-Z0-9]{16}\b"),
    ("an AWS key", ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"), r"[\"'\\]*\s*[=:]\s*[\"'\\]*[\w/+]{40}"),
    ("an Azure key", ("AccountKey=",), r"[\w/+]{80}"),
    ("a GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"[A-Za-z0-9]{36}"),
    ("a GitHub token", ("github_pat_",), r"\w{22}"),
    ("a GitLab token", ("glpat-",), r"[\w-]{20}"),
    ("a Slack token", _SLACK, r"(?=[A-Za-z_.-]{0,20}+[0-9])[\w.-]{12}"),
    ("a Slack token", ("xapp-",), r"\d-[A-Z0-9]++-\d++-\w"),
    ("a Slack webhook", ("hooks.slack.com/services/",), r"T\w++/B\w++/\w{16}"),
    ("a Stripe key", ("sk_live_", "sk_test_", "rk_live_", "rk_test_"), r"[A-Za-z0-9]{16}"),
    ("a webhook's secret", ("whsec_",), r"[A-Za-z0-9+/]{24}"),
    ("an API key", ("sk-ant-", "sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-", "sk-or-"), r"[\w-]{20}"),
    ("an API key", ("sk-",), r"[A-Za-z0-9]{32,}+\b"),
    ("a Google key", ("AIza",), r"[\w-]{35}(?![\w-])"),
    ("a Google key", ("GOCSPX-",), r"[\w-]{28}"),
    ("a Google token", ("ya29.",), r"[\w-]{20}"),
    ("a Hugging Face token", ("hf_",), r"[A-Za-z0-9]{34}"),
    ("an npm token", ("npm_",), r"[A-Za-z0-9]{36}"),
    ("a PyPI token", ("pypi-AgE",), r"[\w-]{50}"),
    ("a SendGrid key", ("SG.",), r"[\w-]{22}\.[\w-]{43}"),
    ("a Segment token", ("sgp_",), r"[A-Za-z0-9]{64}"),
    ("a Shopify token", ("shpat_", "shpca_", "shppa_", "shpss_"), r"[A-Fa-f0-9]{32}"),
    ("a DigitalOcean token", ("dop_v1_", "doo_v1_", "dor_v1_"), r"[a-f0-9]{64}"),
    ("a GitLab token", ("glrt-",), r"[\w-]{20}"),
    ("a Vault token", ("hvs.",), r"[\w-]{24}"),
    ("an Atlassian token", ("ATATT3",), r"[\w=-]{50}"),
    ("a New Relic key", ("NRAK-",), r"[A-Z0-9]{27}"),
    ("a Linear key", ("lin_api_",), r"[A-Za-z0-9]{40}"),
    ("an API key", ("pplx-",), r"[A-Za-z0-9]{48}"),
    ("an API key", ("gsk_",), r"[A-Za-z0-9]{52}"),
    ("an API key", ("xai-",), r"[A-Za-z0-9]{70}"),
    ("a private key", ("PuTTY-User-Key-File-",), r"[0-9]"),
    ("a password in an address", _STORES, r"[^\s:/@]{0,100}:[^\s/@]{1,200}@"),
    ("a password in Basic authentication", ("Basic ",), _NAME_AND_PASSWORD),
)
"""What it is, how it begins, and how it goes on. Source: the issuers' own pages, and the formats that GitHub's secret
scanning lists; Stripe's `pk_` and the like are public, and not among them."""

_WEB_TOKEN, _WEB_TOKENS_MIDDLE = re.compile(r"(?<=[\w-]{8})\.eyJ[\w-]{8,}+\.[\w-]", re.ASCII), ".eyJ"
"""A JSON Web Token, found by its middle: from its beginning, a text of beginnings alone would be read over and over."""

_EXPIRY = "(?:0[1-9]|1[0-2])[-/. ]?(?:20)?[0-9]{2}(?![0-9])"
_SAID = "(?:(?i:card|visa|amex|maestro|master)|(?<![A-Za-z])(?i:cc|pan))[-_.#]{1,2}"
_PLAIN_CARD = re.compile(
    rf"(?:(?<![\w.+/-])-{{0,2}}|%B|{_SAID})([0-9]{{14,19}})(?!\w|\.[0-9]|-(?!{_EXPIRY})[0-9])", re.ASCII
)
_GROUPED_CARD = re.compile(
    r"(?<![A-Za-z0-9.+/])(?<![A-Za-z]{2}[0-9]{2}[ -])(?<![0-9]{4}[ ._-])"
    r"(?:[0-9]{4}([ ._-]{1,2})[0-9]{4}\1[0-9]{4}\1[0-9]{4}|[0-9]{4}([ ._-]{1,2})[0-9]{6}\2[0-9]{4,5})"
    rf"(?!\w|\.[0-9]|-(?!{_EXPIRY})\w)",
    re.ASCII,
)
"""In one piece, of no longer name or number but one that says what it is, or with the day it ends; and in the groups
that are printed on cards. An IBAN's groups begin with its country."""

ISSUED = (
    r"4[0-9]{15}(?:[0-9]{3})?"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11}"  # Diners Club
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12}"  # Discover
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # JCB
    r"|62[0-9]{14}(?:[0-9]{3})?"  # UnionPay
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])[0-9]{12}"  # Maestro
    r"|220[0-4][0-9]{12}"  # Mir
)
"""Lengths and first digits of cards in use (ISO/IEC 7812). Visa's old 13 digits are an EAN's, other lengths of
Maestro and UnionPay those of many systems' ids: they are left out."""

_ISSUED = re.compile(ISSUED)

_NUMBERED = re.compile(
    r"(?:^|[_\-. ])[iI][dD]s?$|[a-z0-9]I[dD]s?$"
    r"|(?i:(?:^|[_\-. ])(?:sku|gtin|ean|upc|isbn|imei|iccid|barcode|tracking))"
)
"""Fields of ids: of random numbers with a card's beginning and length every tenth has a card's check digit too."""

_OF_CARDS = re.compile(r"(?i:card|payment)|(?:^|[^A-Za-z])(?:cc|pan)(?![a-z])|(?<=[a-z])(?:Cc|Pan)(?![a-z])|(?:CC|PAN)")
"""Of these, fields that are named for cards and payments."""

_SHORTEST, _LEAST = 14, 10**13
"""The least characters of a secret, and the least number that may be a card's."""

_DIGITS = re.compile(r"[0-9]{4}[ ._-]{0,2}[0-9]{4,6}[ ._-]{0,2}[0-9]{4}")
"""Whatever may be a card's number."""

_HOLDERS, _NUMBERS = (dict, list, tuple), (int, float)


class _Leaf(NamedTuple):
    """A text or number, the path to it, and the name of the field that it stands in."""

    value: str
    path: tuple[str, ...]
    name: str


class Secrets:
    """Finds what is plainly a secret: what anybody's would look like, and the server's own, in each of their forms."""

    def __init__(self, own: Iterable[str] = ()) -> None:
        self._own = tuple(sorted(set(own), key=len, reverse=True))
        self._shortest = min([_SHORTEST, *map(len, self._own)])
        begins = {*(text for _, texts, _ in _FORMS for text in texts), _WEB_TOKENS_MIDDLE, *self._own}
        # Literals alone: the regular expression engine then skips to their first letters.
        self._begins = re.compile("|".join(map(re.escape, sorted(begins))))

    @property
    def signs(self) -> tuple[str, ...]:
        """Texts of which one is in every token that is found; of foreign letters, in their usual form."""
        return (*(text for _, texts, _ in _FORMS for text in texts), _WEB_TOKENS_MIDDLE)

    @property
    def own(self) -> tuple[str, ...]:
        """The server's own secrets, which are found wherever they stand."""
        return self._own

    def problems(self, fields: Mapping[str, Any]) -> list[Problem]:
        """A problem for each field of the message that holds a secret; none of them repeats it."""
        if not self._is_suspect(fields):
            return []
        found = ((leaf, kind) for leaf in _leaves(fields) if (kind := self._kind(leaf)))
        return [self._problem(leaf, kind) for leaf, kind in found]

    def _is_suspect(self, fields: Mapping[str, Any]) -> bool:
        """Whether anything needs a closer look: one pass without paths, which is what each message pays."""
        shortest, begins, digits = self._shortest, self._begins.search, _DIGITS.search
        stack: list[Any] = [fields]
        while stack:
            holder = stack.pop()
            for value in cast("Iterable[object]", (*holder, *holder.values()) if isinstance(holder, dict) else holder):
                if isinstance(value, str):
                    if len(value) >= shortest:
                        text = value if value.isascii() else plain(value)
                        if begins(text) or digits(text):
                            return True
                elif isinstance(value, _HOLDERS):
                    stack.append(value)
                elif isinstance(value, _NUMBERS) and not -_LEAST < value < _LEAST:
                    return True
        return False

    def _kind(self, leaf: _Leaf) -> str | None:
        if self._begins.search(leaf.value):
            if any(own in leaf.value for own in self._own):
                return _OWN
            if kind := _token(leaf.value):
                return kind
        return _CARD if _DIGITS.search(leaf.value) and _has_card(leaf) else None

    def _problem(self, leaf: _Leaf, kind: str) -> Problem:
        shown = (_HIDDEN if self._kind(_Leaf(plain(name), (), "")) else name[:40] for name in leaf.path[:5])
        field = printable(".".join(shown))
        return Problem(CODE, f"{field} holds {kind}, by its form.", _HINT, field)


def _token(text: str) -> str | None:
    if _WEB_TOKEN.search(text):
        return "a JSON Web Token"
    found = ((kind, begin, rest) for kind, begins, rest in _FORMS for begin in begins if begin in text)
    return next((kind for kind, begin, rest in found if _form(begin, rest).search(text)), None)


@cache
def _form(begin: str, rest: str) -> re.Pattern[str]:
    """The token; in front of it is no letter or digit, but of an escape in JSON text or a URL."""
    literal = re.escape(begin)  # first, so that the engine skips to it
    before = rf"(?:(?<![A-Za-z0-9]{literal})|(?<=\\[nrt]{literal})|(?<=%[0-9A-Fa-f]{{2}}{literal}))"
    return re.compile(f"{literal}{before}{rest}", re.ASCII)


def _leaves(value: Any, path: tuple[str, ...] = (), name: str = "") -> Iterator[_Leaf]:
    """Every text and number; a field's name, too, at the path of what holds it."""
    if isinstance(value, dict):
        for key, below in cast("dict[str, Any]", value).items():
            yield _Leaf(plain(key), path or (key,), "")
            yield from _leaves(below, (*path, key), key)
    elif isinstance(value, list | tuple):
        for place, below in enumerate(cast("list[Any]", value)):
            yield from _leaves(below, (*path, str(place)), name)
    elif isinstance(value, str):
        yield _Leaf(plain(value), path, name)
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        yield _Leaf(str(int(value)), path, name)


def _has_card(leaf: _Leaf) -> bool:
    if any(_is_card(re.sub("[^0-9]", "", found.group())) for found in _GROUPED_CARD.finditer(leaf.value)):
        return True
    if _NUMBERED.search(leaf.name) and not _OF_CARDS.search(leaf.name):
        return False
    return any(_is_card(found) for found in _PLAIN_CARD.findall(leaf.value))


def _is_card(digits: str) -> bool:
    return bool(_ISSUED.fullmatch(digits)) and _luhn(digits)


def _luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others. Source: ISO/IEC 7812-1, annex B."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0

"""What the settings' values may be, each with the sentence that a wrong one gets; none repeats the value."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, SecretStr

from segment_tools.addresses import base_url, wrong

_KEY = re.compile(r"[A-Za-z0-9_.~+/=-]+")
_PLACEHOLDERS = ("YOUR_WRITE_KEY", "WRITE_KEY", "YOUR_SEGMENT_WRITE_KEY")
_LEAST_BITS, _FILE_BYTES = 2048, 64 * 1024
_REDIS = r"(redis://|rediss://|unix://)[^\x00-\x1f]+"
_NO_DATABASE = r"rediss?://[^/?#]*/(?![0-9]*([?#]|$)).*"
"""What redis-py takes for the first database although the address names another."""

TYPE, EVENT, TOOL = "type", "event", "tool"
TYPES = ("track", "identify", "page", "screen", "group", "alias")
WRITERS = ("batch", "outbox", "test_connection", "import_file")
"""The tools that write and are not named after a type."""


@dataclass(frozen=True, slots=True)
class Selector:
    """What picks out messages: a type, a pattern of events' names, or for consent a tool."""

    kind: Literal["type", "event", "tool"]
    name: str

    def __str__(self) -> str:
        return f"type:{self.name}" if self.kind == TYPE else self.name


def is_write_key(value: object) -> bool:
    """Whether the value could be a write key at all: text without spaces, quotes or colons."""
    return isinstance(value, str) and _KEY.fullmatch(value) is not None and value not in _PLACEHOLDERS


def is_space_id(text: str) -> bool:
    """Whether this could be a space's id: letters, digits, `_` and `-`, so that it cannot lead to another path."""
    return re.fullmatch("[A-Za-z0-9_-]{1,100}", text) is not None


def _shown(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _write_key(value: object) -> SecretStr:
    text = _shown(value)
    if not is_write_key(text):
        raise wrong("is not a write key: copy it from Segment > Sources > your source > Settings > API Keys")
    return SecretStr(str(text))


def _sources(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        parsed: object = json.loads(value)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict) or not all(map(_is_name, cast("dict[str, Any]", parsed))):
        raise wrong('must be a JSON object of name to write key, such as {"web": "KEY", "ios": "KEY"}')
    return cast("dict[str, Any]", parsed)


def _is_name(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


def _secret(value: object) -> SecretStr:
    text = _shown(value)
    if not isinstance(text, str) or not re.fullmatch("[!-~]+", text):
        raise wrong("must be plain text without spaces, as Segment shows it")
    return SecretStr(text)


def _on_redis(text: str) -> str:
    if re.fullmatch(_NO_DATABASE, text):
        raise wrong("must end in the number of a database, such as redis://localhost:6379/0")
    return text


def _inbox(value: object) -> SecretStr:
    """The address, which may hold a server's password."""
    text = str(_shown(value))
    if not re.fullmatch(rf"sqlite:///[^\x00-\x1f]+|{_REDIS}", text):
        raise wrong("is no address of an inbox: pass sqlite:///inbox.db or redis://localhost:6379/0")
    return SecretStr(_on_redis(text))


def _outbox(value: object) -> SecretStr:
    """The address, which may hold a server's password."""
    text = str(_shown(value))
    if not re.fullmatch(rf"memory:|sqlite:///[^\x00-\x1f]+|{_REDIS}", text):
        raise wrong("is no address of an outbox: pass sqlite:///outbox.db or redis://localhost:6379/0")
    return SecretStr(_on_redis(text))


def _redis(value: object) -> SecretStr:
    text = str(_shown(value))
    if not re.fullmatch(_REDIS, text):
        raise wrong("is no address of a Redis server: pass redis://localhost:6379/0, rediss://… or unix:///path")
    return SecretStr(_on_redis(text))


def _space_id(value: object) -> object:
    if isinstance(value, str) and not is_space_id(value):
        raise wrong("is not a space's id, such as spa_abc123: copy it from Unify > Unify settings > API access")
    return value


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _patterns(value: object) -> object:
    """Names with commas between them; a name may have spaces in it."""
    if not isinstance(value, str):
        return value
    if not value.isprintable():
        raise wrong("must be names or patterns, separated by commas")
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _event_patterns(value: object) -> object:
    found = _patterns(value)
    return tuple(map(_selector, cast("tuple[str, ...]", found))) if isinstance(value, str) else found


def _selector(text: str) -> Selector:
    if text in TYPES:
        return Selector(TYPE, text)
    if not text.startswith("type:"):
        return Selector(EVENT, _no_slip(text, TYPES))
    name = text.removeprefix("type:").strip()
    if name != "*" and name not in TYPES:
        raise wrong(f"names a type that is none: after type: comes one of {', '.join(TYPES)} or *")
    return Selector(TYPE, name)


def _consents(value: object) -> object:
    found = _patterns(value)
    return tuple(map(_consent, cast("tuple[str, ...]", found))) if isinstance(value, str) else found


def _consent(text: str) -> Selector:
    name = text.removeprefix("segment_")
    if name in TYPES:
        return Selector(TYPE, name)
    if name in WRITERS:
        return Selector(TOOL, name)
    if name != text:
        listed = ", ".join(f"segment_{each}" for each in (*TYPES, *WRITERS))
        raise wrong(f"names a tool that sends nothing, or is none: pass one of {listed}")
    return _selector(_no_slip(text, (*TYPES, *WRITERS)))


def _no_slip(text: str, known: Sequence[str]) -> str:
    """The name of an event; one that is nearly that of a type would let through what was to be held back."""
    meant = get_close_matches(text, known, n=1, cutoff=_NEAR) if text.isidentifier() and text.islower() else []
    if meant:
        raise wrong(f"has {text}: did you mean {meant[0]}? An event of that name is written {text[:-1]}?")
    return text


_NEAR = 0.75
"""What `difflib` calls a slip of the pen."""


def _path(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        raise wrong("is no path of a file")
    return Path(value).expanduser() if isinstance(value, str) else value


def _url(value: object) -> object:
    return base_url(value) if isinstance(value, str) else value


def _private_key(value: object) -> SecretStr:
    r"""The key in PEM, from text, in which `\n` stands for the end of a line, or from a file."""
    text = str(_shown(value)).strip()
    pem = text.replace("\\n", "\n") if "-----BEGIN" in text else _read(text, "a private key in PEM")
    if not _is_rsa(pem):
        raise wrong(
            f"holds no RSA private key of {_LEAST_BITS} bits or more in PEM, without a password; make one with "
            "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out private.pem"
        )
    return SecretStr(pem)


def _read(name: str, instead: str) -> str:
    try:
        with Path(name).expanduser().open(encoding="utf-8") as file:
            return file.read(_FILE_BYTES)
    except (OSError, ValueError, RuntimeError):
        raise wrong(f"is neither {instead} nor a file that can be read") from None


def _is_rsa(pem: str) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        return False
    return isinstance(key, RSAPrivateKey) and key.key_size >= _LEAST_BITS


_ACTIONS = ("drop", "mask", "hash")
_IDS = ("userid", "anonymousid", "previousid", "groupid")
_LEAST_KEY = 16
_NO_RULES = {"": ""}


def _redactions(value: object) -> dict[str, Any]:
    """Rules from JSON or a file of it: name or pattern of a field to what is done with it."""
    text = value if isinstance(value, str) else json.dumps(value)
    rules = _rules(text if text.lstrip().startswith("{") else _read(text, "a JSON object of rules"))
    if not all(map(_is_rule, rules.items())):
        raise wrong('must be a JSON object of field to drop, mask or hash, such as {"email": "hash", "*ssn*": "drop"}')
    found = {name: action.lower() for name, action in rules.items()}
    if any(name.strip().lower() in _IDS and action != "hash" for name, action in found.items()):
        raise wrong("may only hash userId, anonymousId, previousId and groupId: without them messages are nobody's")
    return found


def _rules(text: str) -> dict[str, Any]:
    """The object in the text; one that is no object of rules where it is none, or where a rule would be lost."""
    try:
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
        return dict(pairs) if len(dict(pairs)) == len(pairs) else _NO_RULES
    except (ValueError, TypeError, RecursionError):
        return _NO_RULES


def _is_rule(rule: tuple[str, object]) -> bool:
    name, action = rule
    return (
        name.isprintable()
        and all(part.strip() for part in name.split("."))
        and isinstance(action, str)
        and action.lower() in _ACTIONS
    )


def _redact_key(value: object) -> SecretStr:
    text = _shown(value)
    if not isinstance(text, str) or not re.fullmatch(f"[!-~]{{{_LEAST_KEY},}}", text):
        raise wrong(f"must be {_LEAST_KEY} characters or more without spaces; make one with openssl rand -hex 32")
    return SecretStr(text)


def _oauth_id(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch("[!-~]{1,200}", value):
        raise wrong("must be an id without spaces: copy it from Segment > Settings > Access Management > Apps")
    return value


def _scope(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch("[a-z_:]+( [a-z_:]+)*", value):
        raise wrong("must be scopes separated by spaces, such as tracking_api:write")
    return value


def _oauth_url(value: object) -> object:
    return base_url(value).removesuffix("/token") if isinstance(value, str) else value


SEGMENT_PLAN = "segment:"
"""What begins the name of a plan that Segment has, and not a file."""


def _tracking_plan(value: object) -> object:
    text = str(value)
    if text.startswith(SEGMENT_PLAN):
        if not re.fullmatch("tp_[A-Za-z0-9]{1,100}", text.removeprefix(SEGMENT_PLAN)):
            raise wrong(
                "is not a tracking plan's id, such as segment:tp_2sXk: copy it from the plan's address in Segment"
            )
        return text
    try:
        readable = Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        readable = False
    if not readable:
        raise wrong("is neither a file, such as plan.json, nor segment:tp_... for a plan that Segment has")
    return text


WriteKey = Annotated[SecretStr, BeforeValidator(_write_key)]
Sources = Annotated[dict[str, WriteKey], BeforeValidator(_sources)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
OutboxAddress = Annotated[SecretStr, BeforeValidator(_outbox)]
InboxAddress = Annotated[SecretStr, BeforeValidator(_inbox)]
RedisAddress = Annotated[SecretStr, BeforeValidator(_redis)]
TrackingPlanName = Annotated[str, BeforeValidator(_tracking_plan)]
SpaceId = Annotated[str, BeforeValidator(_space_id)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
EventPatterns = Annotated[tuple[Selector, ...], BeforeValidator(_event_patterns)]
Consents = Annotated[tuple[Selector, ...], BeforeValidator(_consents)]
FilePath = Annotated[Path, BeforeValidator(_path)]
Url = Annotated[str, BeforeValidator(_url)]
PrivateKey = Annotated[SecretStr, BeforeValidator(_private_key)]
Redactions = Annotated[dict[str, Literal["drop", "mask", "hash"]], BeforeValidator(_redactions)]
RedactKey = Annotated[SecretStr, BeforeValidator(_redact_key)]
OAuthId = Annotated[str, BeforeValidator(_oauth_id)]
OAuthScope = Annotated[str, BeforeValidator(_scope)]
OAuthUrl = Annotated[str, BeforeValidator(_oauth_url)]

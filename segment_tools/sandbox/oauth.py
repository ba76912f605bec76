"""OAuth for sources: tokens for those who prove to be an app, and which requests need one.

Source: https://segment.com/docs/connections/oauth/. What Segment's own Python and Node libraries send is the measure.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from segment_tools.sandbox.http import read
from segment_tools.sandbox.json_text import object_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

TOKEN_SECONDS = 86_400
"""A day, the shortest life of a token that Segment offers."""

EVERY_SOURCE = "*"

_TRACKING = "tracking_api:write"
_SCOPES = (_TRACKING, "functions:write", "public_api:read_write")
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_FORM = "application/x-www-form-urlencoded"

_LIFE_SECONDS, _LEEWAY_SECONDS = 60, 5
"""How long an assertion may live; the libraries make it 60 seconds. The leeway, for clocks and rounding, is ours."""

_FORM_BYTES, _MOST_FIELDS, _LEAST_BITS = 64 * 1024, 20, 2048
_MOST_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class OAuth:
    """Which apps get tokens by which keys, and the names of the sources that take nothing without one."""

    keys: Mapping[tuple[str, str], "RSAPublicKey"] = field(
        default_factory=dict[tuple[str, str], "RSAPublicKey"], repr=False
    )
    """Public keys by the app's id and the key's."""
    sources: frozenset[str] = frozenset()
    """`*` is every source."""
    token_seconds: float = TOKEN_SECONDS
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""

    def enforced(self, source: str) -> bool:
        """Whether the source takes nothing without a token."""
        return source in self.sources or EVERY_SOURCE in self.sources


def load_key(pem: bytes) -> "RSAPublicKey":
    """The app's public key.

    Raises:
        ValueError: it is none that Segment would take; the text says how to make one.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey) or key.key_size < _LEAST_BITS:
        raise ValueError(
            f"holds no RSA public key of {_LEAST_BITS} bits or more in PEM; make it from the private one with "
            "openssl rsa -in private.pem -pubout -out public.pem"
        )
    return key


class _Refused(Exception):
    def __init__(self, description: str, error: str = "invalid_request", status: int = 400) -> None:
        super().__init__(description)
        self.said = {"error": error, "error_description": description}
        self.status = status


class _Fresh:
    """What came within some seconds, in the order in which it came; only its digests are kept."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: dict[bytes, tuple[float, frozenset[str]]] = {}

    def add(self, text: str, now: float, scopes: frozenset[str] = frozenset()) -> None:
        self._forget(now)
        self._kept[_digest(text)] = (now, scopes)

    def find(self, text: str, now: float) -> frozenset[str] | None:
        came, scopes = self._kept.get(_digest(text), (float("-inf"), None))
        return scopes if now - came < self._seconds else None

    def _forget(self, now: float) -> None:
        while self._kept:
            digest, (came, _) = next(iter(self._kept.items()))
            if now - came < self._seconds and len(self._kept) < _MOST_KEPT:
                return
            del self._kept[digest]


def _digest(text: str) -> bytes:
    """What is looked up in place of the text, so that the time it takes tells nothing of the text."""
    return hashlib.sha256(text.encode(errors="replace")).digest()


class Tokens:
    """The tokens that a sandbox has given out, in memory: a restart revokes them."""

    def __init__(self, oauth: OAuth) -> None:
        self._oauth = oauth
        self._tokens = _Fresh(oauth.token_seconds)
        self._used = _Fresh(_LIFE_SECONDS + 4 * _LEEWAY_SECONDS)

    def admit(self, scheme: str, value: str, source: str) -> None:
        """Let the request of a source pass. [?] How Segment refuses one is not documented.

        Raises:
            HTTPException: 401; its token is none of ours, or it has none and the source takes nothing without.
        """
        if scheme == "bearer":
            if _TRACKING not in (self._tokens.find(value, self._oauth.clock()) or ()):
                raise HTTPException(
                    401, f"the token is unknown, expired or not for {_TRACKING}: POST /token gives another"
                )
        elif self._oauth.enforced(source):
            raise HTTPException(401, "this source takes OAuth alone: send a token of POST /token as Bearer")

    def issue(self, form: Mapping[str, str], base_urls: tuple[str, ...]) -> dict[str, Any]:
        """The answer to a request for a token, `base_urls` being this sandbox's addresses.

        Raises:
            _Refused: it proves nothing.
        """
        _expect(form, "grant_type", "client_credentials", "unsupported_grant_type")
        _expect(form, "client_assertion_type", _ASSERTION)
        scopes = _scopes(_given(form, "scope"))
        self._prove(_given(form, "client_assertion"), base_urls)
        token = secrets.token_urlsafe(32)
        self._tokens.add(token, self._oauth.clock(), scopes)
        return {"access_token": token, "token_type": "Bearer", "expires_in": int(self._oauth.token_seconds)}

    def _prove(self, assertion: str, base_urls: tuple[str, ...]) -> None:
        app, claims = self._signed(assertion)
        now = self._oauth.clock()
        if str(claims.get("aud")).rstrip("/") not in base_urls:
            raise _Refused(f"aud must be the address of this authorization server, {base_urls[0]}")
        _check_times(_seconds(claims, "iat"), _seconds(claims, "exp"), now)
        jti = claims.get("jti")
        if not isinstance(jti, str) or not jti:
            raise _Refused("jti must be a text that no other assertion has")
        once = f"{app}\n{jti}"
        if self._used.find(once, now) is not None:
            raise _Refused("jti was used before: make a new assertion for each request")
        self._used.add(once, now)

    def _signed(self, assertion: str) -> tuple[str, dict[str, Any]]:
        """The app that signed the assertion, and its claims. [?] Which of them are a 401 is not documented."""
        from jwt import PyJWS, PyJWTError

        try:
            read = PyJWS().decode_complete(assertion, options={"verify_signature": False})
            header, claims = cast("dict[str, Any]", read["header"]), object_of(read["payload"])
        except (PyJWTError, ValueError, RecursionError):
            raise _Refused("client_assertion is not a JWT") from None
        if header.get("alg") != "RS256":
            raise _Refused("the assertion must be signed with RS256")
        app, kid = claims.get("sub"), header.get("kid")
        key = self._oauth.keys.get((app, kid)) if isinstance(app, str) and isinstance(kid, str) else None
        if not isinstance(app, str) or key is None:
            raise _Refused("no app has this sub with a key of this kid", "invalid_client", 401)
        try:
            PyJWS().decode(assertion, key, algorithms=["RS256"])
        except PyJWTError:
            raise _Refused("the signature is not by the app's key", "invalid_client", 401) from None
        return app, claims


def _given(form: Mapping[str, str], name: str) -> str:
    if not form.get(name):
        raise _Refused(f"{name} is missing")
    return form[name]


def _expect(form: Mapping[str, str], name: str, wanted: str, error: str = "invalid_request") -> None:
    if _given(form, name) != wanted:
        raise _Refused(f"{name} must be {wanted}", error)


def _scopes(text: str) -> frozenset[str]:
    scopes = frozenset(text.split())
    if not scopes or not scopes <= set(_SCOPES):
        raise _Refused(f"scope must be of {', '.join(_SCOPES)}", "invalid_scope")
    return scopes


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value: object = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LATEST:
        raise _Refused(f"{name} must be a number of seconds since 1970")
    return value


_LATEST = 1e11
"""Far beyond any clock, and within what numbers can be reckoned with."""


def _check_times(issued: float, expires: float, now: float) -> None:
    """The first two texts are those on which Segment's Python library corrects its clock by our Date, and retries."""
    if expires < now - _LEEWAY_SECONDS:
        raise _Refused("Token is expired")
    if issued > now + _LEEWAY_SECONDS:
        raise _Refused("Token used before issued")
    if not 0 < expires - issued <= _LIFE_SECONDS + _LEEWAY_SECONDS:
        raise _Refused(f"exp must be after iat, and by {_LIFE_SECONDS} seconds at most")


def route(tokens: Tokens, middleware: Sequence[Middleware]) -> Route:
    """`POST /token`."""

    async def token(request: Request) -> Response:
        no_store = {"Cache-Control": "no-store"}
        try:
            return JSONResponse(tokens.issue(await _form(request), _addresses(request)), headers=no_store)
        except _Refused as refusal:
            return JSONResponse(refusal.said, refusal.status, no_store)

    return Route("/token", token, methods=["POST"], middleware=middleware)


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise _Refused(f"Content-Type must be {_FORM}", status=415)
    try:
        text = (await read(request.headers, request.receive, _FORM_BYTES)).decode()
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except (ValueError, HTTPException):
        raise _Refused("the form cannot be read") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise _Refused("a field is given twice")
    return form


def _addresses(request: Request) -> tuple[str, ...]:
    """What an assertion may call this server: this machine, or the name that the request came by."""
    port = request.scope["server"][1]
    host = request.headers.get("host", "")
    return f"http://127.0.0.1:{port}", f"http://localhost:{port}", f"http://{host}", f"https://{host}"

"""How bytes go to a server and come back: over aiohttp's connections, or by what stands in for the network."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import certifi

from segment_tools import environment
from segment_tools.addresses import is_loopback
from segment_tools.wire import Answer

if TYPE_CHECKING:
    import aiohttp
    import httpx
    from yarl import URL


class NoConnection(Exception):
    """None came about: nothing was sent."""


class Broken(Exception):
    """It broke, or what came is no HTTP: nobody knows what became of the request. The text is the kind of error."""


class Unusable(Exception):
    """The address is one that no connection can be made with."""


class UnusableSurroundings(Unusable):
    """A proxy or the certificates of the environment are."""


class Network(Protocol):
    """Asks one server."""

    async def open(self) -> None:
        """Do what is done once, before the first request in an event loop; not in the time that a request has.

        Raises:
            Unusable: no connection can be made.
        """
        ...

    async def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str], most: int) -> Answer:
        """The answer once it is open, with so many bytes of its body at most, and none where it is compressed.

        Redirects are not followed, and nothing limits the time.

        Raises:
            NoConnection, Broken, Unusable: there is none.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections; another request opens new ones."""
        ...


def load() -> None:
    """Import what speaks HTTP: that takes a fifth of a second, so it is done at the first request or in a thread."""
    import_module("aiohttp")


class Connections:
    """Asks one server over connections that are kept for the next requests, in one event loop after another."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._session: aiohttp.ClientSession | None = None
        self._held: AsyncGenerator[aiohttp.ClientSession] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """See `Network.open`."""
        await self._opened()

    async def _opened(self) -> "aiohttp.ClientSession":
        """A session of the running event loop: connections cannot leave theirs.

        A generator holds it, since an event loop that ends closes those by itself.
        """
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop, self._held = loop, _session(self._base_url)
            self._session = await anext(self._held)
        return self._session

    async def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str], most: int) -> Answer:
        """See `Network.ask`."""
        import aiohttp

        session = await self._opened()
        try:
            url = self._url(path)
            asked = session.request(method, url, data=body or None, headers=headers, allow_redirects=False)
            async with asked as response:
                return Answer(response.status, response.headers, await _body(response, most))
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError):
            raise NoConnection from None
        except aiohttp.InvalidURL:
            raise Unusable from None
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(type(error).__name__) from None
        except ValueError:
            raise Unusable from None

    def _url(self, path: str) -> "URL":
        """The path below the base URL, exactly as it is."""
        from yarl import URL

        return URL(self._base_url + path, encoded=True)

    async def aclose(self) -> None:
        """See `Network.aclose`."""
        held, self._held, self._session = self._held, None, None
        if held is not None and self._loop is asyncio.get_running_loop():
            await held.aclose()


async def _body(response: "aiohttp.ClientResponse", most: int) -> bytes:
    if not _is_plain(response.headers):
        return b""
    if response.content_length is not None and response.content_length <= most:
        return await response.read()
    return await _cut(response.content.iter_any(), most)


async def _session(base_url: str) -> "AsyncGenerator[aiohttp.ClientSession]":
    import aiohttp

    proxy = _proxy_for(base_url)
    connector = aiohttp.TCPConnector(limit=0, ssl=_trusted() if base_url.startswith("https:") else True)
    async with aiohttp.ClientSession(
        connector=connector,
        proxy=proxy,
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:
        yield session


def _trusted() -> ssl.SSLContext:
    """Whose certificates are trusted: those that the environment names, else those that browsers trust."""
    file, folder = environment.certificates()
    try:
        return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder)
    except OSError:
        raise UnusableSurroundings from None


def _proxy_for(base_url: str) -> str | None:
    """The proxy of the environment for this address, if any."""
    from urllib.request import getproxies, proxy_bypass

    url = urlsplit(base_url)
    # A proxy cannot reach this machine's own addresses, so it is not asked for them.
    if is_loopback(url.hostname or "") or proxy_bypass(url.netloc):
        return None
    chosen = getproxies()
    named = chosen.get(url.scheme) or chosen.get("all")
    return _usable(named if "://" in named else f"http://{named}") if named else None


def _usable(proxy: str) -> str:
    try:
        parts = urlsplit(proxy)
        _ = parts.port
    except ValueError:
        raise UnusableSurroundings from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UnusableSurroundings
    return proxy


class StandIn:
    """Asks what stands in for the network: what httpx calls a transport, such as its `MockTransport`."""

    def __init__(self, base_url: str, http: "httpx.AsyncBaseTransport") -> None:
        self._base_url, self._http = base_url, http

    async def open(self) -> None:
        """See `Network.open`."""

    async def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str], most: int) -> Answer:
        """See `Network.ask`."""
        import httpx

        try:
            request = httpx.Request(method, self._base_url + path, content=body or None, headers=dict(headers))
            response = await self._http.handle_async_request(request)
            try:
                found = await _cut(response.aiter_bytes(), most) if _is_plain(response.headers) else b""
                return Answer(response.status_code, response.headers, found)
            finally:
                await response.aclose()
        except httpx.TimeoutException:
            raise TimeoutError from None
        except httpx.ConnectError:
            raise NoConnection from None
        except (httpx.HTTPError, OSError) as error:
            raise Broken(type(error).__name__) from None
        except (httpx.InvalidURL, ValueError):
            raise Unusable from None

    async def aclose(self) -> None:
        """See `Network.aclose`."""
        await self._http.aclose()


def _is_plain(headers: Mapping[str, str]) -> bool:
    return headers.get("content-encoding", "identity") == "identity"


async def _cut(parts: AsyncIterator[bytes], most: int) -> bytes:
    received = bytearray()
    async for part in parts:
        received += part
        if len(received) >= most:
            break
    return bytes(received[:most])

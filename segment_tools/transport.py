"""HTTP to Segment: the only importer of httpx, but for the sandbox's webhooks."""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from urllib.parse import urlsplit

import httpx

from segment_tools import telemetry
from segment_tools.addresses import is_loopback
from segment_tools.errors import NotConfigured, Unavailable
from segment_tools.services import TRACKING, Service
from segment_tools.wire import Answer

ANSWER_BYTES = 64 * 1024
"""How much of an answer is read. Segment's are a line; what answers in its place may send without end."""


_IDLE = 20
"""How many connections are kept for the next requests: as many as httpx keeps by itself."""

_asking: ContextVar[bool] = ContextVar("asking", default=False)


def _not_ours(_: logging.LogRecord) -> bool:
    """For httpx's log, which has every URL: those of our requests may hold a key, or somebody's id."""
    return not _asking.get()


class Transport:
    """Asks one base URL over kept connections; opened at the first request, so that starting costs nothing.

    `http` replaces the network, in tests. `service` is the API that answers there.
    """

    def __init__(
        self, base_url: str, http: httpx.AsyncBaseTransport | None = None, service: Service = TRACKING
    ) -> None:
        self.service = service
        self._base_url = base_url
        self._server = telemetry.server_of(base_url)
        self._http = http
        self._clients: set[httpx.AsyncClient] = set()
        self._idle: list[httpx.AsyncClient] = []
        self._trusted: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> Answer:
        """The answer to one POST, whatever its status. Redirects are not followed.

        Raises:
            Unavailable: no connection, or no whole answer in time.
            NotConfigured: the address or a proxy of the environment is one that no connection can be made with.
        """
        return await self._asked("POST", path, body, headers, timeout_seconds, ANSWER_BYTES)

    async def get(self, path: str, headers: Mapping[str, str], timeout_seconds: float, answer_bytes: int) -> Answer:
        """The answer to one GET, as `post`; of a larger answer the first bytes are kept, and one more."""
        return await self._asked("GET", path, b"", headers, timeout_seconds, answer_bytes + 1)

    async def _asked(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float, most: int
    ) -> Answer:
        # What is read has ids of people and keys in its path; what is posted has them in its body.
        shown = path if method == "POST" else None
        with telemetry.requesting(method, self._server, shown, int(headers.get("X-Retry-Count", 0))) as answered:
            answer = await self._tried(method, path, body, headers, timeout_seconds, most)
            answered(answer.status)
            return answer

    async def _tried(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float, most: int
    ) -> Answer:
        client, service = self._taken(), self.service
        asking = _asking.set(True)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._answered(client, method, path, body, headers, most)
        except (TimeoutError, httpx.TimeoutException):
            text = f"{service.name} did not answer within {timeout_seconds:.3g} seconds."
            raise Unavailable(text, hint=service.unknown, code="timeout") from None
        except httpx.ConnectError:
            text = f"No connection to {self._base_url}."
            hint = f"Check the network and {service.setting}, then try again."
            raise Unavailable(text, hint=hint, code="no_connection", sent=False) from None
        except (httpx.HTTPError, OSError) as error:
            text = f"The connection to {self._base_url} failed ({type(error).__name__})."
            raise Unavailable(text, hint=service.unknown, code="network_error") from None
        except (httpx.InvalidURL, ValueError, OverflowError, ExceptionGroup):
            raise _unusable("The address", service) from None
        finally:
            _asking.reset(asking)
            await self._put_back(client)

    async def _answered(
        self, client: httpx.AsyncClient, method: str, path: str, body: bytes, headers: Mapping[str, str], most: int
    ) -> Answer:
        # Not compressed, and not read where it is all the same: a small answer must not become a large one.
        asked = {**headers, "Accept-Encoding": "identity"}
        async with client.stream(method, self._base_url + path, content=body or None, headers=asked) as response:
            received = bytearray()
            if response.headers.get("content-encoding", "identity") == "identity":
                async for part in response.aiter_bytes():
                    received += part
                    if len(received) >= most:
                        break
            return Answer(response.status_code, response.headers, bytes(received[:most]))

    def _taken(self) -> httpx.AsyncClient:
        """A client that nobody uses just now, of the running event loop: connections cannot leave theirs.

        Each keeps one connection: many requests on one client take turns in httpx's pool, at half of the speed.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._clients, self._idle = loop, set(), []
        if not self._idle:
            self._idle.append(self._opened())
            self._clients.add(self._idle[-1])
        return self._idle.pop()

    def _opened(self) -> httpx.AsyncClient:
        logging.getLogger("httpx").addFilter(_not_ours)  # the same one again changes nothing
        # A proxy cannot reach this machine's own addresses, so what names one is not asked for them.
        proxied = not is_loopback(urlsplit(self._base_url).hostname or "")
        try:
            self._trusted = self._trusted or httpx.create_ssl_context(trust_env=proxied)
            return httpx.AsyncClient(
                transport=self._http,
                verify=self._trusted,
                timeout=None,  # noqa: S113 - `post` sets the one deadline, over all of an attempt
                follow_redirects=False,
                trust_env=proxied,
            )
        except (ValueError, ImportError, OSError, httpx.InvalidURL):
            raise _unusable("A proxy or certificate setting of the environment", self.service) from None

    async def _put_back(self, client: httpx.AsyncClient) -> None:
        if client in self._clients and len(self._idle) < _IDLE:
            self._idle.append(client)
        else:
            self._clients.discard(client)
            await client.aclose()

    async def aclose(self) -> None:
        """Close the connections; another post opens new ones."""
        clients, self._clients, self._idle = self._clients, set[httpx.AsyncClient](), []
        if self._loop is asyncio.get_running_loop():
            await asyncio.gather(*(client.aclose() for client in clients))


def _unusable(what: str, service: Service) -> NotConfigured:
    hint = f"Ask whoever runs this to check {service.setting}, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE."
    return NotConfigured(service.setting, f"{what} is one that no connection can be made with.", hint=hint)

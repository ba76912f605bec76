"""HTTP to Segment: the only importer of httpx."""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from segment_tools.errors import Unavailable
from segment_tools.settings import is_loopback
from segment_tools.wire import Answer

ANSWER_BYTES = 64 * 1024
"""How much of an answer is read. Segment's are a line; what answers in its place may send without end."""

_UNKNOWN = "The message may have arrived; try again with the same messageId, which makes a repeat safe."


class Transport:
    """Posts to one base URL over kept connections; made at the first post, so that starting costs nothing.

    `http` replaces the network, in tests.
    """

    def __init__(self, base_url: str, http: httpx.AsyncBaseTransport | None = None) -> None:
        self._base_url = base_url
        self._http = http
        self._client: httpx.AsyncClient | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> Answer:
        """The answer to one POST, whatever its status. Redirects are not followed.

        Raises:
            Unavailable: no connection, or no whole answer in time.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._post(path, body, headers)
        except (TimeoutError, httpx.TimeoutException):
            text = f"Segment did not answer within {timeout_seconds:.3g} seconds."
            raise Unavailable(text, hint=_UNKNOWN, code="timeout") from None
        except httpx.ConnectError:
            text = f"No connection to {self._base_url}."
            raise Unavailable(
                text, hint="Check the network and SEGMENT_DATA_PLANE_URL, then try again.", code="no_connection"
            ) from None
        except (httpx.HTTPError, OSError) as error:
            text = f"The connection to {self._base_url} failed ({type(error).__name__})."
            raise Unavailable(text, hint=_UNKNOWN, code="network_error") from None

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        async with self._open().stream("POST", self._base_url + path, content=body, headers=dict(headers)) as response:
            received = bytearray()
            async for part in response.aiter_bytes():
                received += part
                if len(received) >= ANSWER_BYTES:
                    break
            return Answer(response.status_code, response.headers, bytes(received[:ANSWER_BYTES]))

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            # A proxy cannot reach this machine's own addresses, so what names one is not asked for them.
            proxied = not is_loopback(urlsplit(self._base_url).hostname or "")
            self._client = httpx.AsyncClient(
                transport=self._http,
                timeout=None,  # noqa: S113 - `post` sets the one deadline, over all of an attempt
                follow_redirects=False,
                trust_env=proxied,
            )
        return self._client

    async def aclose(self) -> None:
        """Close the connections; another post opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

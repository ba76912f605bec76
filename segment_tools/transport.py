"""HTTP to Segment: what is asked of which of its APIs, within which time, and what it means when nothing answers."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from segment_tools import telemetry
from segment_tools.errors import NotConfigured, Unavailable
from segment_tools.network import Broken, Connections, Network, NoConnection, StandIn, Unusable, UnusableSurroundings
from segment_tools.services import TRACKING, Service
from segment_tools.wire import Answer

if TYPE_CHECKING:
    import httpx

ANSWER_BYTES = 64 * 1024
"""How much of an answer is read. Segment's are a line; what answers in its place may send without end."""


class Transport:
    """Asks one base URL over kept connections; opened at the first request, so that starting costs nothing.

    `http` replaces the network, in tests. `service` is the API that answers there.
    """

    def __init__(
        self, base_url: str, http: "httpx.AsyncBaseTransport | None" = None, service: Service = TRACKING
    ) -> None:
        self.service = service
        self._base_url = base_url
        self._server = telemetry.server_of(base_url)
        self._network: Network = Connections(base_url) if http is None else StandIn(base_url, http)

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
        service = self.service
        # Not compressed: a small answer must not become a large one.
        asked = {**headers, "Accept-Encoding": "identity"}
        try:
            await self._network.open()
            async with asyncio.timeout(timeout_seconds):
                return await self._network.ask(method, path, body, asked, most)
        except TimeoutError:
            text = f"{service.name} did not answer within {timeout_seconds:.3g} seconds."
            raise Unavailable(text, hint=service.unknown, code="timeout") from None
        except NoConnection:
            text = f"No connection to {self._base_url}."
            hint = f"Check the network and {service.setting}, then try again."
            raise Unavailable(text, hint=hint, code="no_connection", sent=False) from None
        except Broken as error:
            text = f"The connection to {self._base_url} failed ({error})."
            raise Unavailable(text, hint=service.unknown, code="network_error") from None
        except UnusableSurroundings:
            raise _unusable("A proxy or certificate setting of the environment", service) from None
        except Unusable:
            raise _unusable("The address", service) from None

    async def aclose(self) -> None:
        """Close the connections; another post opens new ones."""
        await self._network.aclose()


def _unusable(what: str, service: Service) -> NotConfigured:
    hint = f"Ask whoever runs this to check {service.setting}, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE."
    return NotConfigured(service.setting, f"{what} is one that no connection can be made with.", hint=hint)

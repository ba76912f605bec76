"""What becomes of bytes between this program and a server: real connections, proxies and certificates."""

import asyncio
import gc
import gzip
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support import WAIT, Time, settings, until

from segment_tools import NotConfigured, Segment, SegmentError, Track, Transport, Unavailable
from segment_tools.sandbox.run import Sandbox

pytestmark = pytest.mark.anyio
MESSAGE = Track(event="Order Completed", user_id="u1")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" + b'{"success":true}'


@dataclass
class Server:
    """Answers each request with the next bytes, the last for ever; None ends the connection in place of an answer."""

    answers: list[bytes | None] = field(default_factory=lambda: [OK])
    closing: bool = False
    """Whether it ends the connection after each answer, which does not say so."""
    connections: int = 0
    requests: list[str] = field(default_factory=list)
    ended: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                self.requests.append(head)
                length = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                await reader.readexactly(int(length[0].split(":")[1]) if length else 0)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if self.closing:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended += 1
            writer.close()


@asynccontextmanager
async def listening(server: Server, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    async with asyncio.timeout(WAIT):
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
        server.port = listener.sockets[0].getsockname()[1]
        async with listener:
            yield server


@asynccontextmanager
async def client(address: str, **chosen: object) -> AsyncIterator[Segment]:
    async with Segment(settings(data_plane_url=address, timeout_seconds=5, **chosen)) as segment:
        yield segment


async def test_call_after_call_goes_over_one_connection() -> None:
    async with listening(Server()) as server, client(f"127.0.0.1:{server.port}") as segment:
        receipts = [await segment.send(MESSAGE) for _ in range(5)]
    assert {receipt.status for receipt in receipts} == {"accepted"}
    assert (server.connections, len(server.requests)) == (1, 5)


async def test_a_connection_that_ended_between_two_calls_is_not_used_again() -> None:
    async with listening(Server(closing=True)) as server, client(f"127.0.0.1:{server.port}") as segment:
        for number in range(3):
            receipt = await segment.send(MESSAGE)
            assert (receipt.status, receipt.attempts) == ("accepted", 1)
            await until(lambda number=number: server.ended > number)
            await asyncio.sleep(0)
    assert server.connections == 3


async def test_a_connection_that_ends_in_place_of_an_answer_is_tried_again_as_another() -> None:
    async with listening(Server([OK, None, OK])) as server, client(f"127.0.0.1:{server.port}") as segment:
        await segment.send(MESSAGE)
        receipt = await segment.send(MESSAGE)
    assert (receipt.status, receipt.attempts) == ("accepted", 2)
    assert "x-retry-count: 1" in server.requests[2].lower()


async def test_no_request_has_a_cookie_or_asks_for_compression() -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n\r\n")
    async with listening(Server([answer])) as server, client(f"127.0.0.1:{server.port}") as segment:
        await segment.send(MESSAGE)
        await segment.send(MESSAGE)
    heads = "".join(server.requests).lower()
    assert "cookie" not in heads
    assert heads.count("accept-encoding: identity") == 2


ENDLESS = (
    b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"FFFF\r\n" + b"x" * 0xFFFF + b"\r\n") * 4
)
PACKED = gzip.compress(b"0" * 10**7)
COMPRESSED = b"HTTP/1.1 400 No\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED) + PACKED


@pytest.mark.parametrize("answer", [ENDLESS, COMPRESSED], ids=["endless", "compressed"])
async def test_of_an_answer_no_more_is_read_than_an_error_can_use(answer: bytes) -> None:
    async with listening(Server([answer])) as server, client(f"127.0.0.1:{server.port}") as segment:
        with pytest.raises(SegmentError) as raised:
            await segment.send(MESSAGE)
    assert raised.value.status_code == 400
    assert len(str(raised.value)) < 600


async def test_where_nobody_listens_nothing_was_sent(time: Time) -> None:
    async with listening(Server()) as server:
        pass
    chosen = settings(data_plane_url=f"127.0.0.1:{server.port}")
    async with Segment(chosen, surroundings=time.surroundings()) as segment:
        with pytest.raises(Unavailable, match="No connection to") as raised:
            await segment.send(MESSAGE)
    assert raised.value.code == "no_connection"
    assert raised.value.receipt is not None
    assert not raised.value.receipt.sent


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize("form", ["http://{}", "{}"])
async def test_the_proxy_of_the_environment_is_asked_for_the_data_plane(
    name: str, form: str, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    async with listening(Server([refusing])) as server:
        monkeypatch.setenv(name, form.format(f"jane:pass-4711@127.0.0.1:{server.port}"))
        async with Segment(settings(), surroundings=time.surroundings()) as segment:
            with pytest.raises(Unavailable) as raised:
                await segment.send(MESSAGE)
    assert raised.value.code == "no_connection"
    assert server.requests[0].startswith("CONNECT api.segment.io:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic amFuZTpwYXNzLTQ3MTE=\r\n" in server.requests[0]
    assert "pass-4711" not in f"{raised.value}{raised.value!r}"


async def test_what_no_proxy_names_is_asked_directly(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(Server()) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("NO_PROXY", "example.com,segment.invalid")
        chosen = settings(data_plane_url="https://events.segment.invalid")
        async with Segment(chosen, surroundings=time.surroundings()) as segment:
            with pytest.raises(Unavailable, match=r"No connection to https://events\.segment\.invalid"):
                await segment.send(MESSAGE)
    assert server.requests == []


async def test_this_machine_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with listening(Server()) as server, client(f"127.0.0.1:{server.port}") as segment:
        assert (await segment.send(MESSAGE)).status == "accepted"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for this machine that nobody trusts unless told, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]), datetime.now(UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    text = serialization.Encoding.PEM
    private = key.private_bytes(text, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path, whole = tmp_path / "certificate.pem", tmp_path / "whole.pem"
    path.write_bytes(made.public_bytes(text))
    whole.write_bytes(private + made.public_bytes(text))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(whole)
    return path, context


async def test_a_certificate_that_the_environment_names_is_trusted(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with (
        listening(Server(), certificate[1]) as server,
        client(f"https://127.0.0.1:{server.port}") as segment,
    ):
        assert (await segment.send(MESSAGE)).status == "accepted"


async def test_a_certificate_that_nobody_trusts_ends_the_call_before_anything_is_sent(
    certificate: tuple[Path, ssl.SSLContext], time: Time
) -> None:
    async with listening(Server(), certificate[1]) as server:
        chosen = settings(data_plane_url=f"https://127.0.0.1:{server.port}")
        async with Segment(chosen, surroundings=time.surroundings()) as segment:
            with pytest.raises(Unavailable, match="No connection to"):
                await segment.send(MESSAGE)
    assert server.requests == []


@pytest.mark.parametrize("host", ["a..example.com", f"{'a' * 64}.example.com"])
async def test_a_host_that_cannot_be_one_is_named(host: str) -> None:
    transport = Transport(f"https://{host}")
    with pytest.raises((NotConfigured, Unavailable), match="SEGMENT_DATA_PLANE_URL"):
        await transport.post("/v1/track", b"{}", {}, 5)
    await transport.aclose()


def test_an_event_loop_that_ends_closes_its_connections(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    segment = Segment(settings(data_plane_url=sandbox.url))
    receipts = [asyncio.run(segment.send(MESSAGE)) for _ in range(3)]
    del segment
    gc.collect()
    assert [receipt.status for receipt in receipts] == ["accepted"] * 3
    assert caplog.text == ""


def test_what_speaks_http_is_not_loaded_by_a_start_but_soon_after(environ: dict[str, str]) -> None:
    code = """
import asyncio, sys
from segment_tools import Segment, Settings, client
client.WARM_SECONDS = 0.0
async def main():
    async with Segment(Settings.from_env()):
        print("aiohttp" in sys.modules or "httpx" in sys.modules, flush=True)
        while not hasattr(sys.modules.get("aiohttp"), "ClientSession"):
            await asyncio.sleep(0.01)
asyncio.run(main())
"""
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=WAIT, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")

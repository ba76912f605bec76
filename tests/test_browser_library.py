"""Segment's own browser library, in a browser, against the sandbox: what it sent is what is stored."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import node as node_tools
import pytest
from playwright.sync_api import Browser
from support import WAIT

from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox
from segment_tools.sandbox.sources import Sources

KEY = "browser-library-key"
LIBRARY = node_tools.INSTALLED / "node_modules/@segment/analytics-next/dist/umd"

SEND = """
async ({ key, url, batching }) => {
  const network = { apiHost: url.replace("http://", "") + "/v1", protocol: "http" };
  const together = { deliveryStrategy: { strategy: "batching", config: { size: 10, timeout: 100 } } };
  const analytics = window.AnalyticsNext.AnalyticsBrowser.load(
    { writeKey: key, cdnURL: url },
    { integrations: { "Segment.io": { ...network, ...(batching ? together : {}) } } },
  );
  const sent = [
    await analytics.track("Order Completed", { revenue: 9.5, note: "Käse 🧀" }),
    await analytics.identify("u1", { email: "ada@example.com" }),
    await analytics.page("Docs", "Pricing"),
    await analytics.screen("Shop", "Checkout", { step: 2 }),
    await analytics.group("g1", { plan: "team" }),
    await analytics.alias("u2", "u1"),
  ];
  return sent.map(({ event }) => JSON.stringify(event));
}
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature is the library's
        pass


@pytest.fixture(scope="module")
def shop(node: list[str]) -> Iterator[str]:
    """A page elsewhere, that the library is loaded from."""
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(LIBRARY)))
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join(WAIT)
    served.server_close()


@pytest.mark.parametrize("batching", [False, True])
def test_what_the_browser_library_sends_is_stored(batching: bool, shop: str, browser: Browser) -> None:
    import json

    with Sandbox(options=Options(Sources({KEY: "shop"}))) as sandbox:
        page = browser.new_page()
        page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page.goto(f"{shop}/index.js")
        page.set_content("<title>Shop</title>")
        page.add_script_tag(url="/index.js")
        given = page.evaluate(SEND, {"key": KEY, "url": sandbox.url, "batching": batching})
        arrived = {message["messageId"]: message for message in sandbox.wait_for(6, seconds=WAIT)}
        paths = {row["path"] for row in sandbox.store.messages()}
        page.close()
        assert sandbox.discards() == []
    assert paths == ({"/v1/b"} if batching else {f"/v1/{letter}" for letter in "tipsga"})
    assert [json.loads(text)["type"] for text in given] == ["track", "identify", "page", "screen", "group", "alias"]
    for text in given:
        sent = json.loads(text)
        message = arrived[sent["messageId"]]
        for name in ("type", "event", "userId", "anonymousId", "groupId", "previousId", "name", "category"):
            assert message.get(name) == sent.get(name)
        for name in ("properties", "traits"):
            assert message.get(name) == sent.get(name)
        assert message["context"]["page"] == sent["context"]["page"]
        assert message["context"]["library"]["name"] == "analytics.js"


def test_a_key_that_no_source_has_loads_nothing(shop: str, browser: Browser) -> None:
    with Sandbox(options=Options(Sources({KEY: "shop"}))) as sandbox:
        page = browser.new_page()
        page.goto(f"{shop}/index.js")
        assert (
            page.evaluate("async (url) => (await fetch(url)).status", f"{sandbox.url}/v1/projects/other-key/settings")
            == 404
        )
        page.close()

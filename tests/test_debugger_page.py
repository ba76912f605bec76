"""The debugger's page in a real browser: what it shows, that it stays smooth, and that no message harms it."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import node as node_tools
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect
from support import KEY, MIXED, TRACK, WAIT, mcp, rows, settings

from segment_tools.sandbox.judge import REASONS
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox, bind
from segment_tools.sandbox.sources import Sources

BOUND = 5_000
"""Milliseconds that nothing on the page takes: what does, hangs."""


PROFILE: dict[str, Any] = {
    "segmentId": "use_1abc",
    "collection": "users",
    "externalIds": [{"type": "user_id", "id": "u1"}, {"type": "email", "id": "<b>anna@example.com</b>"}],
    "traits": {"plan": "pro", "<img src=x onerror=alert(1)>": "<script>alert(1)</script>"},
    "events": [
        {"sequence": 1, "receivedAt": "2026-11-23T12:00:00.000Z", "type": "track", "name": "Signed Up", "userId": "u1"}
    ],
    "merges": [
        {
            "at": "2026-11-23T12:00:00.000Z",
            "merged": "use_2def",
            "because": [{"type": "user_id", "id": "u1"}, {"type": "email", "id": "anna@example.com"}],
            "messageId": "m1",
            "sequence": 2,
        }
    ],
    "links": [
        {"collection": "accounts", "segmentId": "acc_1", "externalIds": [{"type": "group_id", "id": "<i>acme</i>"}]}
    ],
    "metadata": {"createdAt": "2026-11-23T12:00:00.000Z"},
}


class Watched:
    """A page, and everything on it that should not happen."""

    def __init__(self, context: BrowserContext, url: str, forgiven: str | None) -> None:
        self.url = url
        self.forgiven = forgiven
        self.wrong: list[str] = []
        context.set_default_timeout(BOUND)
        self.page = context.new_page()
        self.page.on("console", lambda message: self._said(message.type, message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self._requested(request.url))

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not (self.forgiven and self.forgiven in text):
            self.wrong.append(f"{kind}: {text}")

    def _requested(self, url: str) -> None:
        if not url.startswith("data:") and urlsplit(url).netloc != urlsplit(self.url).netloc:
            self.wrong.append(f"request: {url}")


Opener = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, sandbox: Sandbox) -> Iterator[Opener]:
    """Open the page, live, in a browser of its own; at the end nothing may have gone wrong on it."""
    contexts: list[BrowserContext] = []
    watched: list[Watched] = []

    def open_page(
        path: str = "/",
        routes: dict[str, Any] | None = None,
        at: Sandbox = sandbox,
        forgiven: str | None = None,
        **options: Any,
    ) -> Page:
        contexts.append(browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options))
        watched.append(Watched(contexts[-1], at.url, forgiven))
        page = watched[-1].page
        for pattern, answer in (routes or {}).items():
            page.route(pattern, answer)
        page.goto(at.url + path)
        expect(page.locator("#connection")).to_have_text("Live", timeout=BOUND)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [wrong for each in watched for wrong in each.wrong] == []


def send(sandbox: Sandbox, *messages: Any, key: str = KEY) -> None:
    """Have the messages taken, in one batch."""
    body = json.dumps({"batch": messages})
    with httpx.Client(base_url=sandbox.url, auth=(key, ""), trust_env=False, timeout=WAIT) as client:
        assert client.post("/v1/batch", content=body).json() == {"success": True}


def listed(page: Page) -> Locator:
    return page.locator("#list .rows .row")


def names(page: Page) -> list[str]:
    """The names in the list, from top to bottom."""
    cells = page.locator("#list .rows .row")
    script = "rows => rows.map(row => [Number(row.ariaRowIndex), row.querySelector('.name').textContent])"
    return [name for _, name in sorted(cells.evaluate_all(script))]


def shows(page: Page, count: int) -> None:
    expect(listed(page)).to_have_count(count, timeout=BOUND)


def test_a_tools_message_appears_at_once(opened: Opener, sandbox: Sandbox) -> None:
    async def track() -> None:
        async with mcp(settings(data_plane_url=sandbox.url)) as client:
            await client.call_tool("segment_track", {"event": "Order Completed", "userId": "u1"})

    page = opened()
    page.evaluate("""() => new MutationObserver(() => { window.appeared ??= Date.now(); })
        .observe(document.querySelector("#list .rows"), {childList: true})""")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(track())).result(WAIT)
    row = listed(page)
    expect(row).to_have_count(1, timeout=BOUND)
    for text in ("track", "Order Completed", "u1", "Accepted"):
        expect(row).to_contain_text(text)
    (kept,) = rows(sandbox)
    received = page.evaluate("text => new Date(text).getTime()", kept["receivedAt"])
    assert page.evaluate("window.appeared") - received < 1000


def test_an_empty_sandbox_says_how_to_begin(opened: Opener, sandbox: Sandbox) -> None:
    page = opened()
    empty = page.locator("#empty")
    expect(empty).to_contain_text(f"curl {sandbox.url}/v1/track")
    expect(empty).to_contain_text(f"SEGMENT_DATA_PLANE_URL={urlsplit(sandbox.url).netloc}")
    send(sandbox, TRACK)
    shows(page, 1)
    expect(empty).to_be_hidden()


def test_the_newest_message_is_first_and_every_verdict_is_in_words(opened: Opener, sandbox: Sandbox) -> None:
    page = opened()
    for message in MIXED:
        send(sandbox, message)
    shows(page, len(MIXED))
    assert names(page) == ["–", "–", "–", "–", "Home", "Order Completed"]
    verdicts = page.locator("#list .rows .verdict").all_text_contents()
    assert sorted(verdicts) == sorted(["Accepted"] * 3 + ["event_not_defined", "bad_request", "duplicate"])


@pytest.mark.parametrize(
    ("field", "value", "count"),
    [
        ("type", "track", 2),
        ("verdict", "accepted", 3),
        ("verdict", "discarded", 3),
        ("verdict", "duplicate", 1),
        ("text", "order COMP", 1),
        ("text", "nothing has this", 0),
    ],
)
def test_a_filter_holds_for_what_is_there_and_for_what_comes(
    field: str, value: str, count: int, opened: Opener, sandbox: Sandbox
) -> None:
    send(sandbox, *MIXED)
    page = opened()
    shows(page, len(MIXED))
    if field == "text":
        page.get_by_role("searchbox", name="Search in messages").fill(value)
    else:
        page.locator(f"[name={field}]").select_option(value)
    shows(page, count)
    expect(page.locator("#connection")).to_have_text("Live")
    send(sandbox, *MIXED[:4], {"type": "identify", "userId": "u4", "messageId": "m1"})
    more = {"track": 2, "accepted": 2, "discarded": 3, "duplicate": 1, "order COMP": 1}.get(value, 0)
    shows(page, count + more)
    if not count:
        page.get_by_role("button", name="Show all messages").click()
        expect(listed(page).first).to_be_visible()


def test_a_source_can_be_chosen(opened: Opener) -> None:
    options = Options(Sources({"key-of-web": "web", "key-of-ios": "ios"}))
    with Sandbox(options=options) as running:
        send(running, TRACK, TRACK, key="key-of-web")
        page = opened(at=running)
        send(running, TRACK, key="key-of-ios")
        shows(page, 3)
        page.get_by_label("Source").select_option("ios")
        shows(page, 1)
        expect(listed(page)).to_contain_text("ios")
        page.close()


def test_details_show_what_was_sent_and_what_would_be_delivered(opened: Opener, sandbox: Sandbox) -> None:
    big = 12345678901234567890
    send(sandbox, {**TRACK, "properties": {"big": big, "on": True, "none": None}})
    page = opened()
    listed(page).click()
    details = page.get_by_role("dialog")
    sent, delivered = (details.get_by_role("group", name=name) for name in ("Sent", "Would be delivered"))
    assert json.loads(sent.inner_text()) == rows(sandbox)[0]["sent"]
    assert json.loads(delivered.inner_text()) == rows(sandbox)[0]["message"]
    assert str(big) in sent.inner_text()
    expect(details.locator(".key").first).to_have_text('"type"')
    page.keyboard.press("Escape")
    expect(details).to_be_hidden()


def test_details_of_a_discard_say_how_to_mend_it(opened: Opener, sandbox: Sandbox) -> None:
    send(sandbox, {"type": "track", "userId": "u2"})
    page = opened()
    listed(page).click()
    details = page.get_by_role("dialog")
    expect(details.locator(".discard")).to_contain_text("event_not_defined")
    expect(details.locator(".discard")).to_contain_text(REASONS["event_not_defined"].replace("`", ""))
    expect(details.get_by_role("group", name="Would be delivered")).to_have_count(0)


def test_a_message_has_an_address_of_its_own(opened: Opener, sandbox: Sandbox) -> None:
    send(sandbox, TRACK)
    sequence = sandbox.store.last()
    page = opened(f"/#/messages/{sequence}", forgiven="404")
    expect(page.get_by_role("heading", name=f"Message {sequence}")).to_be_focused()
    page.goto(f"{sandbox.url}/#/messages/999999")
    expect(page.get_by_role("dialog")).to_contain_text("no longer kept")


def test_pausing_holds_the_list_and_counts_what_comes(opened: Opener, sandbox: Sandbox) -> None:
    send(sandbox, TRACK)
    page = opened()
    shows(page, 1)
    page.get_by_role("button", name="Pause").click()
    send(sandbox, TRACK, TRACK)
    expect(page.locator("#fresh")).to_have_text("2 new messages: show")
    shows(page, 1)
    page.get_by_role("button", name="Resume").click()
    shows(page, 3)
    expect(page.locator("#fresh")).to_be_hidden()
    send(sandbox, TRACK)
    shows(page, 4)


def test_whoever_reads_further_down_is_not_disturbed(opened: Opener, sandbox: Sandbox) -> None:
    send(sandbox, *[TRACK] * 150)
    page = opened()
    expect(listed(page).first).to_be_visible()
    page.locator("#list").evaluate("list => { list.scrollTop = 1500; }")
    expect(page.locator("[aria-rowindex='52']")).to_be_visible()
    before = page.locator("[aria-rowindex='52']").get_attribute("id")
    send(sandbox, TRACK)
    expect(page.locator("#fresh")).to_have_text("1 new message: show")
    assert page.locator("[aria-rowindex='52']").get_attribute("id") == before
    page.locator("#fresh").click()
    expect(page.locator(f"#row-{sandbox.store.last()}")).to_be_visible()


@pytest.mark.parametrize("has_clipboard", [True, False], ids=["clipboard", "fallback"])
@pytest.mark.parametrize("width", [1280, 375])
def test_what_makes_the_message_again_can_be_copied(
    has_clipboard: bool, width: int, opened: Opener, sandbox: Sandbox
) -> None:
    send(sandbox, TRACK)
    page = opened(viewport={"width": width, "height": 700})
    if not has_clipboard:
        page.evaluate("Object.defineProperty(navigator.clipboard, 'writeText', {value: () => Promise.reject()})")
    listed(page).click()
    found = httpx.get(f"{sandbox.url}/_sandbox/messages/{sandbox.store.last()}", trust_env=False).json()
    for label in ("curl", "tool call"):
        button = page.get_by_role("button", name=f"Copy {label}")
        button.click()
        expect(button).to_have_text("Copied")
        text = page.evaluate("navigator.clipboard.readText()")
        assert (text if label == "curl" else json.loads(text)) == found["curl" if label == "curl" else "toolCall"]
    expect(page.locator("#announcer")).to_have_text("Copied tool call")


def test_clearing_asks_first(opened: Opener, sandbox: Sandbox) -> None:
    send(sandbox, *MIXED)
    page = opened()
    shows(page, len(MIXED))
    page.get_by_role("button", name="Clear…").click()
    page.get_by_role("button", name="Cancel").click()
    shows(page, len(MIXED))
    page.get_by_role("button", name="Clear…").click()
    page.get_by_role("button", name="Forget all").click()
    shows(page, 0)
    expect(page.locator("#empty")).to_contain_text("Waiting for the first message")
    assert rows(sandbox) == []


def test_what_another_page_cleared_goes(opened: Opener, sandbox: Sandbox) -> None:
    send(sandbox, *MIXED)
    page = opened()
    shows(page, len(MIXED))
    sandbox.store.clear()
    shows(page, 0)


def test_everything_can_be_done_with_the_keyboard(opened: Opener, sandbox: Sandbox) -> None:
    send(sandbox, *({**TRACK, "event": f"Event {number}"} for number in range(100)))
    page = opened()
    expect(listed(page).first).to_be_visible()
    press, grid = page.keyboard.press, page.get_by_role("grid")
    selected = page.locator("[aria-selected=true] .name")

    press("/")
    expect(page.get_by_role("searchbox", name="Search in messages")).to_be_focused()
    for _ in range(12):
        if grid.evaluate("grid => grid === document.activeElement"):
            break
        press("Tab")
    expect(grid).to_be_focused()
    for key, name in (
        ("ArrowDown", "Event 99"),
        ("ArrowDown", "Event 98"),
        ("ArrowUp", "Event 99"),
        ("End", "Event 0"),
        ("Home", "Event 99"),
    ):
        press(key)
        expect(selected).to_have_text(name)
    press("PageDown")
    expect(selected).not_to_have_text("Event 99")
    expect(selected).to_be_in_viewport()
    press("PageUp")
    expect(selected).to_have_text("Event 99")
    assert grid.get_attribute("aria-activedescendant") == page.locator("[aria-selected=true]").get_attribute("id")

    press("Enter")
    title = page.locator("#details-title")
    expect(title).to_be_focused()
    press("Escape")
    expect(grid).to_be_focused()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_the_arrows_leaf_through_open_details(opened: Opener, sandbox: Sandbox) -> None:
    send(sandbox, TRACK, {**TRACK, "event": "Second"})
    page = opened()
    listed(page).filter(has_text="Second").click()
    sent = page.get_by_role("group", name="Sent")
    expect(sent).to_contain_text("Second")
    page.get_by_role("grid").press("ArrowDown")
    expect(sent).to_contain_text("Order Completed")
    expect(page.get_by_role("grid")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>window.ran=1</script>",
    "</script><script>alert(1)</script>",
    "javascript:alert(1)",
    "'\"><svg onload=alert(1)>",
    "\u202egnp.exe\u2066",
    "\ud800",
    "\u0000\u001b[31m",
    "${alert(1)}{{alert(1)}}",
    "__proto__",
    "%00%0d%0a&lt;b&gt;",
)


@pytest.mark.parametrize("field", ["event", "userId", "messageId", "type"])
def test_nothing_in_a_message_runs_or_turns_the_page_around(field: str, opened: Opener, sandbox: Sandbox) -> None:
    page = opened()
    for number, text in enumerate(HOSTILE):
        message = {"type": "track", "event": "A", "userId": "u", "messageId": f"m{number}", "properties": {text: text}}
        send(sandbox, {**message, field: text})
    shows(page, len(HOSTILE))
    rows_now = listed(page).all()
    assert "\u202e" not in page.locator("#list").inner_text()
    for row in rows_now:
        row.click()
        expect(page.locator("#details-title")).to_have_text(f"Message {row.get_attribute('data-sequence')}")
        expect(page.get_by_role("group", name="Sent")).to_be_visible()
        assert "\u202e" not in page.get_by_role("dialog").inner_text()
    assert page.evaluate("window.ran ?? null") is None
    assert page.locator("#list img, #details img, #list script, #details script, #details svg").count() == 0


def test_a_source_with_a_hostile_name_is_a_name(opened: Opener) -> None:
    with Sandbox(options=Options(Sources({"k": HOSTILE[0]}))) as running:
        send(running, TRACK, key="k")
        page = opened(at=running)
        shows(page, 1)
        page.get_by_label("Source").select_option(HOSTILE[0])
        shows(page, 1)
        page.close()


def test_long_texts_stay_in_their_places(opened: Opener, sandbox: Sandbox) -> None:
    long = "x" * 30_000
    send(sandbox, {"type": "track", "event": long, "userId": "u1"}, {"type": "track", "event": "A", "userId": long})
    page = opened(viewport={"width": 375, "height": 700})
    shows(page, 2)
    assert {row.bounding_box()["height"] for row in listed(page).all()} == {50}  # type: ignore[index]
    assert all(len(text) < 300 for text in listed(page).all_text_contents())
    listed(page).filter(has_text="xxx…").first.click()
    expect(page.get_by_role("group", name="Sent")).to_contain_text(long)
    assert_no_sideways(page)


def assert_no_sideways(page: Page) -> None:
    wide = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
    assert max(wide[:2]) <= wide[2]
    for name in ("#list", "#details", "#profiles"):
        assert page.locator(name).evaluate("each => each.scrollWidth <= each.clientWidth"), name


@pytest.mark.parametrize("width", [320, 375, 768, 1280, 2560])
def test_no_width_needs_sideways_scrolling(width: int, opened: Opener, sandbox: Sandbox) -> None:
    send(sandbox, *MIXED)
    page = opened(viewport={"width": width, "height": 700})
    shows(page, len(MIXED))
    assert_no_sideways(page)
    listed(page).first.click()
    expect(page.get_by_role("group", name="Sent")).to_be_visible()
    assert_no_sideways(page)


def test_ten_thousand_messages_stay_smooth(opened: Opener, sandbox: Sandbox) -> None:
    for _ in range(5):
        send(sandbox, *[TRACK] * 2_000)
    page = opened()
    expect(listed(page).first).to_be_visible()
    grid = page.get_by_role("grid")
    begin = sandbox.store.last() - 10_000
    newest, oldest = page.locator(f"#row-{begin + 10_000}"), page.locator(f"#row-{begin + 1}")
    for _ in range(30):
        before = grid.locator(".rows").evaluate("rows => rows.offsetHeight")
        grid.press("End")
        assert listed(page).count() < 200
        if grid.get_attribute("aria-rowcount") == "10001":
            break
        page.wait_for_function("before => document.querySelector('#list .rows').offsetHeight > before", arg=before)
    grid.press("End")
    expect(oldest).to_be_in_viewport()
    grid.press("Home")
    expect(newest).to_be_in_viewport()
    slowest = page.evaluate("""async () => {
        const list = document.querySelector("#list"), frame = () => new Promise(requestAnimationFrame);
        let slowest = 0;
        for (let step = 0; step < 60; step++) {
            const start = performance.now();
            list.scrollTop = step * 4999;
            await frame();
            await frame();
            slowest = Math.max(slowest, performance.now() - start);
        }
        return slowest;
    }""")
    assert slowest < 1000
    assert listed(page).count() < 200
    grid.press("Home")
    expect(newest).to_be_in_viewport()


def test_a_flood_loses_nothing_and_shows_nothing_twice(opened: Opener, sandbox: Sandbox) -> None:
    page = opened()
    for _ in range(2):
        send(sandbox, *[TRACK] * 700)
    newest = sandbox.store.last()
    expect(page.locator(f"#row-{newest}")).to_be_visible()
    found = page.evaluate(
        """async oldest => {
            const list = document.querySelector("#list"), found = new Set();
            for (let step = 0; step < 1000 && !found.has(oldest); step++) {
                for (const row of list.querySelectorAll("[data-sequence]")) found.add(Number(row.dataset.sequence));
                list.scrollTop += list.clientHeight * 0.9;
                await new Promise(requestAnimationFrame);
                await new Promise(requestAnimationFrame);
            }
            return [...found];
        }""",
        newest - 1_399,
    )
    assert sorted(found) == list(range(newest - 1_399, newest + 1))


def test_counters_and_the_chart_say_what_came(opened: Opener, sandbox: Sandbox) -> None:
    page = opened()
    expect(page.get_by_role("img")).to_have_accessible_name("No messages in the last hour")
    send(sandbox, *MIXED)
    expect(page.locator("#by-verdict")).to_contain_text("Accepted3")
    for text in ("Discarded3", "event_not_defined1", "bad_request1", "duplicate1"):
        expect(page.locator("#by-verdict")).to_contain_text(text)
    for text in ("track2", "identify2", "page1", "other1"):
        expect(page.locator("#by-type")).to_contain_text(text)
    said = re.compile("In the last hour 3 messages accepted and 3 discarded; at most 6 messages in a minute, at ..:..")
    expect(page.get_by_role("img")).to_have_accessible_name(said)


def test_a_screen_reader_is_told_how_many_came_and_not_of_each(opened: Opener, sandbox: Sandbox) -> None:
    page = opened()
    page.evaluate("""() => {
        window.told = [];
        new MutationObserver(() => window.told.push(document.querySelector("#announcer").textContent))
            .observe(document.querySelector("#announcer"), {childList: true});
    }""")
    for message in MIXED:
        send(sandbox, message)
    expect(page.locator("#announcer")).to_have_text("6 new messages, 3 discarded", timeout=2 * BOUND)
    assert page.evaluate("window.told") == ["6 new messages, 3 discarded"]


def test_the_page_finds_a_sandbox_that_was_started_again(opened: Opener) -> None:
    with Sandbox() as first:
        page = opened(at=first, forgiven="ERR_CONNECTION_REFUSED")
        send(first, TRACK, TRACK)
        shows(page, 2)
    state = page.locator("#connection")
    expect(state).to_have_text("Reconnecting")
    with Sandbox(listener=bind(urlsplit(first.url).port or 0)) as second:
        expect(state).to_have_text("Live", timeout=2 * BOUND)
        shows(page, 0)
        send(second, TRACK)
        shows(page, 1)
        page.close()


def answering(body: Any, status: int = 200) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=status, content_type="application/json", body=json.dumps(body))


PROFILES = {
    "**/_sandbox/profiles?*": answering({"profiles": [PROFILE, {**PROFILE, "segmentId": "use_9", "externalIds": []}]}),
    "**/_sandbox/profiles/users/use_1abc": answering(PROFILE),
}


@pytest.mark.parametrize("width", [1280, 375])
def test_a_profile_is_shown_with_all_that_is_known(width: int, opened: Opener) -> None:
    page = opened("/#/profiles", PROFILES, viewport={"width": width, "height": 700})
    expect(page.get_by_role("link", name="<b>anna@example.com</b>")).to_be_visible()
    page.get_by_role("link", name="<b>anna@example.com</b>").click()
    profile = page.get_by_role("region", name="Profile", exact=True)
    for text in ("user_id", "u1", "Signed Up", "use_2def", "email: anna@example.com", "accounts", "createdAt"):
        expect(profile).to_contain_text(text)
    assert json.loads(profile.get_by_role("group", name="Traits").inner_text()) == PROFILE["traits"]
    assert_no_sideways(page)
    expect(page.locator("[data-id=use_1abc]")).to_have_attribute("aria-current", "true")
    assert page.title() == "Profiles · Segment sandbox"
    expect(profile.get_by_role("link", name="Message 1")).to_have_attribute("href", "#/messages/1")
    page.get_by_role("link", name="Messages", exact=True).click()
    expect(page.get_by_role("grid")).to_be_visible()


def test_profiles_are_searched_by_the_sandbox(opened: Opener) -> None:
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(content_type="application/json", body='{"profiles": []}')

    page = opened("/#/profiles", {"**/_sandbox/profiles?*": answer})
    page.get_by_role("searchbox", name="Search in profiles").fill("ann & co")
    expect(page.locator("#profiles-said")).to_have_text("No profile matches.")
    assert asked[-1].endswith("/_sandbox/profiles?text=ann+%26+co&limit=200")


def test_a_sandbox_without_profiles_says_so(opened: Opener) -> None:
    absent = answering({"message": "Not Found"}, 404)
    routes = {"**/_sandbox/profiles?*": absent, "**/_sandbox/profiles/**": absent}
    page = opened("/#/profiles/users/use_1", routes, forgiven="404")
    expect(page.locator("#profiles-said")).to_have_text("This sandbox keeps no profiles.")
    expect(page.locator("#profile")).to_have_text("No such profile.")


AXE = node_tools.INSTALLED / "node_modules" / "axe-core" / "axe.min.js"


def violations(page: Page) -> list[str]:
    """What axe finds wrong with the page as it is now."""
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run()")["violations"]
    return [f"{rule['id']}: {node['html'][:150]}" for rule in found for node in rule["nodes"]]


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 375])
def test_axe_finds_nothing(scheme: str, width: int, opened: Opener, sandbox: Sandbox) -> None:
    page = opened(
        routes=PROFILES,
        bypass_csp=True,
        color_scheme=scheme,
        reduced_motion="reduce",
        viewport={"width": width, "height": 700},
    )
    assert ("empty", violations(page)) == ("empty", [])
    send(sandbox, *MIXED)
    shows(page, len(MIXED))
    page.get_by_role("grid").press("ArrowDown")
    assert ("list", violations(page)) == ("list", [])
    for mark in ("event_not_defined", "duplicate", "Order Completed"):
        listed(page).filter(has_text=mark).click()
        expect(page.get_by_role("group", name="Sent")).to_be_visible()
        assert (mark, violations(page)) == (mark, [])
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Pause").click()
    send(sandbox, TRACK)
    expect(page.locator("#fresh")).to_be_visible()
    assert ("paused", violations(page)) == ("paused", [])
    page.get_by_role("button", name="Clear…").click()
    assert ("confirmation", violations(page)) == ("confirmation", [])
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Profiles").click()
    page.get_by_role("link", name="<b>anna@example.com</b>").click()
    expect(page.get_by_role("group", name="Traits")).to_be_visible()
    assert ("profiles", violations(page)) == ("profiles", [])


def test_whoever_wants_no_motion_gets_none(opened: Opener, sandbox: Sandbox) -> None:
    page = opened(reduced_motion="reduce")
    send(sandbox, TRACK)
    shows(page, 1)
    assert listed(page).evaluate("row => getComputedStyle(row).animationName") == "none"


@pytest.mark.parametrize("start", ["page", "search"])
def test_an_arrow_leads_into_the_list_from_the_page_and_from_the_search(
    start: str, opened: Opener, sandbox: Sandbox
) -> None:
    send(sandbox, TRACK, {**TRACK, "event": "Other"})
    page = opened()
    expect(listed(page)).to_have_count(2)
    page.keyboard.press("/" if start == "search" else "Shift")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_contain_text('"event": "Other"')

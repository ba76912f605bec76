/** One message in full, beside the list; on a narrow screen over it. */

import { ask } from "./api.js";
import { byId, copyButton, element, moment, short } from "./dom.js";
import { coloured, pretty } from "./json.js";
import { kindOf, verdict } from "./verdict.js";

const narrow = matchMedia("(max-width: 56rem)");

export class Details {
  /** The sequence number of the message that is shown; null where none is. */
  shown = null;
  #asking = new AbortController();

  /** @param {{closed: () => void, opened: (sequence: number) => void}} calls */
  constructor(calls) {
    this.calls = calls;
    this.panel = byId("details");
    this.panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      this.close();
    });
    narrow.addEventListener("change", () => {
      if (!this.panel.open) return;
      this.panel.close();
      this.#reveal();
    });
    this.panel.addEventListener("cancel", (event) => { event.preventDefault(); this.close(); });
  }

  async open(sequence, takesFocus = false) {
    this.shown = sequence;
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    let content;
    try {
      content = sections(await ask(`messages/${sequence}`, {}, { signal }));
    } catch (error) {
      if (signal.aborted) return;
      content = [element("p", { class: "plain" }, error.status === 404
        ? "This message is no longer kept." : "The sandbox did not answer. It may have stopped.")];
    }
    if (signal.aborted) return;
    this.#show(sequence, content, takesFocus);
  }

  close() {
    if (this.shown === null) return;
    this.shown = null;
    this.#asking.abort();
    this.panel.close();
    this.panel.replaceChildren();
    this.calls.closed();
  }

  #reveal() {
    if (narrow.matches) this.panel.showModal();
    else this.panel.show();
  }

  #show(sequence, content, takesFocus) {
    const title = element("h2", { id: "details-title", tabindex: "-1" }, `Message ${sequence}`);
    const close = element(
      "button", { type: "button", class: "close", onclick: () => this.close(), "aria-keyshortcuts": "Escape" }, "Close",
    );
    const before = this.panel.contains(document.activeElement);
    this.panel.replaceChildren(element("header", {}, title, close), ...content);
    this.panel.scrollTop = 0;
    const from = document.activeElement;
    if (!this.panel.open) this.#reveal();
    if (takesFocus || before || narrow.matches) title.focus();
    else if (from !== document.activeElement) from.focus({ preventScroll: true }); // show() takes the focus unasked
    this.calls.opened(sequence);
  }
}

function sections(found) {
  return [
    facts(found),
    found.discarded && discard(found),
    block("Sent", "sent JSON", pretty(found.sent)),
    found.message && block("Would be delivered", "delivered JSON", pretty(found.message)),
    ...again(found),
  ].filter(Boolean);
}

function facts(found) {
  const fact = (name, ...value) => element("div", {}, element("dt", {}, name), element("dd", {}, ...value));
  return element(
    "dl",
    { class: "facts" },
    fact("Verdict", verdict(found.discarded)),
    fact("Received", element("time", { datetime: found.receivedAt }, moment(found.receivedAt))),
    fact("Source", short(found.source)),
    fact("Path", short(found.path)),
  );
}

function discard(found) {
  return element(
    "section",
    { class: `discard ${kindOf(found.discarded)}`, "aria-label": "Why it is discarded" },
    element("h3", {}, "Segment would answer 200 and drop this message"),
    element("p", {}, element("code", {}, short(found.discarded)), " ", ...withCode(found.meaning ?? "")),
  );
}

/** Text in which what stands between backticks is code. */
function withCode(text) {
  return text.split("`").map((part, place) => (place % 2 ? element("code", {}, part) : part));
}

function again(found) {
  const repeats = found.sent?.messageId
    ? "Both carry the messageId of this message: within 24 hours a repeat of an accepted one is a duplicate."
    : "";
  return [
    element("h3", { class: "part" }, "Make it again"),
    repeats && element("p", { class: "note" }, repeats),
    block("curl", "curl", found.curl, false),
    found.toolCall
      ? block("Tool call", "tool call", pretty(found.toolCall))
      : element("p", { class: "note" }, "No tool makes this message: its type is none of Segment's six."),
  ].filter(Boolean);
}

/** Text to read and to copy. */
export function block(title, label, text, isJson = true) {
  const code = element("code", {}, isJson ? coloured(text) : text);
  return element(
    "section",
    { class: "block" },
    element("header", {}, element("h3", {}, title), copyButton(label, () => text)),
    element("pre", { tabindex: "0", role: "group", "aria-label": title }, code),
  );
}

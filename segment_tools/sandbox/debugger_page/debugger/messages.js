/** The view of messages: what is asked for, what is shown, and what waits to be. */

import { Refused, ask } from "./api.js";
import { showCounts } from "./counts.js";
import { Details } from "./details.js";
import { announce, byId, copyButton, element, several, short } from "./dom.js";
import { Feed } from "./feed.js";
import { List } from "./list.js";

const FIRST = 200;
const MORE = 1000;
const TYPING_MILLISECONDS = 200;
const ANNOUNCE_MILLISECONDS = 5000;
const TYPES = ["identify", "track", "page", "screen", "group", "alias"];

export class Messages {
  #filters = byId("filters");
  #paused = false;
  /** How many messages came and are not in the list. */
  #waiting = 0;
  #last = 0;
  #total = 0;
  #asking = new AbortController();
  #loading = false;
  #unsaid = { messages: 0, discarded: 0, timer: 0 };

  constructor() {
    this.list = new List({
      open: (row, byKey) => this.details.open(row.sequence, byKey),
      moved: (row) => { if (this.details.shown !== null) this.details.open(row.sequence); },
      scrolled: () => this.#scrolled(),
    });
    this.details = new Details({ opened: (sequence) => this.#opened(sequence), closed: () => this.#closed() });
    this.feed = new Feed({
      news: (data) => this.#news(data),
      counts: (data) => this.#counted(data),
      again: () => this.#again(),
    });
    this.#wire();
    this.#offer();
    this.start();
  }

  /** Ask for the newest messages, and for what comes after them. */
  async start() {
    this.feed.close();
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    this.#loading = true;
    try {
      const [found, counts] = await Promise.all([
        ask("summaries", { ...this.query, limit: FIRST }, { signal }), ask("counts", {}, { signal }),
      ]);
      if (signal.aborted) return;
      this.#last = found.last;
      this.list.set(found.messages, found.messages.length < FIRST);
      this.#wait(0);
      this.#showCounts(counts);
      this.#showEmpty();
      this.feed.open({ ...this.query, after: this.#last });
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500) announce(error.message);
      this.feed.broke();
    } finally {
      if (!signal.aborted) this.#loading = false;
    }
  }

  /** The filters as the sandbox reads them. */
  get query() {
    const { text, type, source, verdict } = Object.fromEntries(new FormData(this.#filters));
    const verdicts = { "": {}, accepted: { discarded: "false" }, discarded: { discarded: "true" } };
    return { text, type, source, ...(verdicts[verdict] ?? { reason: verdict }) };
  }

  #wire() {
    let typing = 0;
    this.#filters.addEventListener("submit", (event) => event.preventDefault());
    this.#filters.addEventListener("input", (event) => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#filtered(), event.target.name === "text" ? TYPING_MILLISECONDS : 0);
    });
    byId("pause").addEventListener("click", () => this.#pause(!this.#paused));
    byId("fresh").addEventListener("click", () => { this.#pause(false); this.list.focus(); });
    byId("clear").addEventListener("click", () => byId("confirm").showModal());
    byId("confirm").addEventListener("click", (event) => this.#confirmed(event.target.value));
    byId("list").addEventListener("keydown", (event) => { if (event.key === "Escape") this.details.close(); });
  }

  async #filtered() {
    await this.start();
    announce(`${several(this.list.rows.length, "message")}${this.list.complete ? "" : " and more"}`);
  }

  #pause(paused) {
    this.#paused = paused;
    byId("pause").classList.toggle("on", paused);
    byId("pause").textContent = paused ? "Resume" : "Pause";
    if (!paused) this.start();
  }

  async #confirmed(choice) {
    if (choice !== "clear" && choice !== "cancel") return;
    byId("confirm").close();
    if (choice === "cancel") return;
    try {
      const { deleted } = await ask("messages", {}, { method: "DELETE" });
      this.details.close();
      announce(`Forgot ${several(deleted, "message")}`);
    } catch {
      announce("The sandbox could not forget its messages");
    }
    this.start();
  }

  #news({ messages, skipped, last }) {
    this.#last = last;
    const newest = this.list.rows[0]?.sequence ?? 0;
    const fresh = messages.filter((row) => row.sequence > newest);
    for (const row of fresh) this.#offerSource(row.source);
    this.#say(fresh);
    if (this.#paused || !this.list.atTop) this.#wait(this.#waiting + messages.length + skipped);
    else if (skipped) this.list.set(messages, false); // there would be a gap between these and the older ones
    else this.list.prepend(fresh);
    this.#showEmpty();
  }

  #wait(count) {
    this.#waiting = count;
    byId("fresh").hidden = count === 0;
    byId("fresh").textContent = count ? `${several(count, "new message")}: show` : "";
  }

  #scrolled() {
    if (this.#waiting && !this.#paused && this.list.atTop) this.start();
    else if (this.list.cut && this.list.root.scrollTop === 0) this.start();
    else if (this.list.nearEnd) this.#older();
  }

  async #older() {
    if (this.#loading || this.list.complete) return;
    this.#loading = true;
    const { signal } = this.#asking;
    try {
      const before = this.list.rows.at(-1).sequence;
      const { messages } = await ask("summaries", { ...this.query, before, limit: MORE }, { signal });
      if (!signal.aborted) this.list.append(messages, messages.length < MORE);
    } catch {
      // The stream notices that the sandbox is away, and the next scroll asks again.
    } finally {
      if (!signal.aborted) this.#loading = false;
    }
  }

  #again() {
    if (this.#waiting || this.#paused) this.feed.open({ ...this.query, after: this.#last });
    else this.start();
  }

  #counted(counts) {
    const cleared = counts.total < this.#total;
    this.#showCounts(counts);
    if (cleared && !this.#paused) this.start();
  }

  #showCounts(counts) {
    this.#total = counts.total;
    showCounts(counts);
    for (const type of Object.keys(counts.byType)) this.#offerType(type);
  }

  #opened(sequence) {
    this.list.select(sequence);
    byId("messages").classList.add("detailed");
    history.replaceState(null, "", `#/messages/${sequence}`);
  }

  #closed() {
    byId("messages").classList.remove("detailed");
    if (location.hash.startsWith("#/messages/")) history.replaceState(null, "", "#/");
    this.list.focus();
  }

  /** What came lately, in one sentence and not one for each message. */
  #say(fresh) {
    const unsaid = this.#unsaid;
    unsaid.messages += fresh.length;
    unsaid.discarded += fresh.filter((row) => row.discarded).length;
    unsaid.timer ||= setTimeout(() => {
      announce(`${several(unsaid.messages, "new message")}${unsaid.discarded ? `, ${unsaid.discarded} discarded` : ""}`);
      this.#unsaid = { messages: 0, discarded: 0, timer: 0 };
    }, ANNOUNCE_MILLISECONDS);
  }

  #showEmpty() {
    const empty = byId("empty");
    empty.hidden = this.list.rows.length > 0;
    if (empty.hidden) return;
    const filtered = Object.values(this.query).some(Boolean);
    empty.replaceChildren(...(filtered ? this.#nothingFound() : howToBegin()));
  }

  #nothingFound() {
    const reset = () => { this.#filters.reset(); this.#filtered(); byId("search").focus(); };
    return [
      element("h2", {}, "No message matches these filters"),
      element("p", {}, element("button", { type: "button", onclick: reset }, "Show all messages")),
    ];
  }

  async #offer() {
    for (const type of TYPES) this.#offerType(type);
    try {
      const [reasons, { sources }] = await Promise.all([ask("reasons"), ask("sources")]);
      const group = this.#filters.elements.verdict.querySelector("optgroup");
      group.replaceChildren(...Object.keys(reasons).map((code) => element("option", { value: code }, code)));
      sources.forEach((name) => this.#offerSource(name));
    } catch {
      // Without them the filters offer less; the state of the connection says why.
    }
  }

  #offerSource(name) {
    offerOption(this.#filters.elements.source, name);
  }

  #offerType(name) {
    if (TYPES.includes(name)) offerOption(this.#filters.elements.type, name);
  }
}

function offerOption(select, name) {
  const isThere = [...select.options].some((option) => option.value === name);
  if (!isThere) select.append(element("option", { value: name }, short(name, 60)));
}

function howToBegin() {
  const { origin, host } = location;
  const curl = `curl ${origin}/v1/track -u any-key: \\\n`
    + `  -H 'Content-Type: application/json' \\\n`
    + `  -d '{"event": "Signed Up", "userId": "u1", "properties": {"plan": "pro"}}'`;
  const setting = `SEGMENT_DATA_PLANE_URL=${host}`;
  const line = (label, text) => element(
    "div", { class: "line" }, element("pre", { tabindex: "0", role: "group", "aria-label": label }, element("code", {}, text)),
    copyButton(label, () => text),
  );
  return [
    element("h2", {}, "Waiting for the first message"),
    element("p", {}, "Send one from a shell:"),
    line("curl command", curl),
    element("p", {}, "Or point the tools, or any Segment library, at this address:"),
    line("setting", setting),
  ];
}

/** The stream of what arrives, for as long as the page is open. */

import { address } from "./api.js";
import { byId } from "./dom.js";

const WORDS = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting" };
const AGAIN_MILLISECONDS = 1000;

export class Feed {
  #source = null;
  #timer = 0;

  /**
   * @param {{news: (data: {messages: object[], skipped: number, last: number}) => void,
   *   counts: (data: object) => void, again: () => void}} calls `again` when the stream broke and a new one may work
   */
  constructor(calls) {
    this.calls = calls;
  }

  open(query) {
    this.close();
    const source = new EventSource(address("stream", query));
    this.#source = source;
    source.addEventListener("open", () => state("live"));
    source.addEventListener("message", (event) => this.calls.news(JSON.parse(event.data)));
    source.addEventListener("counts", (event) => this.calls.counts(JSON.parse(event.data)));
    source.addEventListener("error", () => this.broke());
  }

  /** Say so, and try again in a while. */
  broke() {
    this.close();
    state("reconnecting");
    this.#timer = setTimeout(() => this.calls.again(), AGAIN_MILLISECONDS);
  }

  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }
}

function state(now) {
  const shown = byId("connection");
  if (shown.dataset.state === now) return;
  shown.dataset.state = now;
  shown.textContent = WORDS[now];
}

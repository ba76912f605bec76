/** The list of messages: a grid of which only the visible rows exist. */

import { byId, element, moment, short } from "./dom.js";
import { verdict } from "./verdict.js";

/**
 * @typedef {object} Summary
 * @property {number} sequence
 * @property {string} receivedAt
 * @property {string} source
 * @property {string | null} type
 * @property {string | null} userId
 * @property {string | null} anonymousId
 * @property {string | null} name
 * @property {string | null} discarded
 */

const MOST = 20_000;
const BEYOND = 8;

export class List {
  /** @type {Summary[]} */ rows = [];
  /** Whether nothing older is left to ask for. */
  complete = true;
  /** Whether newer messages were let go, to keep the number of rows bounded. */
  cut = false;
  /** The sequence number of the row that the keyboard is on. */
  active = null;

  #drawn = new Map();
  #frame = 0;
  #height = 32;

  /** @param {{open: (row: Summary) => void, moved: (row: Summary) => void, scrolled: () => void}} calls */
  constructor(calls) {
    this.calls = calls;
    this.root = byId("list");
    this.body = this.root.querySelector(".rows");
    this.root.addEventListener("scroll", () => { this.#draw(); calls.scrolled(); }, { passive: true });
    this.root.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => this.#click(event));
    new ResizeObserver(() => this.#measure()).observe(this.root);
  }

  get atTop() {
    return this.root.scrollTop < this.#height / 2 && !this.cut;
  }

  get nearEnd() {
    return this.root.scrollTop + this.root.clientHeight * 3 > this.rows.length * this.#height;
  }

  set(rows, complete) {
    this.rows = rows;
    this.complete = complete;
    this.cut = false;
    if (!rows.some((row) => row.sequence === this.active)) this.active = null;
    this.root.scrollTop = 0;
    this.#draw();
  }

  /** Newer messages on top; what is beyond the bound leaves at the end. */
  prepend(rows) {
    this.rows = rows.concat(this.rows);
    if (this.rows.length > MOST) {
      this.rows.length = MOST;
      this.complete = false;
    }
    this.#draw(rows.length);
  }

  /** Older messages at the end; what is beyond the bound leaves at the top. */
  append(rows, complete) {
    this.rows = this.rows.concat(rows);
    this.complete = complete;
    const over = this.rows.length - MOST;
    if (over > 0) {
      this.rows = this.rows.slice(over);
      this.cut = true;
      this.root.scrollTop -= over * this.#height;
    }
    this.#draw();
  }

  focus() {
    this.root.focus({ preventScroll: true });
  }

  select(sequence) {
    this.active = sequence;
    this.#draw();
  }

  #measure() {
    const height = Number.parseFloat(getComputedStyle(this.body).getPropertyValue("--row")) || 32;
    if (height !== this.#height) {
      this.root.scrollTop *= height / this.#height;
      this.#height = height;
    }
    this.#draw();
  }

  /** Draw at the browser's next frame, once however often asked. */
  #draw(fresh = 0) {
    this.fresh = Math.max(this.fresh ?? 0, fresh);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#drawNow(this.fresh);
      this.fresh = 0;
    });
  }

  #drawNow(fresh) {
    const first = Math.max(0, Math.floor(this.root.scrollTop / this.#height) - BEYOND);
    const count = Math.ceil(this.root.clientHeight / this.#height) + 2 * BEYOND;
    const shown = this.rows.slice(first, first + count);
    const wanted = new Set(shown.map((row) => row.sequence));
    for (const [sequence, row] of this.#drawn) {
      if (wanted.has(sequence)) continue;
      row.remove();
      this.#drawn.delete(sequence);
    }
    this.body.style.height = `${this.rows.length * this.#height}px`;
    shown.forEach((row, place) => this.#place(row, first + place, first + place < fresh));
    this.root.setAttribute("aria-rowcount", this.complete && !this.cut ? String(this.rows.length + 1) : "-1");
    if (wanted.has(this.active)) this.root.setAttribute("aria-activedescendant", `row-${this.active}`);
    else this.root.removeAttribute("aria-activedescendant");
  }

  #place(row, index, isFresh) {
    let drawn = this.#drawn.get(row.sequence);
    if (!drawn) {
      drawn = drawnRow(row, isFresh);
      this.#drawn.set(row.sequence, drawn);
      this.body.append(drawn);
    }
    drawn.style.transform = `translateY(${index * this.#height}px)`;
    drawn.setAttribute("aria-rowindex", String(index + 2));
    drawn.setAttribute("aria-selected", String(row.sequence === this.active));
  }

  #click(event) {
    const clicked = event.target.closest("[data-sequence]");
    const row = clicked && this.rows.find((each) => String(each.sequence) === clicked.dataset.sequence);
    if (!row) return;
    this.select(row.sequence);
    this.calls.open(row);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.rows.length === 0) return;
    const at = this.rows.findIndex((row) => row.sequence === this.active);
    if (event.key === "Enter" && at >= 0) this.calls.open(this.rows[at], true);
    else {
      const page = Math.max(1, Math.floor(this.root.clientHeight / this.#height) - 2);
      const steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: Infinity };
      if (!(event.key in steps)) return;
      this.#go(Math.min(this.rows.length - 1, Math.max(0, steps[event.key])));
    }
    event.preventDefault();
  }

  #go(index) {
    this.active = this.rows[index].sequence;
    const top = index * this.#height;
    const room = this.root.clientHeight - this.root.querySelector(".head").offsetHeight - this.#height;
    if (top < this.root.scrollTop) this.root.scrollTop = top;
    else if (top > this.root.scrollTop + room) this.root.scrollTop = top - room;
    this.#draw();
    this.calls.moved(this.rows[index]);
  }
}

function drawnRow(row, isFresh) {
  const cell = (name, ...content) => element("span", { role: "gridcell", class: name }, ...content);
  return element(
    "div",
    {
      role: "row",
      id: `row-${row.sequence}`,
      class: isFresh ? "row new" : "row",
      "data-sequence": String(row.sequence),
    },
    cell("time", moment(row.receivedAt)),
    cell("type", short(row.type) || "none"),
    cell("name", short(row.name) || "–"),
    cell("user", short(row.userId ?? row.anonymousId) || "–"),
    cell("source", short(row.source)),
    cell("verdict", verdict(row.discarded)),
  );
}

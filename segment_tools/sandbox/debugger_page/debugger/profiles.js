/** The view of profiles: who the messages are about, as the sandbox put it together. */

import { ask } from "./api.js";
import { byId, element, moment, several, short } from "./dom.js";
import { block } from "./details.js";
import { pretty } from "./json.js";

const LIMIT = 200;
const TYPING_MILLISECONDS = 200;

export class Profiles {
  #form = byId("profile-search");
  #asking = new AbortController();

  constructor() {
    let typing = 0;
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#form.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.list(), TYPING_MILLISECONDS);
    });
  }

  /** Show the profiles, and one of them where it is named. */
  async show(collection, segmentId) {
    byId("profile").hidden = !segmentId;
    await Promise.all([this.list(), segmentId && one(collection, segmentId)]);
    mark(segmentId);
  }

  async list() {
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    const text = new FormData(this.#form).get("text");
    try {
      const { profiles } = await ask("profiles", { text, limit: LIMIT }, { signal });
      if (signal.aborted) return;
      said(profiles.length ? "" : text ? "No profile matches." : "No profiles yet: send an identify or a track.");
      byId("profiles-found").replaceChildren(...profiles.map(entry));
    } catch (error) {
      if (signal.aborted) return;
      byId("profiles-found").replaceChildren();
      said(error.status === 404 ? "This sandbox keeps no profiles." : "The sandbox did not answer.");
    }
  }
}

function said(text) {
  byId("profiles-said").textContent = text;
}

const hashOf = (profile) => `#/profiles/${[profile.collection, profile.segmentId].map(encodeURIComponent).join("/")}`;

function entry(profile) {
  return element(
    "li",
    {},
    element(
      "a",
      { href: hashOf(profile), "data-id": profile.segmentId },
      element("span", { class: "who" }, short(nameOf(profile), 80)),
      element("span", { class: "id" }, `${short(profile.collection, 20)} · ${short(profile.segmentId, 60)}`),
    ),
  );
}

function nameOf(profile) {
  const ids = profile.externalIds ?? [];
  const known = ["email", "user_id", "group_id", "anonymous_id"].map((type) => ids.find((id) => id.type === type));
  return (known.find(Boolean) ?? ids[0])?.id ?? profile.segmentId;
}

function mark(segmentId) {
  for (const link of byId("profiles-found").querySelectorAll("a")) {
    if (link.dataset.id === segmentId) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

async function one(collection, segmentId) {
  const panel = byId("profile");
  panel.dataset.shown = segmentId;
  let content;
  try {
    const path = ["profiles", collection, segmentId].map(encodeURIComponent).join("/");
    content = sections(await ask(path));
  } catch (error) {
    content = [element("p", { class: "plain" }, error.status === 404 ? "No such profile." : "The sandbox did not answer.")];
  }
  if (panel.dataset.shown !== segmentId) return; // another one was asked for in between
  panel.replaceChildren(...content);
  panel.querySelector("h2")?.focus();
}

function sections(profile) {
  const { externalIds = [], traits = {}, events = [], merges = [], links = [], metadata } = profile;
  return [
    element("h2", { tabindex: "-1" }, short(nameOf(profile), 80)),
    element("p", { class: "note" }, `${short(profile.collection, 20)} · ${short(profile.segmentId, 80)}`),
    table("Identifiers", ["Type", "Id", "Since"], externalIds.map((each) => [each.type, each.id, messageLink(each)])),
    block("Traits", "traits", pretty(traits)),
    table("Events", ["Received", "Type", "Name", "In full"], events.map((each) => [
      moment(each.receivedAt ?? each.timestamp), each.type, each.name ?? each.event, messageLink(each),
    ])),
    merges.length ? table("Merges", ["At", "Merged", "Because of", "In"], merges.map((each) => [
      moment(each.at), each.merged, each.because.map((id) => `${id.type}: ${id.id}`).join(", "), messageLink(each),
    ])) : null,
    links.length ? table("Links", ["Collection", "Profile"], links.map((each) => [
      each.collection, element("a", { href: hashOf(each) }, short(nameOf(each), 80)),
    ])) : null,
    metadata ? block("Metadata", "metadata", pretty(metadata)) : null,
  ].filter(Boolean);
}

function messageLink(event) {
  return event.sequence ? element("a", { href: `#/messages/${event.sequence}` }, `Message ${event.sequence}`) : "";
}

function table(title, heads, rows) {
  const cell = (value) => element("td", {}, value instanceof Node ? value : short(value));
  return element(
    "section",
    { class: "block" },
    element("header", {}, element("h3", {}, title), element("span", { class: "note" }, several(rows.length, "row"))),
    rows.length
      ? element("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": title },
        element("table", {},
          element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
          element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell))))))
      : null,
  );
}

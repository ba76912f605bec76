/** The debugger's page: which view is shown, and the keys that work everywhere. */

import { byId } from "./debugger/dom.js";
import { Messages } from "./debugger/messages.js";
import { Profiles } from "./debugger/profiles.js";

const views = { messages: new Messages(), profiles: new Profiles() };
const titles = { messages: "Messages", profiles: "Profiles" };

function route() {
  const [name = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  const view = name === "profiles" ? "profiles" : "messages";
  for (const each of Object.keys(views)) byId(each).hidden = each !== view;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${titles[view]} · Segment sandbox`;
  if (view === "profiles") {
    views.messages.details.close();
    views.profiles.show(...rest);
  } else if (/^\d{1,15}$/.test(rest[0] ?? "")) views.messages.details.open(Number(rest[0]), true);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function isTyping(target) {
  return target instanceof HTMLElement && target.closest("input, select, textarea, dialog:modal") !== null;
}

document.addEventListener("keydown", (event) => {
  const idle = event.target === document.body || event.target.type === "search";
  if (event.key !== "ArrowDown" || !idle || event.ctrlKey || event.metaKey || event.altKey) return;
  const list = document.querySelector("main:not([hidden]) #list");
  if (!list) return;
  event.preventDefault();
  list.focus();
  list.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown" }));
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const search = document.querySelector("main:not([hidden]) input[type=search]");
  event.preventDefault();
  search.focus();
  search.select();
});
addEventListener("hashchange", route);
route();

/** What all parts of the page share: elements made of text alone, and text that cannot play tricks. */

const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const KEPT = "\n\t";

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * An element; its children are elements or text, which is never read as markup.
 *
 * @param {string} tag
 * @param {Record<string, string | boolean | EventListener>} attributes `onclick` and its like are listeners
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** The text with controls, those of writing direction among them, spelt out as escapes. */
export function visible(text) {
  return text.replace(CONTROLS, (found) =>
    KEPT.includes(found) ? found : `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** As much of a value as fits a line. */
export function short(value, most = 200) {
  const text = value === null || value === undefined ? "" : String(value);
  return visible(text.length > most ? `${text.slice(0, most)}…` : text).replace(/[\n\t]/g, " ");
}

const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});
const day = new Intl.DateTimeFormat("en-CA", { year: "numeric", month: "2-digit", day: "2-digit" });

/** The moment by this machine's clock; with its day, unless that is today. */
export function moment(iso) {
  const then = new Date(iso);
  if (Number.isNaN(then.getTime())) return short(iso);
  const date = day.format(then);
  return date === day.format(new Date()) ? clock.format(then) : `${date} ${clock.format(then).slice(0, 8)}`;
}

/** A number with its noun: `1 message`, `1,200 messages`. */
export const several = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** Have a screen reader say it when it has time. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** A button that copies what `text` gives when it is pressed. */
export function copyButton(label, text) {
  const button = element("button", { type: "button", class: "copy", "aria-label": `Copy ${label}` }, "Copy");
  let timer;
  button.addEventListener("click", async () => {
    const done = await copied(text(), button);
    button.textContent = done ? "Copied" : "Could not copy";
    announce(done ? `Copied ${label}` : `Could not copy ${label}`);
    clearTimeout(timer);
    timer = setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return button;
}

async function copied(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedBySelection(text, near);
  }
}

/** Beside the button: what is outside an open modal dialog cannot be selected. */
function copiedBySelection(text, near) {
  const area = element("textarea", { class: "hidden", "aria-hidden": "true", tabindex: "-1" });
  area.value = text;
  near.after(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  near.focus();
  return done;
}

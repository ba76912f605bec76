/** Asking the sandbox. */

/** What the sandbox refused, with the status that it answered. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * What the sandbox answers below `/_sandbox`.
 *
 * @param {string} path
 * @param {Record<string, string | number | undefined>} query what is empty is left out
 * @param {RequestInit} options
 */
export async function ask(path, query = {}, options = {}) {
  const response = await fetch(address(path, query), options);
  const text = await response.text();
  if (!response.ok) throw new Refused(response.status, said(text) ?? response.statusText);
  return JSON.parse(text, exact);
}

/** The address of a path below `/_sandbox`. */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const search = new URLSearchParams(given).toString();
  return `/_sandbox/${path}${search ? `?${search}` : ""}`;
}

function said(text) {
  try {
    return JSON.parse(text).message;
  } catch {
    return null;
  }
}

/** Numbers that JavaScript would round stay as they were written, where the browser can. */
function exact(_, value, context) {
  if (typeof value !== "number" || !context?.source || !JSON.rawJSON) return value;
  return Number.isSafeInteger(value) || String(value) === context.source ? value : JSON.rawJSON(context.source);
}

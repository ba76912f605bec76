/** How a verdict looks: always in words, with a colour beside them. */

import { element, short } from "./dom.js";

/** Not an error in the message itself. */
const HARMLESS = new Set(["duplicate"]);

/** The name of the class that colours a verdict. */
export function kindOf(discarded) {
  if (!discarded) return "accepted";
  return HARMLESS.has(discarded) ? "repeated" : "discarded";
}

/** The verdict as a mark and words. */
export function verdict(discarded) {
  return element("span", { class: `mark ${kindOf(discarded)}` }, discarded ? short(discarded) : "Accepted");
}

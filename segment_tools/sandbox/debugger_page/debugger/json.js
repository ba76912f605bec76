/** JSON for reading: indented, coloured, and nothing but text. */

import { visible } from "./dom.js";

const TOKENS = /"(?:[^"\\]|\\.)*"(?=(\s*:)?)|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\b(?:true|false|null)\b/g;

/** Beyond this the colours would cost more than they give. */
const MOST_COLOURED = 200_000;

/** The value as indented JSON, every control in it an escape. */
export const pretty = (value) => visible(JSON.stringify(value, null, 2));

/** The JSON's tokens, each in a colour of its own. */
export function coloured(text) {
  const found = document.createDocumentFragment();
  if (text.length > MOST_COLOURED) {
    found.append(text);
    return found;
  }
  let end = 0;
  for (const match of text.matchAll(TOKENS)) {
    const token = document.createElement("span");
    token.className = kindOf(match[0], match[1] !== undefined);
    token.textContent = match[0];
    found.append(text.slice(end, match.index), token);
    end = match.index + match[0].length;
  }
  found.append(text.slice(end));
  return found;
}

function kindOf(token, isKey) {
  if (token.startsWith('"')) return isKey ? "key" : "string";
  return /^[tfn]/.test(token) ? "word" : "number";
}

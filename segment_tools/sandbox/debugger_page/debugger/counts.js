/** The counters, and the last hour as a chart. */

import { byId, element, several, short } from "./dom.js";
import { kindOf } from "./verdict.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240;
const HEIGHT = 36;

/**
 * @param {{total: number, byType: Record<string, number>, byVerdict: Record<string, number>,
 *   minutes: {minute: string, accepted: number, discarded: number}[]}} counts
 */
export function showCounts(counts) {
  const { accepted = 0, ...codes } = counts.byVerdict;
  const reasons = mostFirst(codes);
  const discarded = reasons.reduce((sum, [, count]) => sum + count, 0);
  byId("by-verdict").replaceChildren(
    counter("Accepted", accepted, "accepted"),
    counter("Discarded", discarded, discarded ? "discarded" : ""),
    ...reasons.map(([code, count]) => counter(code, count, `code ${kindOf(code)}`)),
  );
  byId("by-type").replaceChildren(...mostFirst(counts.byType).map(([type, count]) => counter(type, count, "")));
  showChart(counts.minutes);
}

const mostFirst = (counted) => Object.entries(counted).sort((one, other) => other[1] - one[1]);

function counter(name, count, kind) {
  return element("div", { class: kind }, element("dt", {}, short(name)), element("dd", {}, count.toLocaleString("en")));
}

function showChart(minutes) {
  const peak = Math.max(0, ...minutes.map((each) => each.accepted + each.discarded));
  const scale = HEIGHT / Math.max(1, peak);
  const width = WIDTH / minutes.length;
  const bars = minutes.flatMap((each, place) => [
    bar("accepted", place * width, HEIGHT - each.accepted * scale, width, each.accepted * scale),
    bar("discarded", place * width, HEIGHT - (each.accepted + each.discarded) * scale, width, each.discarded * scale),
  ]);
  byId("chart").replaceChildren(bar("base", 0, HEIGHT - 0.5, WIDTH, 0.5), ...bars.filter(Boolean));
  byId("chart").setAttribute("aria-label", inWords(minutes, peak));
  byId("chart-caption").textContent = `Per minute, last hour${peak ? `; at most ${peak.toLocaleString("en")}` : ""}`;
}

function bar(kind, x, y, width, height) {
  if (height <= 0) return null;
  const made = document.createElementNS(SVG, "rect");
  const place = { class: kind, x, y, width: kind === "base" ? width : width * 0.8, height };
  for (const [name, value] of Object.entries(place)) made.setAttribute(name, String(value));
  return made;
}

function inWords(minutes, peak) {
  if (!peak) return "No messages in the last hour";
  const sum = (name) => minutes.reduce((total, each) => total + each[name], 0);
  const busiest = minutes.find((each) => each.accepted + each.discarded === peak);
  const at = new Date(`${busiest.minute}Z`).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return `In the last hour ${several(sum("accepted"), "message")} accepted and ${sum("discarded").toLocaleString("en")} `
    + `discarded; at most ${several(peak, "message")} in a minute, at ${at}`;
}

// Segment's own Node library: single calls, each awaited, or a file of events.
//   node node_side.cjs PACKAGES URL single IN_FLIGHT SECONDS
//   node node_side.cjs PACKAGES URL bulk FILE FLUSH_AT
const { createRequire } = require("node:module");
const { createReadStream } = require("node:fs");
const { createInterface } = require("node:readline");
const { performance } = require("node:perf_hooks");

const [packages, host, mode, first, second] = process.argv.slice(2);
const { Analytics } = createRequire(packages + "/package.json")("@segment/analytics-node");
const MOST_WAITING = 10000;

function client(flushAt) {
  const analytics = new Analytics({ writeKey: "benchmark", host, flushAt });
  analytics.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  return analytics;
}

function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

async function single(inFlight, seconds) {
  const analytics = client(1);
  let number = 0;
  // Not the callback of `track`: that one is called 300 ms after the answer, or later.
  const waiting = new Map();
  analytics.on("track", ({ event }) => {
    waiting.get(event.messageId)();
    waiting.delete(event.messageId);
  });
  const call = () =>
    new Promise((resolve) => {
      const n = number++;
      const messageId = `benchmark-${n}`;
      waiting.set(messageId, resolve);
      const properties = { orderId: `order-${n}`, revenue: 19.99, currency: "USD", coupon: "AUTUMN" };
      analytics.track({ event: "Order Completed", userId: `user-${n}`, properties, messageId });
    });
  await Promise.all(Array.from({ length: inFlight }, call));
  const took = [];
  const start = performance.now();
  const cpu = process.cpuUsage();
  const caller = async () => {
    for (let begun; (begun = performance.now()) < start + seconds * 1000; ) {
      await call();
      took.push(performance.now() - begun);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, caller));
  const lasted = (performance.now() - start) / 1000;
  const used = process.cpuUsage(cpu);
  took.sort((a, b) => a - b);
  const figures = {
    per_second: took.length / lasted,
    p50_ms: quantile(took, 0.5),
    p99_ms: quantile(took, 0.99),
    cpu_us: (used.user + used.system) / took.length,
    calls: took.length,
  };
  console.log(JSON.stringify(figures));
  await analytics.closeAndFlush({ timeout: 20000 });
}

async function bulk(file, flushAt) {
  const analytics = client(flushAt);
  let waiting = 0;
  let roomy = () => {};
  analytics.on("track", () => {
    if (--waiting < MOST_WAITING / 2) roomy();
  });
  for await (const line of createInterface({ input: createReadStream(file) })) {
    const { type, ...message } = JSON.parse(line);
    waiting++;
    analytics.track(message);
    if (waiting >= MOST_WAITING) await new Promise((resolve) => (roomy = resolve));
  }
  await analytics.closeAndFlush({ timeout: 600000 });
}

if (mode === "single") single(Number(first), Number(second));
else bulk(first, Number(second));

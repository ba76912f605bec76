// Sends what it is told with Segment's own Node library and OAuth: node ... PACKAGES HOST KEY OAUTH_SETTINGS MESSAGES
const { createRequire } = require("node:module");
const [packages, host, writeKey, oauthSettings, messages] = process.argv.slice(2);
const { Analytics } = createRequire(packages + "/package.json")("@segment/analytics-node");

const analytics = new Analytics({ writeKey, host, flushAt: 1, maxRetries: 0, oauthSettings: JSON.parse(oauthSettings) });
analytics.on("error", (error) => {
  console.error(error);
  process.exitCode = 1;
});
for (const { type, ...fields } of JSON.parse(messages)) analytics[type](fields);
analytics.closeAndFlush({ timeout: 20000 });

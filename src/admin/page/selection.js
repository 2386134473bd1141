// What is shown: range, gateway, grouping. It lives in the URL's hash, so that a reload, a
// bookmark or a colleague sees the same. The hash is anyone's input: what is unknown is dropped.

/** Ranges by name: what the button says, and seconds. */
export const RANGES = {
  "15m": ["15 min", 900],
  "1h": ["1 h", 3_600],
  "6h": ["6 h", 21_600],
  "24h": ["24 h", 86_400],
  "7d": ["7 d", 604_800],
  "30d": ["30 d", 2_592_000],
};

/** Groupings by the API's name. `metadata.<key>` is one too. */
export const GROUPINGS = {
  gateway: "Gateway",
  provider: "Provider",
  model: "Model",
  route: "Route",
  key: "Key",
  owner: "Owner",
  user_agent: "User agent",
};

const METADATA = "metadata.";
const LONGEST = 512;

/**
 * @typedef {object} Selection
 * @property {keyof RANGES} range
 * @property {string} gateway `account/name`, or empty for all
 * @property {string} by name of a grouping, or empty for none
 * @property {boolean} failed only failed calls are listed
 */

/** @returns {Selection} */
export function read(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const text = (name) => (given.get(name) ?? "").slice(0, LONGEST);
  const by = text("by");
  return {
    range: Object.hasOwn(RANGES, text("range")) ? text("range") : "1h",
    gateway: text("gateway"),
    by: Object.hasOwn(GROUPINGS, by) || metadataKey(by) ? by : "",
    failed: text("failed") === "1",
  };
}

/** @param {Selection} selection */
export function write({ range, gateway, by, failed }) {
  const given = new URLSearchParams({ range });
  if (gateway) given.set("gateway", gateway);
  if (by) given.set("by", by);
  if (failed) given.set("failed", "1");
  return `#${given}`;
}

/** The key of `metadata.<key>`, or nothing. */
export const metadataKey = (by) => (by.startsWith(METADATA) ? by.slice(METADATA.length) : "");

export const byMetadata = (key) => METADATA + key;

/** What a grouping is called. */
export const groupingName = (by) => (Object.hasOwn(GROUPINGS, by) ? GROUPINGS[by] : metadataKey(by));

/** Seconds of the range. */
export const seconds = ({ range }) => RANGES[range][1];

/** @returns {{start: number, end: number}} seconds since 1970 */
export function span(selection, now = Date.now()) {
  const end = Math.ceil(now / 1e3);
  return { start: end - seconds(selection), end };
}

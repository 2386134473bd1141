// The totals of the range, one tile a question: how much, how well, how dear, how fast.

import { el, replace } from "./dom.js";
import * as figures from "./figures.js";
import { NONE, count, duration, exact, money, number, percent, short, whole } from "./format.js";

/** @returns {{name: string, value: string, all?: string, notes: string[], bad?: boolean}[]} */
function tiles({ totals, start, end }) {
  const minutes = Math.max(1, end - start) / 60;
  const requests = figures.requests(totals);
  return [
    {
      name: "Requests",
      value: count(requests),
      all: exact(requests),
      notes: [`${short(Number((requests / minutes).toPrecision(3)))} a minute`, share(requests > 0 ? whole(totals.streamed) / requests : null, "streamed"), fellBack(totals)],
    },
    { name: "Error rate", value: percent(figures.errorRate(totals)), notes: failed(totals), bad: figures.errorRate(totals) > 0.05 },
    {
      name: "Tokens",
      value: count(figures.tokens.all(totals)),
      all: exact(figures.tokens.all(totals)),
      notes: [`${count(figures.tokens.input(totals))} in, ${count(figures.tokens.output(totals))} out`, share(figures.cachedShare(totals), "cached")],
    },
    { name: "Cost", value: money(figures.cost(totals)), all: `$${exact(figures.cost(totals))}`, notes: unsure(totals) },
    {
      name: "Saved",
      value: money(figures.saved(totals)),
      all: `$${exact(figures.saved(totals))}`,
      notes: [share(figures.savedShare(totals), "of full cost")],
    },
    { name: "Cache hit rate", value: percent(figures.hitRate(totals)), notes: answered(totals) },
    { name: "Latency", value: duration(totals.latency_ms?.p50), notes: [...quantiles(totals.latency_ms), overhead(totals)] },
    { name: "First token", value: duration(totals.ttft_ms?.p50), notes: quantiles(totals.ttft_ms) },
  ];
}

function fellBack({ attempts, fell_back: fell, requests }) {
  const again = Math.max(0, whole(attempts) - whole(requests));
  if (whole(fell) > 0) return `${count(fell)} fell back`;
  return again > 0 ? `${count(again)} retries` : null;
}

function failed(totals) {
  const by = figures.failures(totals);
  const told = Object.entries(by).filter(([, times]) => times > 0);
  return told.length > 0 ? told.map(([source, times]) => `${count(times)} ${source}`) : [figures.requests(totals) > 0 && "no call failed"];
}

const share = (part, what) => (part === null ? null : `${percent(part)} ${what}`);

/** What the sum does not contain, or contains by guess: never passed over in silence. */
function unsure({ unpriced, usage_estimated: estimated }) {
  return [
    whole(unpriced) > 0 ? `${count(unpriced)} without a price` : null,
    whole(estimated) > 0 ? `${count(estimated)} estimated` : null,
  ];
}

function answered({ cache = {} }) {
  const told = ["hit", "coalesced", "stale"].filter((status) => whole(cache[status]) > 0);
  return told.length > 0 ? told.map((status) => `${count(cache[status])} ${status}`) : [whole(cache.miss) > 0 && `${count(cache.miss)} missed`];
}

const quantiles = (of) => (of ? [`p95 ${duration(of.p95)}`, `p99 ${duration(of.p99)}`] : []);

function overhead({ overhead_ms: of }) {
  return number(of?.p50) === null ? null : `gateway ${duration(of.p50)}`;
}

function tile({ name, value, all, notes, bad }) {
  const told = notes.filter(Boolean).map((note) => el("span", {}, note));
  const median = ["Latency", "First token"].includes(name) && value !== NONE;
  return el("div", { class: bad ? "tile bad" : "tile" },
    el("h2", {}, name, median ? el("small", {}, " p50") : null),
    el("p", { class: "figure", title: all }, value),
    el("p", { class: "notes" }, told));
}

export function showTiles(root, result) {
  replace(root, tiles(result).map(tile));
}

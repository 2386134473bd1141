// What the figures of the analytics API mean: shares and sums that it leaves to its readers.
// Pure functions of one FIGURES object, of a bucket or of the whole range.

import { number, whole } from "./format.js";

const sum = (numbers) => numbers.reduce((total, next) => total + next, 0);

export const requests = (figures) => whole(figures.requests);

/** A share, or none where there is nothing to share. */
const share = (part, all) => (all > 0 ? part / all : null);

/** Kinds of errors with their number, most first: `["provider", "provider_429", 12]`. */
export function errorKinds(figures) {
  const kinds = Object.entries(figures.errors ?? {}).map(([name, times]) => {
    const [source, ...kind] = name.split(":");
    return [source, kind.join(":") || source, whole(times)];
  });
  return kinds.sort((one, other) => other[2] - one[2]);
}

/**
 * Failed calls by who is at fault. An error that a client was spared (a stored answer stood in
 * for it) counts among the kinds of errors, but the call succeeded. Those are the provider's
 * first of all, so they are taken off there; failures without a kind are `unknown`.
 */
export function failures(figures) {
  const by = { client: 0, gateway: 0, provider: 0, unknown: 0 };
  for (const [source, , times] of errorKinds(figures)) by[Object.hasOwn(by, source) ? source : "unknown"] += times;
  const failed = Math.max(0, requests(figures) - whole(figures.succeeded));
  let spared = sum(Object.values(by)) - failed;
  for (const source of ["provider", "gateway", "unknown", "client"]) {
    const taken = Math.min(by[source], Math.max(0, spared));
    by[source] -= taken;
    spared -= taken;
  }
  by.unknown += Math.max(0, -spared);
  return by;
}

/** Share of the calls that failed, all of them or those that `source` is at fault for. */
export function errorRate(figures, source) {
  const failed = source ? failures(figures)[source] : requests(figures) - whole(figures.succeeded);
  return share(Math.max(0, failed), requests(figures));
}

/** Calls that asked the cache; those that went past it, and fetches of its own, did not. */
const asked = ({ cache = {} }) => sum(["hit", "stale", "coalesced", "miss"].map((status) => whole(cache[status])));

/** Share of the calls that asked the cache and were answered by it: in all, or in this way. */
export function hitRate(figures, status) {
  const statuses = status ? [status] : ["hit", "stale", "coalesced"];
  return share(sum(statuses.map((name) => whole(figures.cache?.[name]))), asked(figures));
}

const token = (name) => (figures) => whole(figures.tokens?.[name]);

/** Input and output contain what is cached, reasoning and the rest. */
export const tokens = {
  input: token("input_tokens"),
  output: token("output_tokens"),
  cached: token("cached_input_tokens"),
  fresh: (figures) => Math.max(0, tokens.input(figures) - tokens.cached(figures)),
  all: (figures) => tokens.input(figures) + tokens.output(figures),
};

/** Share of the input tokens that the provider had cached. */
export const cachedShare = (figures) => share(tokens.cached(figures), tokens.input(figures));

export const cost = (figures) => whole(figures.cost_usd);
export const saved = (figures) => whole(figures.saved_usd);

/** Share that the cache saved of what the calls would have cost. */
export const savedShare = (figures) => share(saved(figures), saved(figures) + cost(figures));

/** `quantile("latency_ms", "p95")(figures)`: milliseconds, or none. */
export const quantile = (what, which) => (figures) => number(figures[what]?.[which]);

// Everything about one call: what was tried, where the time went, what went wrong, and the begin
// of its bodies. All of it is shown as text.

import { el, foreign, svg } from "./dom.js";
import { NONE, count, duration, exact, money, number, size } from "./format.js";

const section = (name, ...content) => el("section", {}, el("h3", {}, name), content);

/** Names and values; what is absent is left out. */
function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", {}, known.map(([name, value]) => [
    el("dt", {}, foreign(name)),
    el("dd", {}, value instanceof Node ? value : foreign(value)),
  ]));
}

const yes = (flag) => (flag ? "yes" : "no");

/**
 * @param {object} entry with previews, where they have been asked for
 * @param {Node} [instead] what stands in the place of the bodies
 */
export function details(entry, instead) {
  return el("div", { class: "details" },
    el("div", { class: "facts" },
      problem(entry), attempts(entry), timings(entry), usage(entry), metadata(entry), request(entry), identity(entry)),
    instead ?? el("div", { class: "bodies" }, body(entry, "request"), body(entry, "response")));
}

function problem({ error, error_source: source, error_detail: detail, denied_by: denied }) {
  if (!error && !denied) return null;
  return section("Error", facts([["kind", error], ["at fault", source], ["denied by", denied], ["detail", detail]]));
}

/** Those that failed, in order, and the one that answered. */
function attempts({ tried, attempts: made, provider, model, status_code: status, success, cached }) {
  const failed = (tried ?? []).map(({ target, cause, status: code, ms }) =>
    attempt(target ?? [provider, model].filter(Boolean).join("/"), [cause, code], ms, "bad"));
  const last = success && !cached ? attempt([provider, model].filter(Boolean).join("/"), ["answered", status], null, "fine") : null;
  const none = failed.length === 0 && !last ? el("p", { class: "muted" }, cached ? "The cache answered; no provider was asked." : "No provider was asked.") : null;
  return section(`Attempts: ${count(made)}`, none ?? el("ol", { class: "tried" }, failed, last));
}

function attempt(target, outcome, ms, kind) {
  return el("li", {}, el("i", { class: `dot ${kind}` }), foreign(target || NONE, { class: "name" }),
    el("span", { class: "outcome" }, outcome.filter(Boolean).join(" ")), el("span", { class: "value" }, ms === null ? "" : duration(ms)));
}

/** Bars on the scale of the whole call. */
function timings({ timings: of = {} }) {
  const all = number(of.duration);
  const rows = [
    ["waited for a place", of.waited], ["to the first byte", of.first_byte], ["to the first token", of.first_token],
    ["at the provider", of.upstream], ["in the gateway", of.overhead], ["in all", of.duration],
  ];
  const bar = (ms) => svg("svg", { class: "time", height: 6, "aria-hidden": "true" },
    svg("rect", { width: `${Math.min(100, Math.max(0, (ms / (all || 1)) * 100)).toFixed(2)}%`, height: 6, rx: 1.5 }));
  return section("Timings", el("ul", { class: "timings" }, rows
    .filter(([, ms]) => number(ms) !== null)
    .map(([name, ms]) => el("li", {}, el("span", {}, name), bar(number(ms)), el("span", { class: "value" }, duration(ms))))));
}

function usage(entry) {
  const { usage_metadata: tokens, usage_estimated: estimated, cost, cost_source: source, custom_cost: custom, saved } = entry;
  const counts = Object.entries(tokens ?? {}).map(([kind, times]) => [kind.replaceAll("_", " "), times === null ? null : exact(times)]);
  return section("Tokens and cost", facts([
    ...counts,
    ["estimated", estimated ? "yes, the provider did not tell" : null],
    ["cost", number(cost) === null ? "no price is known" : money(cost)],
    ["price from", custom ? "the client" : source],
    ["saved", number(saved) ? money(saved) : null],
  ]));
}

function metadata({ metadata: of }) {
  const pairs = Object.entries(of ?? {});
  return pairs.length > 0 ? section("Metadata", facts(pairs.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]))) : null;
}

function request(entry) {
  const { method, path, http_version: version, requested_model: asked, provider_status: provider, cache_status: cache } = entry;
  const stored = [entry.cache_tier && `in ${entry.cache_tier}`, entry.cache_source && `from ${entry.cache_source}`];
  return section("Request", facts([
    ["call", [method, path].filter(Boolean).join(" ")],
    ["protocol", version],
    ["type", entry.request_type],
    ["model asked for", asked],
    ["route", entry.route && `${entry.route}, step ${entry.step}, target ${entry.target}`],
    ["status at the provider", provider],
    ["cache", [cache, ...stored].filter(Boolean).join(", ")],
    ["streamed", `${yes(entry.streamed)}${entry.complete ? "" : ", broke off"}`],
    ["service tier", entry.service_tier],
    ["sizes", `${size(entry.request_size)} in, ${size(entry.response_size)} out`],
  ]));
}

function identity(entry) {
  return section("Identity", facts([
    ["log id", entry.id],
    ["event id", entry.event_id],
    ["began", entry.created_at],
    ["consumer", entry.consumer],
    ["owner", entry.owner],
    ["stored key", entry.byok ? entry.key_alias ?? "yes" : null],
    ["client", entry.client],
    ["user agent", entry.user_agent],
    ["traceparent", entry.traceparent],
    ["feedback", entry.feedback],
    ["score", entry.score],
  ]));
}

/** Head and begin of one body. */
function body(entry, side) {
  const text = entry[`${side}_head`];
  const complete = entry[`${side}_head_complete`];
  const name = side === "request" ? "Request" : "Response";
  const kept = typeof text === "string";
  const note = kept ? (complete ? "all of it" : `the begin of ${size(entry[`${side}_size`])}`) : null;
  const shown = kept && text !== "" ? el("pre", { tabindex: 0, dir: "auto", "aria-label": `${name} body` }, text) : null;
  const none = el("p", { class: "muted" }, kept ? "Empty." : "Not kept.");
  return section(`${name} body`, note ? el("small", { class: "muted" }, note) : null, shown ?? none, headers(entry[`${side}_headers`]));
}

function headers(head) {
  if (!Array.isArray(head) || head.length === 0) return null;
  return el("details", {}, el("summary", {}, `Headers (${count(head.length)})`), facts(head));
}

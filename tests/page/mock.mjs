// A stand-in for the listener of operators: the page's assets with the headers of the real one,
// and the two resources that the page reads, with the answers of a scenario. It refuses what the
// real one refuses, and remembers what it was asked.

import { readFile, readdir } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ASSETS = fileURLToPath(new URL("../../src/admin/page/", import.meta.url));

export const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const KINDS = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

const GROUPINGS = ["gateway", "provider", "model", "route", "key", "owner", "user_agent"];
const PARAMETERS = {
  "/-/analytics": ["start", "end", "interval", "group_by", "gateway", "limit"],
  "/-/logs": ["per_page", "cursor", "filters"],
};
const FILTERS = ["created_at", "gateway", "success"];
const OPERATORS = ["eq", "neq", "contains", "lt", "gt"];
const MOST_PER_PAGE = 50;

/** An error in the API's envelope. */
export class Refusal extends Error {
  constructor(status, message, code = 7001) {
    super(message);
    Object.assign(this, { status, code });
  }
}

/**
 * @typedef {object} Scenario
 * @property {(query: object) => object} analytics the result; may throw a Refusal
 * @property {object[]} calls latest first, as the list shows them
 * @property {(id: string) => object} [call] one call with its previews
 * @property {number} [now] milliseconds, where the page's clock stands still
 */

/** @param {Scenario} scenario which a test may change while the server runs */
export async function serve(scenario) {
  const asked = [];
  const assets = new Set(await readdir(ASSETS));
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://mock");
    asked.push(url.pathname + url.search);
    answer(scenario, assets, request, url).then(
      ([status, kind, body]) => send(response, status, kind, body),
      (error) => send(response, error.status ?? 500, "application/json", envelope(error)),
    );
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  server.unref(); // a test that fails may not come to closing it
  const close = () => new Promise((closed) => (server.close(closed), server.closeAllConnections()));
  return { url: `http://127.0.0.1:${server.address().port}/`, asked, scenario, close };
}

function send(response, status, kind, body) {
  response.writeHead(status, {
    "content-type": kind,
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
  });
  response.end(body);
}

const envelope = (error) =>
  JSON.stringify({ success: false, errors: [{ code: error.code ?? 8500, message: error.message }], messages: [], result: null });

async function answer(scenario, assets, request, { pathname, searchParams }) {
  if (request.method !== "GET") throw new Refusal(405, "this resource answers GET only");
  const asset = pathname === "/" ? "index.html" : pathname.replace(/^\/-\/page\//, "");
  if (assets.has(asset)) return [200, KINDS[extname(asset)], await readFile(join(ASSETS, asset))];
  await scenario.delay?.(pathname);
  if (scenario.raw) return scenario.raw(pathname);
  const result = api(scenario, pathname, searchParams);
  return [200, "application/json", JSON.stringify({ success: true, errors: [], messages: [], ...result })];
}

function api(scenario, path, parameters) {
  const known = PARAMETERS[path] ?? [];
  const unknown = [...parameters.keys()].find((name) => !known.includes(name));
  if (unknown) throw new Refusal(400, `${unknown}: is not a parameter of this request`);
  if (path === "/-/analytics") return { result: scenario.analytics(range(parameters)) };
  if (path === "/-/logs") return list(scenario, parameters);
  const id = /^\/-\/logs\/([^/]+)$/.exec(path);
  if (id) return { result: one(scenario, decodeURIComponent(id[1])) };
  throw new Refusal(404, "no such resource");
}

/** The parameters of the analytics. */
function range(parameters) {
  const whole = (name) => {
    if (!/^\d+$/.test(parameters.get(name) ?? "")) throw new Refusal(400, `${name}: must be seconds since 1970`);
    return Number(parameters.get(name));
  };
  const query = { start: whole("start"), end: whole("end"), by: parameters.get("group_by"), gateway: parameters.get("gateway") };
  if (query.end <= query.start) throw new Refusal(400, "end: must be after start");
  if (query.by && !GROUPINGS.includes(query.by) && !/^metadata\../.test(query.by)) throw new Refusal(400, "group_by: is not known");
  if (query.by) query.limit = whole("limit");
  return query;
}

function list({ calls }, parameters) {
  const size = Number(parameters.get("per_page") ?? 20);
  if (!(size >= 1 && size <= MOST_PER_PAGE)) throw new Refusal(400, `per_page: must be a whole number from 1 to ${MOST_PER_PAGE}`);
  const wanted = calls.filter(filter(JSON.parse(parameters.get("filters") ?? "[]")));
  const from = parameters.has("cursor") ? parseInt(parameters.get("cursor"), 16) : 0;
  const result = wanted.slice(from, from + size);
  const more = from + size < wanted.length;
  const cursor = more ? (from + size).toString(16).padStart(16, "0") : null;
  return { result, result_info: { page: 1, per_page: size, count: result.length, total_count: wanted.length, cursor } };
}

function filter(conditions) {
  for (const { key, operator, value } of conditions) {
    if (!FILTERS.includes(key)) throw new Refusal(400, `filters: \`${key}\` is not known`);
    if (!OPERATORS.includes(operator) || !Array.isArray(value)) throw new Refusal(400, "filters: must have operator and value");
  }
  const read = (call, key) => (key === "created_at" ? Date.parse(call.created_at) : call[key]);
  return (call) =>
    conditions.every(({ key, operator, value: [value] }) =>
      operator === "gt" ? read(call, key) > value : read(call, key) === value);
}

function one({ calls, call }, id) {
  const entry = calls.find((candidate) => candidate.id === id);
  if (!entry) throw new Refusal(404, "there is no log entry of this id", 7002);
  return call ? call(entry) : { ...entry, ...previews() };
}

/** The begin of the bodies of a call that has nothing special about it. */
export const previews = (request = '{"model":"gpt-5-mini"}', response = '{"id":"r1"}') => ({
  request_head: request,
  request_head_complete: true,
  response_head: response,
  response_head_complete: true,
  request_headers: [["content-type", "application/json"]],
  response_headers: [["content-type", "application/json"]],
});

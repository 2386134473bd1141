// The admin API: the only requests that this page makes, and what is said when one fails.

import { span } from "./selection.js";

/** Groups with figures of their own; the API folds the others into one. */
const MOST_GROUPS = 8;

/** Gateways that can be chosen. */
const MOST_GATEWAYS = 50;

const PER_PAGE = 50;
const PAGES = 2;

/** Longer than the API itself is patient. */
const PATIENCE = 30_000;

/** A request that failed, told so that an operator knows what to do. */
export class ApiError extends Error {}

/**
 * @param {string} path
 * @param {Record<string, unknown>} parameters of which empty ones are left out
 * @param {AbortSignal} signal ends the request when its answer is no longer wanted
 */
async function get(path, parameters, signal) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
  const url = [path, query].map(String).filter(Boolean).join("?");
  const answer = await ask(url, AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]));
  const body = await answer.json().catch(() => null);
  if (answer.ok && body?.success === true) return body;
  throw new ApiError(`${reason(body)} (${path}: HTTP ${answer.status})`);
}

async function ask(url, signal) {
  try {
    return await fetch(url, { signal, cache: "no-store", credentials: "same-origin", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.name === "TimeoutError") {
      throw new ApiError(`No answer within ${PATIENCE / 1e3} s. A shorter range takes less time.`);
    }
    throw new ApiError("tollgate does not answer at this address. Is the process running?");
  }
}

/** What an error's body says: the API's envelope, or the listener's own short form. */
function reason(body) {
  const told = (body?.errors ?? []).map(({ code, message }) => (code ? `${message} [${code}]` : message));
  return told.join("; ") || body?.error || "The answer is not one of this API";
}

/** @param {import("./selection.js").Selection} selection */
export async function analytics(selection, signal) {
  const { gateway, by } = selection;
  const grouping = by ? { group_by: by, limit: MOST_GROUPS } : {};
  return (await get("/-/analytics", { ...span(selection), interval: "auto", ...grouping, gateway }, signal)).result;
}

/** Names of the gateways that had calls in the range. */
export async function gateways(selection, signal) {
  const grouping = { group_by: "gateway", limit: MOST_GATEWAYS };
  const { result } = await get("/-/analytics", { ...span(selection), interval: "auto", ...grouping }, signal);
  return result.groups.map(({ name }) => name);
}

/** The last hundred calls of the selection, latest first. */
export async function calls(selection, signal) {
  const filters = JSON.stringify(conditions(selection));
  const found = [];
  let cursor = "";
  for (let page = 0; page < PAGES; page += 1) {
    const { result, result_info } = await get("/-/logs", { per_page: PER_PAGE, cursor, filters }, signal);
    found.push(...result);
    cursor = result_info?.cursor ?? "";
    if (!cursor || result.length < PER_PAGE) break;
  }
  return found;
}

function conditions(selection) {
  const { start } = span(selection);
  const found = [{ key: "created_at", operator: "gt", value: [start * 1e3 - 1] }];
  if (selection.gateway) found.push({ key: "gateway", operator: "eq", value: [selection.gateway] });
  if (selection.failed) found.push({ key: "success", operator: "eq", value: [false] });
  return found;
}

/** The latest call of all, if there is one. */
export async function latest(signal) {
  return (await get("/-/logs", { per_page: 1 }, signal)).result[0];
}

/** One call with the begin of its bodies. */
export async function call(id, signal) {
  return (await get(`/-/logs/${encodeURIComponent(id)}`, {}, signal)).result;
}

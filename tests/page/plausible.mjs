// Data such as a company's gateway has: a working day's curve, eight models, a provider that
// was slow for a while. All of it follows from the time and a seed: the same range gives the
// same figures. For the screenshot and for looking at the page; the tests have their own figures.

import { previews } from "./mock.mjs";

const MODELS = [
  // provider, model, share, dollars per million in and out, latency, input and output tokens
  ["openai", "gpt-5-mini", 0.34, 0.25, 2, 900, 1_900, 260],
  ["anthropic", "claude-sonnet-4-5", 0.22, 3, 15, 2_100, 6_200, 640],
  ["openai", "gpt-5", 0.13, 1.25, 10, 2_800, 3_800, 720],
  ["google-ai-studio", "gemini-2.5-flash", 0.11, 0.3, 2.5, 760, 2_700, 310],
  ["openai", "text-embedding-3-small", 0.08, 0.02, 0, 90, 420, 0],
  ["aws-bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", 0.06, 1, 5, 1_150, 1_400, 210],
  ["groq", "llama-3.3-70b-versatile", 0.04, 0.59, 0.79, 380, 1_100, 240],
  ["mistral", "mistral-medium-latest", 0.02, 0.4, 2, 1_300, 900, 330],
];
const GATEWAYS = ["acme/support", "acme/search", "acme/batch"];
const STEPS = [60, 300, 900, 3_600, 14_400, 86_400];

/** A number from 0 to 1 that follows from the others. */
function chance(...seeds) {
  let hash = 2_166_136_261;
  for (const seed of seeds) {
    hash = Math.imul(hash ^ Math.floor(seed), 16_777_619);
    hash = Math.imul(hash ^ (hash >>> 15), 2_246_822_507);
  }
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}

const hourOf = (at) => (at % 86_400) / 3_600;
/** Calls a second at this time: a working day, with lunch. */
const rate = (at) => 0.55 + 1.9 * Math.exp(-(((hourOf(at) - 10.5) / 2.6) ** 2)) + 1.7 * Math.exp(-(((hourOf(at) - 15.4) / 2.4) ** 2));
/** Half an hour in which one provider is in trouble. */
const trouble = (at) => Math.exp(-(((hourOf(at) - 9.0) / 0.22) ** 2));

function figuresOf(index, at, step, share = 1) {
  const [, , weight, input, output, base, sizeIn, sizeOut] = MODELS[index];
  const noise = (what, spread = 0.3) => 1 - spread / 2 + spread * chance(index, at / step, what);
  const requests = Math.round(rate(at + step / 2) * step * weight * share * noise(1));
  const bad = index === 1 ? trouble(at + step / 2) : 0;
  const errors = {
    "provider:provider_429": Math.round(requests * (0.004 + 0.09 * bad) * noise(2, 1.4)),
    "provider:provider_5xx": Math.round(requests * (0.002 + 0.06 * bad) * noise(3, 1.8)),
    "provider:upstream_timeout": Math.round(requests * 0.03 * bad * noise(4)),
    "client:client_gone": Math.round(requests * 0.006 * noise(5, 1.6)),
    "client:bad_request": Math.round(requests * 0.0025 * noise(6, 2)),
    "gateway:busy": Math.round(requests * 0.02 * bad),
  };
  const failed = Object.values(errors).reduce((sum, times) => sum + times, 0);
  const hit = Math.round(requests * (index === 4 ? 0.5 : 0.17) * noise(7, 0.5));
  const coalesced = Math.round(requests * 0.02 * noise(8, 1));
  const stale = Math.round(requests * 0.15 * bad);
  const bypass = Math.round(requests * 0.05);
  const paid = Math.max(0, requests - hit - coalesced - stale - failed);
  const tokensIn = Math.round(requests * sizeIn * noise(9));
  const tokensOut = Math.round(requests * sizeOut * noise(10));
  const cached = Math.round(tokensIn * 0.36 * noise(11));
  const price = ((tokensIn - cached * 0.9) * input + tokensOut * output) / 1e6;
  const slow = (1 + 2.2 * bad) * noise(12, 0.25);
  const quantiles = (p50, wide) => ({ count: requests, mean: p50 * 1.3, p50, p95: p50 * wide * noise(13), p99: p50 * wide * 1.9 * noise(14, 0.6) });
  return {
    requests,
    succeeded: requests - failed,
    streamed: Math.round(requests * (sizeOut ? 0.62 : 0)),
    errors,
    attempts: requests - hit - coalesced + Math.round(requests * (0.01 + 0.2 * bad)),
    fell_back: Math.round(requests * (0.004 + 0.12 * bad)),
    cache: { hit, coalesced, stale, bypass, miss: requests - hit - coalesced - stale - bypass },
    tokens: { input_tokens: tokensIn, output_tokens: tokensOut, cached_input_tokens: cached, reasoning_output_tokens: Math.round(tokensOut * 0.2) },
    usage_estimated: Math.round(requests * 0.003),
    unpriced: index === 7 ? Math.round(requests * 0.1) : 0,
    cost_usd: (price * paid) / Math.max(1, requests),
    saved_usd: (price * (hit + coalesced + stale)) / Math.max(1, requests),
    latency_ms: requests ? quantiles(base * slow, 2.4) : null,
    ttft_ms: requests && sizeOut ? quantiles(base * 0.32 * slow, 2.1) : null,
    overhead_ms: requests ? quantiles(0.19, 2.2) : null,
  };
}

const quantileKeys = ["latency_ms", "ttft_ms", "overhead_ms"];

/** Sums; percentiles, which have no sum, are weighted. */
function add(all) {
  const total = {};
  for (const figures of all) {
    for (const [key, value] of Object.entries(figures)) {
      if (quantileKeys.includes(key)) continue;
      if (typeof value === "number") total[key] = (total[key] ?? 0) + value;
      else for (const [name, times] of Object.entries(value)) (total[key] ??= {})[name] = (total[key][name] ?? 0) + times;
    }
  }
  for (const key of quantileKeys) total[key] = weighted(all.map((figures) => figures[key]).filter(Boolean));
  return total;
}

function weighted(all) {
  const count = all.reduce((sum, of) => sum + of.count, 0);
  if (count === 0) return null;
  const mean = (name) => all.reduce((sum, of) => sum + of[name] * of.count, 0) / count;
  return { count, mean: mean("mean"), p50: mean("p50"), p95: mean("p95"), p99: mean("p99") };
}

const GROUPED = {
  model: MODELS.map(([, model], index) => [model, [index], 1]),
  provider: ["openai", "anthropic", "google-ai-studio", "aws-bedrock", "groq", "mistral"].map((name) => [
    name, MODELS.flatMap(([provider], index) => (provider === name ? [index] : [])), 1,
  ]),
  gateway: GATEWAYS.map((name, index) => [name, [...MODELS.keys()], [0.55, 0.3, 0.15][index]]),
};

export function analytics({ start, end, by, gateway }) {
  const step = STEPS.find((candidate) => (end - start) / candidate <= 100) ?? 86_400;
  const share = gateway ? 0.4 : 1;
  const times = [];
  for (let at = Math.floor(start / step) * step; at < end; at += step) times.push(at);
  const line = (indices, part) => times.map((at) => ({ at, ...add(indices.map((index) => figuresOf(index, at, step, part * share))) }));
  const points = line([...MODELS.keys()], 1);
  const bare = (list) => add(list.map(({ at, ...figures }) => figures));
  const groups = by ? (GROUPED[by] ?? [["", [...MODELS.keys()], 0.9], ["nightly", [1, 2], 0.1]]) : [];
  const shown = groups.map(([name, indices, part]) => {
    const own = line(indices, part);
    return { name, totals: bare(own), points: own };
  });
  return { start, end, interval_s: step, group_by: by ?? null, totals: bare(points), points, groups: shown };
}

const AGENTS = ["OpenAI/Python 2.8.1", "ai-sdk/7.0.173 runtime/node.js/22", "anthropic-sdk-python/0.75.0", "curl/8.14.1"];

function callOf(number, now) {
  const roll = (what) => chance(number, what, 77);
  let index = 0;
  for (let left = roll(1); index < MODELS.length - 1 && left > MODELS[index][2]; index += 1) left -= MODELS[index][2];
  const [provider, model, , input, output, base, sizeIn, sizeOut] = MODELS[index];
  const hit = roll(2) < 0.2;
  const fault = roll(3) < 0.07 && !hit;
  const again = roll(4) < 0.08 && !hit;
  const size = 0.3 + 1.6 * roll(5);
  const [tokensIn, tokensOut] = [Math.round(sizeIn * size), Math.round(sizeOut * size * (0.6 + roll(6)))];
  const price = (tokensIn * input + tokensOut * output) / 1e6;
  const took = hit ? 0.6 + roll(7) : base * (0.5 + roll(7) * 1.8);
  const streamed = sizeOut > 0 && roll(8) < 0.6;
  const began = now - number * 2_300 - Math.floor(roll(9) * 2_000);
  const hex = (what) => Math.floor(chance(number, what) * 2 ** 32).toString(16).padStart(8, "0");
  const time = began.toString(16).padStart(12, "0");
  return {
    id: `${time.slice(0, 8)}-${time.slice(8)}-7${hex(1).slice(0, 3)}-a${hex(2).slice(0, 3)}-${hex(3)}${hex(4).slice(0, 4)}`,
    created_at: new Date(began).toISOString(),
    gateway: GATEWAYS[Math.floor(roll(10) * 3)],
    provider, model, model_type: sizeOut ? "chat" : "embedding", requested_model: again ? "dynamic/chat" : null,
    path: "/v1/acme/support/openai/v1/chat/completions", method: "POST", http_version: "HTTP/2.0",
    duration: Math.round(took), success: !fault, status_code: fault ? (roll(11) < 0.5 ? 429 : 400) : 200, provider_status: null,
    cached: hit, cache_status: hit ? (roll(12) < 0.15 ? "coalesced" : "hit") : roll(13) < 0.1 ? "bypass" : "miss",
    cache_tier: hit ? "memory" : null, cache_source: null,
    tokens_in: fault ? null : tokensIn, tokens_out: fault ? null : tokensOut,
    usage_metadata: fault ? null : { input: tokensIn, output: tokensOut, cached_input: Math.round(tokensIn * 0.3), reasoning: null },
    usage_estimated: false, cost: fault ? null : hit ? 0 : price, custom_cost: false, cost_source: "list", saved: hit ? price : null,
    service_tier: null, metadata: { team: ["search", "support", "billing"][Math.floor(roll(14) * 3)], tenant: 4_000 + Math.floor(roll(15) * 90) },
    route: again ? "chat" : null, step: again ? 1 : 0, target: again ? 1 : 0, attempts: hit ? 0 : again ? 2 : 1,
    tried: again ? [{ target: "anthropic/claude-sonnet-4-5", cause: "overloaded", status: 529, ms: 412 }] : [],
    request_type: null, request_content_type: "application/json", response_content_type: "application/json",
    request_size: tokensIn * 4, response_size: tokensOut * 5 + 300, streamed, complete: true,
    error_source: fault ? (roll(11) < 0.5 ? "provider" : "client") : null,
    error: fault ? (roll(11) < 0.5 ? "provider_429" : "bad_request") : null, error_detail: null, denied_by: null,
    feedback: null, score: null, event_id: null, authentication: true, wholesale: false, byok: true, key_alias: "production",
    consumer: "backend", owner: "platform", client: "10.20.3.17", user_agent: AGENTS[Math.floor(roll(16) * AGENTS.length)], traceparent: null,
    timings: {
      duration: took, upstream: hit ? null : took - 0.3, overhead: 0.15 + roll(17) * 0.3,
      first_byte: hit ? null : took * 0.3, first_token: streamed && !hit ? took * 0.34 : null, waited: null,
    },
  };
}

/** @returns {import("./mock.mjs").Scenario} */
export function plausible(now) {
  const calls = Array.from({ length: 160 }, (_, number) => callOf(number, now));
  calls.sort((one, other) => Date.parse(other.created_at) - Date.parse(one.created_at));
  const prompt = '{"model":"gpt-5-mini","stream":true,"messages":[{"role":"system","content":"You answer questions about orders."},{"role":"user","content":"Where is order 4711?"}]}';
  return { now, analytics, calls, call: (entry) => ({ ...entry, ...previews(prompt, '{"id":"chatcmpl-9x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"It left Rotterdam this morning and arrives on Monday."},"finish_reason":"stop"}]}') }) };
}

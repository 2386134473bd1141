// Figures that the tests know by heart, and data of somebody who means harm.

import { previews } from "./mock.mjs";

/** Where the clocks of mock and page stand: a Friday noon. */
export const NOW = Date.parse("2026-11-27T12:00:00Z");

const STEP = 60;

const quantiles = (p50, p95, p99) => ({ count: 10, mean: p50, p50, p95, p99 });

export const NONE = {
  requests: 0, succeeded: 0, streamed: 0, errors: {}, attempts: 0, fell_back: 0, cache: {}, tokens: {},
  usage_estimated: 0, unpriced: 0, cost_usd: 0, saved_usd: 0, latency_ms: null, ttft_ms: null, overhead_ms: null,
};

/** Totals whose every shown form is written down in figures.test.mjs. */
export const TOTALS = {
  requests: 12_480,
  succeeded: 12_168,
  streamed: 6_240,
  errors: { "provider:provider_429": 200, "provider:provider_5xx": 12, "client:client_gone": 90, "gateway:busy": 20 },
  attempts: 12_600,
  fell_back: 37,
  cache: { hit: 2_000, stale: 100, coalesced: 400, miss: 7_500, bypass: 2_480 },
  tokens: { input_tokens: 8_000_000, output_tokens: 640_000, cached_input_tokens: 2_000_000 },
  usage_estimated: 5,
  unpriced: 3,
  cost_usd: 38.2149,
  saved_usd: "9.55",
  latency_ms: quantiles(812.4, 4_123, 65_000),
  ttft_ms: quantiles(340, 900, 1_500),
  overhead_ms: quantiles(0.214, 0.5, 1.1),
};

const point = {
  ...NONE, requests: 40, succeeded: 35, errors: { "provider:provider_429": 3, "client:client_gone": 2 },
  cache: { hit: 5, miss: 15 }, tokens: { input_tokens: 900, output_tokens: 100, cached_input_tokens: 300 },
  cost_usd: 0.0123, saved_usd: 0.004, latency_ms: quantiles(500, 1_000, 2_000),
};

const GROUPS = ["gpt-5-mini", "claude-sonnet-4-5", "", "(other)"];

/** Points at the range's first and last bucket; those between have no calls and are left out. */
export function known({ start, end, by }) {
  const points = [start, end - STEP].map((at) => ({ at: Math.floor(at / STEP) * STEP, ...point }));
  const groups = by ? GROUPS.map((name, index) => ({ name, totals: { ...TOTALS, requests: 100 - index }, points })) : [];
  return { start, end, interval_s: STEP, group_by: by ?? null, totals: TOTALS, points, groups };
}

/** A store that has no call in it. */
export const nothing = ({ start, end, by }) => ({ start, end, interval_s: STEP, group_by: by ?? null, totals: NONE, points: [], groups: [] });

let made = 0;

/** A call that went well, but for what is said. */
export function call(changes = {}) {
  made += 1;
  const id = `019ac5a0-0000-7000-8000-${String(made).padStart(12, "0")}`;
  return {
    id, created_at: new Date(NOW - made * 1_000).toISOString(), gateway: "acme/support", provider: "openai", model: "gpt-5-mini",
    model_type: "chat", requested_model: null, path: "/v1/acme/support/openai/chat/completions", method: "POST", http_version: "HTTP/1.1",
    duration: 1_234, success: true, status_code: 200, provider_status: null, cached: false, cache_status: "miss", cache_tier: null,
    cache_source: null, tokens_in: 1_900, tokens_out: 260, usage_metadata: { input: 1_900, output: 260, cached_input: 500, reasoning: null },
    usage_estimated: false, cost: 0.000995, custom_cost: false, cost_source: "list", saved: null, service_tier: null,
    metadata: { team: "search" }, route: null, step: 0, target: 0, attempts: 1, tried: [], request_type: null,
    request_content_type: "application/json", response_content_type: "application/json", request_size: 7_000, response_size: 900,
    streamed: true, complete: true, error_source: null, error: null, error_detail: null, denied_by: null, feedback: null, score: null,
    event_id: null, authentication: true, wholesale: false, byok: true, key_alias: "production", consumer: null, owner: null,
    client: "10.0.0.7", user_agent: "OpenAI/Python 2.8.1", traceparent: null,
    timings: { duration: 1_234.4, upstream: 1_230, overhead: 0.4, first_byte: 300, first_token: 345, waited: null },
    ...changes,
  };
}

/** A call that failed over: two attempts failed, the third answered. */
export const fellOver = () => call({
  attempts: 3,
  route: "chat",
  tried: [
    { target: "anthropic/claude-sonnet-4-5", cause: "overloaded", status: 529, ms: 412 },
    { target: "aws-bedrock/claude", cause: "timeout", status: null, ms: 10_000 },
  ],
});

export const refused = () => call({
  success: false, status_code: 429, cost: null, tokens_in: null, tokens_out: null, usage_metadata: null,
  error: "provider_429", error_source: "provider", error_detail: "The organisation's limit of tokens per minute is used up",
});

export const ordinary = (calls = Array.from({ length: 130 }, () => call())) => ({ now: NOW, analytics: known, calls });

/** What would do something if it were ever taken for markup, code or an address. */
export const HOSTILE = {
  script: "<script>globalThis.hacked=1;alert(1)</script>",
  image: `"><img src=x onerror="globalThis.hacked=1;alert(1)">`,
  link: "javascript:globalThis.hacked=1",
  style: "</style><style>body{display:none}</style>",
  svg: "<svg onload=alert(1)><a xlink:href='javascript:alert(1)'>x</a></svg>",
  template: "{{constructor.constructor('globalThis.hacked=1')()}}",
  entity: "&lt;script&gt;",
  rtl: "שלום עולם مرحبا",
  override: "abc\u202egnp.exe",
  nul: "a\0b\x1b[31mc",
  surrogate: "x\ud83dy",
  proto: "__proto__",
};

const PROMPT = `${Object.values(HOSTILE).join("\n")}\n${"<b>64 KiB</b> ".repeat(5_500)}`;

export function hostile() {
  const names = Object.values(HOSTILE);
  const metadata = JSON.parse(JSON.stringify(Object.fromEntries([[HOSTILE.image, HOSTILE.script], [HOSTILE.rtl, HOSTILE.rtl]])));
  Object.defineProperty(metadata, "__proto__", { value: { hacked: HOSTILE.script }, enumerable: true });
  const calls = names.map((name) => call({
    gateway: `acme/${name}`, provider: name, model: name, requested_model: name, path: `/${name}`, method: name, http_version: name,
    error: name, error_source: name, error_detail: name, denied_by: name, success: false, cache_status: name, cache_tier: name,
    user_agent: name, client: name, key_alias: name, consumer: name, owner: name, event_id: name, traceparent: name, route: name,
    metadata, attempts: 1e300, tokens_in: 9_007_199_254_740_993, tokens_out: -1, cost: 1e30, saved: 1e-12,
    tried: [{ target: name, cause: name, status: name, ms: 1e12 }], timings: { duration: 1e15, first_token: -5, upstream: "x", waited: null },
  }));
  calls[0].id = `../../healthz?x=${HOSTILE.image}`;
  const huge = { ...TOTALS, requests: 1e300, cost_usd: 1e21, errors: Object.fromEntries(names.map((name) => [`${name}:${name}`, 1e17])) };
  const analytics = ({ start, end, by }) => {
    const points = known({ start, end }).points.map((each) => ({ ...each, ...huge }));
    const groups = by ? names.map((name) => ({ name, totals: huge, points })) : [];
    return { ...known({ start, end }), totals: huge, points, group_by: by ?? null, groups };
  };
  const headers = names.map((name) => [name, name]);
  const one = (entry) => ({ ...entry, ...previews(PROMPT, PROMPT), request_headers: headers, response_headers: headers });
  return { now: NOW, analytics, calls, call: one };
}

// The numbers on the page are the API's: totals, shares, groups, and what charts say at a time.

import assert from "node:assert/strict";
import { test } from "node:test";

import { open, text, tile } from "./browser.mjs";
import { ordinary } from "./fixtures.mjs";

test("tiles show the totals", async (t) => {
  const { page } = await open(t, ordinary());
  const expected = {
    Requests: ["12,480", "208 a minute; 50% streamed; 37 fell back"],
    "Error rate": ["2.5%", "90 client; 20 gateway; 202 provider"],
    Tokens: ["8.64M", "8M in, 640,000 out; 25% cached"],
    Cost: ["$38.21", "3 without a price; 5 estimated"],
    Saved: ["$9.55", "20% of full cost"],
    "Cache hit rate": ["25%", "2,000 hit; 400 coalesced; 100 stale"],
    Latency: ["812 ms", "p95 4.12 s; p99 1 m 05 s; gateway 0.21 ms"],
    "First token": ["340 ms", "p95 900 ms; p99 1.50 s"],
  };
  for (const [name, [value, notes]] of Object.entries(expected)) {
    assert.deepEqual(await tile(page, name), { value, notes }, name);
  }
  assert.equal(await page.locator(".tile .figure").nth(3).getAttribute("title"), "$38.215");
});

const legend = (page, title) =>
  page.locator("figure.chart", { has: page.locator("h2", { hasText: new RegExp(`^${title}$`) }) }).locator(".legend li").allInnerTexts();

const flat = (texts) => texts.map((each) => each.replace(/\s+/g, " "));

test("legends show the totals, and at a time what was then, in every chart", async (t) => {
  const { page } = await open(t, ordinary());
  const all = ["Succeeded 12,168", "Client errors 90", "Gateway errors 20", "Provider errors 202"];
  assert.deepEqual(flat(await legend(page, "Requests")), all);
  const plot = page.getByRole("slider", { name: "Requests over time" });
  await plot.focus();
  await page.keyboard.press("End");
  assert.deepEqual(flat(await legend(page, "Requests")), ["Succeeded 35", "Client errors 2", "Gateway errors 0", "Provider errors 3"]);
  assert.deepEqual(flat(await legend(page, "Tokens")), ["Input 600", "Input, cached 300", "Output 100"]);
  assert.deepEqual(flat(await legend(page, "Cost")), ["Spent $0.0123", "Saved by the cache $0.0040"]);
  assert.deepEqual(flat(await legend(page, "Latency")), ["p50 500 ms", "p95 1.00 s", "p99 2.00 s"]);
  assert.deepEqual(flat(await legend(page, "Time to first token")), ["p50 –", "p95 –", "p99 –"]);
  assert.deepEqual(flat(await legend(page, "Error rate")), ["Provider 7.5%", "Gateway 0%", "Client 5%"]);
  assert.deepEqual(flat(await legend(page, "Cache hit rate")), ["Hit 25%", "Coalesced 0%", "Stale 0%"]);
  assert.match(await plot.getAttribute("aria-valuetext"), /^27 Nov 11:59 – 12:00: Succeeded 35, /);
  await page.keyboard.press("ArrowLeft");
  assert.equal(flat(await legend(page, "Requests"))[0], "Succeeded 0", "a bucket that the API left out has no calls");
  await page.keyboard.press("Escape");
  assert.deepEqual(flat(await legend(page, "Requests")), all);
});

test("the pointer moves one crosshair through all charts", async (t) => {
  const { page } = await open(t, ordinary());
  await page.locator(".plot").first().hover({ position: { x: 200, y: 40 } });
  assert.equal(await page.locator(".cross line").count(), 7);
  assert.equal(new Set(await page.locator("figure .when").allInnerTexts()).size, 1);
  await page.mouse.move(1, 1);
  assert.equal(await page.locator(".cross line").count(), 0);
});

test("kinds of errors are listed, most first", async (t) => {
  const { page } = await open(t, ordinary());
  const kinds = flat(await page.locator(".kinds li").allInnerTexts());
  assert.deepEqual(kinds, ["provider_429 provider 200", "client_gone client 90", "busy gateway 20", "provider_5xx provider 12"]);
});

test("an error that a client was spared is no failed call", async (t) => {
  const scenario = ordinary();
  const { analytics } = scenario;
  scenario.analytics = (query) => {
    const result = analytics(query);
    result.totals = { ...result.totals, requests: 100, succeeded: 98, errors: { "provider:provider_5xx": 5, "client:client_gone": 1 } };
    return result;
  };
  const { page } = await open(t, scenario);
  assert.deepEqual(await tile(page, "Error rate"), { value: "2%", notes: "1 client; 1 provider" });
  assert.equal(flat(await legend(page, "Requests"))[0], "Succeeded 98");
});

test("groups have a table, which is the charts' legend", async (t) => {
  const { page } = await open(t, ordinary(), { hash: "#by=model" });
  const rows = flat(await page.locator("#groups tbody tr").allInnerTexts());
  assert.equal(rows[0], "gpt-5-mini 100 0% 8M 25% 640,000 $38.21 $9.55 25% 812 ms 4.12 s 1 m 05 s 900 ms");
  assert.deepEqual(rows.map((row) => row.split(" ")[0]), ["gpt-5-mini", "claude-sonnet-4-5", "(none)", "(other)"]);
  assert.match(flat([await text(page, "#groups tfoot tr")])[0], /^All 12,480 2.5% 8M /);
  await page.locator("#groups tbody tr").first().hover();
  assert.equal(await page.locator("figure").first().locator("path.faded").count(), 3);
  await page.locator(".plot").first().hover({ position: { x: 54, y: 40 } });
  const box = flat([await text(page, ".box:visible")])[0];
  assert.match(box, /gpt-5-mini 40 .*\(none\) 40 \(other\) 40/);
});

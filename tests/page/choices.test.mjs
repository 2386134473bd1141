// Range, gateway, grouping: kept in the hash, and asked for as the API has it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { open, requests, settled } from "./browser.mjs";
import { NOW, call, ordinary } from "./fixtures.mjs";

const END = NOW / 1_000;

/** What the page asked last, without the question for the gateways' names. */
const last = (asked, path) => requests(asked, path).filter(({ limit }) => limit !== "50").at(-1);

async function after(page, asked, path, doing) {
  const before = asked.length;
  await doing();
  while (!asked.slice(before).some((url) => url.startsWith(`${path}?`))) await new Promise((later) => setTimeout(later, 20));
  await settled(page);
}

test("it begins with an hour of everything", async (t) => {
  const { asked } = await open(t, ordinary());
  assert.deepEqual(last(asked, "/-/analytics"), { start: String(END - 3_600), end: String(END), interval: "auto" });
  const [first, second] = requests(asked, "/-/logs");
  assert.equal(first.per_page, "50");
  assert.deepEqual(JSON.parse(first.filters), [{ key: "created_at", operator: "gt", value: [NOW - 3_600_000 - 1] }]);
  assert.deepEqual(second, { ...first, cursor: "0000000000000032" });
});

test("every range is asked for, and kept in the hash", async (t) => {
  const { page, asked } = await open(t, ordinary());
  const ranges = { "15 min": ["15m", 900], "6 h": ["6h", 21_600], "24 h": ["24h", 86_400], "7 d": ["7d", 604_800], "30 d": ["30d", 2_592_000], "1 h": ["1h", 3_600] };
  for (const [name, [range, seconds]] of Object.entries(ranges)) {
    await after(page, asked, "/-/analytics", () => page.getByRole("button", { name, exact: true }).click());
    assert.equal(last(asked, "/-/analytics").start, String(END - seconds));
    assert.equal(new URL(page.url()).hash, `#range=${range}`);
    assert.equal(await page.locator("#ranges [aria-pressed=true]").innerText(), name);
  }
  await after(page, asked, "/-/analytics", () => page.goBack());
  assert.equal(last(asked, "/-/analytics").start, String(END - 2_592_000), "the browser's back button goes to the range before");
});

test("groupings, gateway and failed calls are asked for", async (t) => {
  const { page, asked } = await open(t, ordinary([call(), call({ gateway: "acme/search", metadata: { tenant: 4 } })]));
  for (const by of ["gateway", "provider", "model", "route", "key", "user_agent", "metadata.tenant"]) {
    await after(page, asked, "/-/analytics", () => page.locator("#by").selectOption(by));
    const { group_by, limit } = last(asked, "/-/analytics");
    assert.deepEqual([group_by, limit], [by, "8"]);
  }
  await after(page, asked, "/-/logs", () => page.locator("#gateway").selectOption("acme/search"));
  assert.equal(last(asked, "/-/analytics").gateway, "acme/search");
  assert.equal(await page.locator("tr.call").count(), 1);
  await after(page, asked, "/-/logs", () => page.getByLabel("Failed only").check());
  const keys = JSON.parse(last(asked, "/-/logs").filters ?? requests(asked, "/-/logs").at(-2).filters).map(({ key }) => key);
  assert.deepEqual(keys, ["created_at", "gateway", "success"]);
  assert.equal(new URL(page.url()).hash, "#range=1h&gateway=acme%2Fsearch&by=metadata.tenant&failed=1");
});

test("a hash is restored, and what is wrong with it dropped", async (t) => {
  const { page, asked } = await open(t, ordinary(), { hash: "#range=7d&by=model&gateway=acme/support" });
  assert.deepEqual(last(asked, "/-/analytics"), {
    start: String(END - 604_800), end: String(END), interval: "auto", group_by: "model", limit: "8", gateway: "acme/support",
  });
  await after(page, asked, "/-/analytics", () => page.evaluate(() => (location.hash = "#range=constructor&by=toString&failed=x&%zz")));
  assert.deepEqual(last(asked, "/-/analytics"), { start: String(END - 3_600), end: String(END), interval: "auto" });
});

test("a slow answer of an earlier choice is not shown", async (t) => {
  const scenario = ordinary();
  const { page, asked } = await open(t, scenario);
  const { analytics } = scenario;
  scenario.analytics = (query) => ({ ...analytics(query), totals: { ...analytics(query).totals, requests: query.end - query.start } });
  let slow = true;
  scenario.delay = () => (slow ? ((slow = false), new Promise((later) => setTimeout(later, 400))) : null);
  await page.getByRole("button", { name: "6 h" }).click();
  await after(page, asked, "/-/analytics", () => page.getByRole("button", { name: "15 min" }).click());
  await new Promise((later) => setTimeout(later, 500));
  assert.equal(await page.locator(".tile .figure").first().innerText(), "900");
});

// What the page says when there is nothing, when the API fails, and as time goes by.

import assert from "node:assert/strict";
import { test } from "node:test";

import { open, requests, settled, text, watched } from "./browser.mjs";
import { NOW, call, nothing, ordinary } from "./fixtures.mjs";
import { Refusal, serve } from "./mock.mjs";

test("an empty store says how to fill it", async (t) => {
  const { page } = await open(t, { now: NOW, analytics: nothing, calls: [] });
  assert.match(await text(page, "#calls .message"), /No calls yet\.[^]*http:\/\/127\.0\.0\.1:8787\/v1\/\{account\}\/\{gateway\}\/\{provider\}/);
  assert.equal(await page.locator(".tile .figure").first().innerText(), "0");
  assert.deepEqual(new Set(await page.locator(".tile .figure").allInnerTexts()), new Set(["0", "–", "$0.00"]));
  const empty = await page.locator("svg text.nothing").allTextContents();
  assert.equal(empty.length, 7);
  assert.ok(empty.includes("No streamed answers in this range"));
});

test("a range without calls offers a longer one", async (t) => {
  const old = call({ created_at: new Date(NOW - 5 * 3_600_000).toISOString() });
  const { page } = await open(t, { now: NOW, analytics: nothing, calls: [old] });
  assert.match(await text(page, "#calls .message"), /No calls in this range\. The latest call of all was 5 h ago\./);
  await page.getByRole("button", { name: "Show 6 h" }).click();
  await page.locator("tr.call").waitFor();
  assert.equal(new URL(page.url()).hash, "#range=6h");
});

test("an error of the API is told in its words, and goes away when it does", async (t) => {
  const scenario = ordinary();
  const { analytics } = scenario;
  scenario.analytics = () => {
    throw new Refusal(503, "the log store is busy <b>", 8013);
  };
  const { page } = await open(t, scenario, { tolerated: /status of 503/ });
  assert.match(await text(page, "#notices"), /The figures could not be read: the log store is busy <b> \[8013\] \(\/-\/analytics: HTTP 503\)/);
  assert.equal(await text(page, "#status"), "Failed");
  assert.equal(await page.locator("tr.call").count(), 100, "the calls are shown all the same");
  scenario.analytics = analytics;
  await page.getByRole("button", { name: "Try again" }).click();
  await page.locator(".tile .figure").first().waitFor();
  assert.equal(await page.locator("#notices").textContent(), "");
  scenario.analytics = () => {
    throw new Refusal(503, "again");
  };
  await page.getByRole("button", { name: "Refresh" }).click();
  await page.locator("#notices .notice").waitFor();
  assert.match(await text(page, "#notices"), /What is shown below is older/);
  assert.equal(await page.locator(".tile .figure").first().innerText(), "12,480", "what was there stays");
  await page.getByRole("button", { name: "6 h" }).click();
  await page.locator(".tile").first().waitFor({ state: "detached" });
  assert.equal(await page.locator("#charts").isVisible(), false, "figures of another range do not");
  assert.doesNotMatch(await text(page, "#notices"), /older/);
});

test("answers of somebody else are told apart", async (t) => {
  const scenario = ordinary();
  const { page } = await open(t, scenario, { tolerated: /status of 4/ });
  scenario.raw = () => [403, "application/json", '{"error":"the Host is not this listener\'s"}'];
  await page.getByRole("button", { name: "Refresh" }).click();
  await page.locator("#notices .notice").waitFor();
  assert.match(await text(page, "#notices"), /the Host is not this listener's/);
  assert.match(await text(page, "#calls .message"), /The calls could not be read/);
  scenario.raw = () => [404, "text/html", "<h1>nginx</h1>"];
  await page.getByRole("button", { name: "Refresh" }).click();
  await page.getByText("The answer is not one of this API").first().waitFor();
  scenario.raw = () => [200, "application/json", '{"success":true,"result":{}}'];
  await page.getByRole("button", { name: "Refresh" }).click();
  await page.getByText("This page does not understand the answer").first().waitFor();
});

test("a process that is gone is said to be", async (t) => {
  const server = await serve(ordinary());
  const page = await watched(t, server.url, { now: NOW, tolerated: /ERR_CONNECTION_REFUSED/ });
  await server.close();
  await page.getByRole("button", { name: "Refresh" }).click();
  await page.locator("#notices .notice").waitFor();
  assert.match(await text(page, "#notices"), /Is the process running\?/);
});

/** A page whose clock the test moves. */
async function withClock(t, scenario) {
  const server = await serve(scenario);
  const page = await watched(t, server.url, { context: {}, clock: NOW });
  t.after(() => server.close());
  return { page, asked: server.asked };
}

const times = (asked) => requests(asked, "/-/analytics").filter(({ limit }) => limit !== "50").length;

async function until(condition) {
  for (let tries = 0; tries < 100 && !condition(); tries += 1) await new Promise((later) => setTimeout(later, 20));
  assert.ok(condition());
}

test("it asks again every ten seconds, but not while paused or unseen", async (t) => {
  const scenario = ordinary([call(), call()]);
  const { page, asked } = await withClock(t, scenario);
  assert.equal(times(asked), 1);
  await page.locator("button.open").first().click();
  await page.locator(".bodies").waitFor();
  scenario.calls.unshift(call({ created_at: new Date(NOW).toISOString(), model: "brand-new" }));
  await page.clock.runFor(10_000);
  await until(() => times(asked) === 2);
  await settled(page);
  await page.getByText("brand-new").waitFor();
  assert.equal(await page.locator("tr.call").count(), 3);
  assert.equal(await page.locator(".under:visible").count(), 1, "an open call stays open");

  await page.getByRole("button", { name: "Pause" }).click();
  assert.match(await text(page, "#status"), /^Paused, as of 12:00:1/);
  await page.clock.runFor(60_000);
  assert.equal(times(asked), 2);
  await page.getByRole("button", { name: "Resume" }).click();
  await until(() => times(asked) === 3);
  await settled(page);

  await hide(page, true);
  await page.clock.runFor(60_000);
  assert.equal(times(asked), 3);
  await hide(page, false);
  await until(() => times(asked) === 4);
});

function hide(page, hidden) {
  return page.evaluate((state) => {
    Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden ? "hidden" : "visible");
}

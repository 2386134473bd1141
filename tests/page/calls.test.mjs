// The last calls: what a row says, and what it opens to.

import assert from "node:assert/strict";
import { test } from "node:test";

import { open, text } from "./browser.mjs";
import { call, fellOver, ordinary, refused } from "./fixtures.mjs";
import { Refusal, previews } from "./mock.mjs";

const flat = (texts) => texts.map((each) => each.replace(/\s+/g, " ").trim());
const cells = async (page, row) => flat(await page.locator("tr.call").nth(row).locator("td").allInnerTexts());

test("the last hundred are listed", async (t) => {
  const { page } = await open(t, ordinary());
  assert.equal(await page.locator("tr.call").count(), 100);
  assert.equal(await text(page, "#calls .when"), "the last 100");
});

test("a row says what happened", async (t) => {
  const hit = call({ cached: true, cache_status: "hit", cost: 0, saved: 0.0484, attempts: 0, timings: { duration: 0.66 }, created_at: "2026-11-27T11:02:03.456Z" });
  const { page } = await open(t, ordinary([hit, refused(), fellOver()]));
  assert.deepEqual(await cells(page, 0), ["11:02:03", "acme/support", "openai / gpt-5-mini", "200", "hit", "1,900", "260", "$0.00", "$0.0484", "–", "0.66 ms", "0"]);
  assert.deepEqual((await cells(page, 1)).slice(3, 9), ["429provider_429", "miss", "–", "–", "–", "–"]);
  assert.deepEqual((await cells(page, 2)).slice(7), ["$0.0010", "–", "345 ms", "1.23 s", "3"]);
});

test("a call opens by the keyboard to its details, which are asked for only then", async (t) => {
  const { page, asked, server } = await open(t, ordinary([fellOver(), refused()]));
  server.scenario.call = (entry) => ({ ...entry, ...previews('{"prompt":"Hello"}', "data: [DONE]") });
  const single = () => asked.filter((url) => /^\/-\/logs\/./.test(url));
  assert.deepEqual(single(), []);
  const button = page.locator("button.open").first();
  await button.focus();
  await page.keyboard.press("Enter");
  await page.locator(".bodies pre").first().waitFor();
  assert.equal(await button.getAttribute("aria-expanded"), "true");
  assert.equal(single().length, 1);
  const tried = flat(await page.locator(".tried li").allInnerTexts());
  assert.deepEqual(tried, ["anthropic/claude-sonnet-4-5 overloaded 529 412 ms", "aws-bedrock/claude timeout 10.0 s", "openai/gpt-5-mini answered 200"]);
  const details = flat([await text(page, ".details")])[0];
  for (const told of ["to the first token 345 ms", "cached input 500", "team search", "chat, step 0, target 0", "OpenAI/Python 2.8.1", "in the gateway 0.4 ms"]) {
    assert.ok(details.includes(told), `${told} in ${details}`);
  }
  assert.deepEqual(await page.locator(".bodies pre").allInnerTexts(), ['{"prompt":"Hello"}', "data: [DONE]"]);
  await page.locator(".bodies pre").first().focus();
  await page.keyboard.press("Escape");
  assert.equal(await page.locator(".under:visible").count(), 0);
  assert.ok(await button.evaluate((element) => element === document.activeElement), "the focus is back at the call");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Space");
  await page.locator(".under:visible .bodies").waitFor();
  assert.match(await text(page, ".under:visible"), /The organisation's limit of tokens per minute/);
  assert.equal(single().length, 2);
});

test("a click anywhere in a row opens it, and again closes it", async (t) => {
  const { page, asked } = await open(t, ordinary([call()]));
  const row = page.locator("tr.call td.cache");
  await row.click();
  await page.locator(".under:visible .bodies").waitFor();
  await row.click();
  assert.equal(await page.locator(".under:visible").count(), 0);
  await row.click();
  assert.equal(asked.filter((url) => /^\/-\/logs\/./.test(url)).length, 1, "details do not change, so they are asked for once");
});

test("bodies that are not kept, and such that cannot be read, are told apart", async (t) => {
  const { page, server } = await open(t, ordinary([call(), call()]), { tolerated: /status of 500/ });
  server.scenario.call = (entry) => ({ ...entry, ...previews(null, ""), request_head: null });
  await page.locator("button.open").first().click();
  await page.locator(".bodies").waitFor();
  assert.match(await text(page, ".bodies"), /Not kept\.[^]*Empty\./);
  server.scenario.call = () => {
    throw new Refusal(500, "the segment cannot be read", 8500);
  };
  await page.locator("button.open").nth(1).click();
  await page.locator(".details .notice").waitFor();
  assert.match(await text(page, ".details .notice"), /the segment cannot be read \[8500\]/);
  server.scenario.call = undefined;
  await page.locator(".details .notice button").click();
  await page.locator(".under .bodies").nth(1).waitFor();
});

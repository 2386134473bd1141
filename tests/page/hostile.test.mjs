// Prompts, metadata, names and user agents come from anyone. They are text, and nothing else.

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { test } from "node:test";

import { open, text } from "./browser.mjs";
import { HOSTILE, hostile } from "./fixtures.mjs";

const ASSETS = new URL("../../src/admin/page/", import.meta.url);

/** What is shown for what cannot be seen. */
const shown = (name) => name.toWellFormed().replace("\0", "␀").replace("\x1b", "␛").replace("\u202e", "⟨U+202E⟩");

async function has(page, selector) {
  const all = (await page.locator(selector).allTextContents()).join("\n");
  for (const [kind, name] of Object.entries(HOSTILE)) assert.ok(all.includes(shown(name)), `${kind} is not in ${selector}`);
}

test("names are text wherever they stand", async (t) => {
  const { page } = await open(t, hostile(), { hash: "#by=model" });
  for (const place of ["#groups tbody", "#gateway", "#calls .model", "#calls .state", "#calls .cache"]) await has(page, place);
  assert.ok((await page.locator("#by").textContent()).includes(HOSTILE.image), "a name of metadata can be grouped by");
  await page.locator(".plot").first().hover({ position: { x: 54, y: 40 } });
  await has(page, ".box >> visible=true");
  assert.equal(await page.locator("main img, main script, main style, main iframe, main a:not(.skip)").count(), 0);
});

test("details and bodies are text", async (t) => {
  const { page, asked } = await open(t, hostile());
  const buttons = (await page.locator("button.open").all()).slice(0, 3);
  for (const button of buttons) await button.click();
  await page.waitForFunction((wanted) => document.querySelectorAll(".bodies").length === wanted, buttons.length);
  for (const details of await page.locator("summary").all()) await details.click();
  await has(page, ".bodies section:nth-child(1) pre");
  await has(page, ".bodies section:nth-child(2) pre");
  await has(page, ".bodies details");
  assert.ok((await text(page, ".bodies pre")).length > 64 * 1024, "all of a long prompt");
  const single = asked.filter((url) => /^\/-\/logs\/./.test(url));
  assert.ok(single[0].startsWith("/-/logs/..%2F..%2Fhealthz%3Fx%3D%22%3E%3Cimg"), "an id stays one part of the path");
  assert.equal(await page.locator("main img, main script, main style, main iframe, main a").count(), 0);
});

test("absurd numbers neither break the page nor widen it", async (t) => {
  const { page } = await open(t, hostile(), { context: { viewport: { width: 390, height: 800 } } });
  assert.equal(await page.locator(".tile .figure").first().innerText(), "1.00e300");
  await page.locator("button.open").first().click();
  await page.locator(".bodies").waitFor();
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
});

test("a gateway of the hash is text, and is sent as a parameter's value", async (t) => {
  const { page, asked } = await open(t, hostile(), { hash: `#gateway=${encodeURIComponent(`${HOSTILE.image}&limit=1`)}` });
  assert.ok((await page.locator("#gateway").textContent()).includes(HOSTILE.image));
  const url = new URL(asked.find((each) => each.includes("onerror")), "http://mock");
  assert.equal(url.searchParams.get("gateway"), `${HOSTILE.image}&limit=1`);
  assert.equal(url.searchParams.has("limit"), false);
});

test("the sources have no way to make markup or code of a text", async () => {
  const files = await readdir(ASSETS);
  let size = 0;
  for (const file of files) {
    const source = await readFile(new URL(file, ASSETS), "utf8");
    size += source.length;
    for (const way of [/(inner|outer)HTML/, /insertAdjacentHTML/, /document\.write/, /\beval\b/, /new Function/, /DOMParser|Fragment\(/, /\sstyle=/, /\son\w+="/, /https?:\/\/(?!www\.w3\.org\/2000\/svg|\$\{location)/]) {
      assert.doesNotMatch(source, way, `${way} in ${file}`);
    }
  }
  assert.ok(size < 90_000, `${size} bytes of assets`);
});

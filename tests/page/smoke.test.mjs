// What holds for any data: the page of a real process, or of the mock where none is named.
//
//   TOLLGATE_PAGE_URL=http://127.0.0.1:8788/ tests/page/run

import assert from "node:assert/strict";
import { test } from "node:test";

import { settled, watched } from "./browser.mjs";
import { CSP, serve } from "./mock.mjs";
import { plausible } from "./plausible.mjs";

async function address(t) {
  if (process.env.TOLLGATE_PAGE_URL) return new URL("/", process.env.TOLLGATE_PAGE_URL).href;
  const server = await serve(plausible(Date.now()));
  t.after(() => server.close());
  return server.url;
}

/** Every asset that the page asks for. */
async function assets(url) {
  const found = new Map([["/", null]]);
  for (const path of found.keys()) {
    const answer = await fetch(new URL(path, url));
    const source = await answer.text();
    found.set(path, { answer, source });
    for (const [, other] of source.matchAll(/(?:from |href=|src=)"(\.\/[\w.]+|\/-\/page\/[\w.]+)"/g)) {
      const next = new URL(other, new URL(path, url)).pathname;
      if (!found.has(next)) found.set(next, null);
    }
  }
  return found;
}

test("assets have their types, and headers that allow nothing else", async (t) => {
  const found = await assets(await address(t));
  const kinds = { "/": /^text\/html/, css: /^text\/css/, js: /^(text|application)\/javascript/, svg: /^image\/svg\+xml/ };
  assert.ok(found.size > 10, [...found.keys()].join(" "));
  for (const [path, { answer }] of found) {
    assert.equal(answer.status, 200, path);
    assert.match(answer.headers.get("content-type"), kinds[path === "/" ? "/" : path.split(".").pop()], path);
    assert.equal(answer.headers.get("x-content-type-options"), "nosniff", path);
  }
  assert.equal(found.get("/").answer.headers.get("content-security-policy"), CSP);
});

test("the page shows itself in every range and grouping without a complaint", async (t) => {
  const page = await watched(t, await address(t));
  const whole = async () => {
    await settled(page);
    assert.equal(await page.locator("#notices").textContent(), "");
    assert.equal(await page.locator(".tile").count(), 8);
    assert.equal(await page.locator("#status").evaluate((element) => element.classList.contains("bad")), false);
  };
  await whole();
  for (const hash of ["#range=15m", "#range=30d&by=model", "#range=24h&by=gateway", "#by=provider", "#by=route", "#by=key", "#by=owner", "#by=user_agent", "#by=metadata.team", "#range=7d&failed=1"]) {
    const answered = page.waitForResponse((response) => response.url().includes("/-/analytics"));
    const listed = page.waitForResponse((response) => response.url().includes("/-/logs"));
    await page.evaluate((next) => (location.hash = next), hash);
    assert.equal((await answered).status(), 200, hash);
    assert.equal((await listed).status(), 200, hash);
    await whole();
  }
});

test("a gateway can be chosen, and a call opened, where there are any", async (t) => {
  const page = await watched(t, await address(t), { hash: "#range=30d" });
  const gateway = await page.locator("#gateway option").nth(1).getAttribute("value", { timeout: 500 }).catch(() => null);
  const chosen = gateway ?? (await page.locator("#gateway option").evaluateAll((all) => all[1]?.value ?? null));
  if (!chosen) return t.skip("there are no calls");
  await page.locator("#gateway").selectOption(chosen);
  await settled(page);
  const button = page.locator("button.open").first();
  await button.waitFor();
  await button.click();
  await page.locator(".under:visible .bodies").waitFor();
  assert.equal(await page.locator(".under .notice").count(), 0);
});

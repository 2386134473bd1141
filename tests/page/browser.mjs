// The real browser: one for a file of tests, one page for a test, watched for everything that a
// page must not do. What it did is looked at when the test ends.

import assert from "node:assert/strict";
import { after } from "node:test";

import { chromium } from "playwright-core";

import { serve } from "./mock.mjs";

const CHROMIUM = process.env.TOLLGATE_CHROMIUM ?? "/usr/bin/chromium";

let browser;

export async function launch() {
  // A container's root has no user namespaces to make a sandbox of.
  browser ??= chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
  return browser;
}

after(async () => (await browser)?.close());

/**
 * A page that shows a scenario.
 * @param {import("node:test").TestContext} t
 * @param {import("./mock.mjs").Scenario} scenario
 * @param {{hash?: string, tolerated?: RegExp, context?: object}} options `tolerated`: console errors of
 *   requests that the test lets fail
 */
export async function open(t, scenario, options = {}) {
  const server = await serve(scenario);
  const page = await watched(t, server.url, { now: scenario.now, ...options });
  t.after(() => server.close());
  return { page, server, asked: server.asked };
}

/** A page of any address, watched. */
export async function watched(t, url, { hash = "", tolerated, now, clock, context: settings = {} } = {}) {
  const context = await (await launch()).newContext({ viewport: { width: 1280, height: 900 }, timezoneId: "UTC", ...settings });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  if (now) await page.clock.setFixedTime(now);
  if (clock) await page.clock.install({ time: clock });
  const misdeeds = await watch(page, new URL(url).origin, tolerated);
  t.after(async () => {
    try {
      assert.deepEqual([...misdeeds, ...(await violations(page))], []);
    } finally {
      await context.close();
    }
  });
  await page.goto(url + hash);
  await settled(page);
  return page;
}

async function watch(page, origin, tolerated) {
  const misdeeds = [];
  page.on("console", (message) => {
    if (message.type() === "error" && !tolerated?.test(message.text())) misdeeds.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => misdeeds.push(`exception: ${error.message}`));
  page.on("dialog", (dialog) => {
    misdeeds.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("popup", () => misdeeds.push("popup"));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${origin}/`)) misdeeds.push(`request to ${request.url().slice(0, 80)}`);
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
      globalThis.violations.push(`csp: ${violatedDirective} ${blockedURI}`);
    });
  });
  return misdeeds;
}

const violations = (page) => page.evaluate(() => [...globalThis.violations, ...(globalThis.hacked ? ["hostile code ran"] : [])]);

/** Waits until nothing is being asked for. */
export async function settled(page) {
  await page.waitForFunction(() => {
    const status = document.getElementById("status")?.textContent ?? "";
    return status !== "" && status !== "Loading…" && !document.body.classList.contains("waiting");
  });
}

/** Text of an element, as a reader sees it. */
export const text = (page, selector) => page.locator(selector).first().innerText();

/** Value and notes of the tile of this name. */
export async function tile(page, name) {
  const element = page.locator(".tile", { has: page.locator("h2", { hasText: name }) });
  return { value: await element.locator(".figure").innerText(), notes: (await element.locator(".notes span").allInnerTexts()).join("; ") };
}

/** Parameters of the requests to a resource, in order. */
export function requests(asked, path) {
  return asked.filter((url) => url.split("?")[0] === path).map((url) => Object.fromEntries(new URLSearchParams(url.split("?")[1])));
}

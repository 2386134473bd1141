// What can be tested of how it looks: it fits, it is dark in the dark, it can be read.

import assert from "node:assert/strict";
import { test } from "node:test";

import { open } from "./browser.mjs";
import { ordinary } from "./fixtures.mjs";
import { plausible } from "./plausible.mjs";

const NOW = Date.parse("2026-11-27T12:41:20Z");

for (const width of [320, 390, 768, 1_024, 1_280, 1_920]) {
  test(`nothing is wider than ${width} pixels`, async (t) => {
    const { page } = await open(t, plausible(NOW), { hash: "#range=24h&by=model", context: { viewport: { width, height: 900 } } });
    await page.locator("button.open").first().click();
    await page.locator(".bodies").waitFor();
    const [content, all] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(content <= all, `${content} > ${all}`);
    const tables = await page.locator(".scroll").evaluateAll((all) => all.map((each) => each.scrollWidth - each.clientWidth));
    if (width <= 760 || width >= 1_280) assert.ok(tables.every((over) => over <= 0), `tables are wider by ${tables}`);
    assert.ok(await page.locator("svg path[d]").first().isVisible());
  });
}

/** The contrast of WCAG between two colours, from 1 to 21. */
function contrast(one, other) {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map((part) => part / 255).map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

for (const colorScheme of ["light", "dark"]) {
  test(`it is ${colorScheme} where that is preferred, and can be read`, async (t) => {
    const { page } = await open(t, ordinary(), { context: { colorScheme } });
    const colour = (selector, property) => page.locator(selector).first().evaluate((element, name) => getComputedStyle(element)[name], property);
    const ground = await colour(".tile", "backgroundColor");
    assert.equal(contrast(ground, "rgb(255, 255, 255)") < 1.5, colorScheme === "light", ground);
    for (const selector of [".figure", ".notes", ".status", ".legend .name", ".badge.fine", "thead th", ".cache .muted"]) {
      assert.ok(contrast(await colour(selector, "color"), ground) >= 4.5, `${selector} on ${ground}`);
    }
    assert.ok(contrast(await colour("svg .tick", "fill"), ground) >= 4.5);
    const chosen = "#ranges [aria-pressed=true]";
    assert.ok(contrast(await colour(chosen, "color"), await colour(chosen, "backgroundColor")) >= 4.5);
  });
}

test("everything that can be done can be done by the keyboard", async (t) => {
  const { page } = await open(t, ordinary());
  const reached = [];
  for (let step = 0; step < 24; step += 1) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => document.activeElement.id || document.activeElement.getAttribute("aria-label") || document.activeElement.className || document.activeElement.textContent));
  }
  for (const wanted of ["skip", "15 min", "gateway", "by", "refresh", "pause", "Requests over time", "Cache hit rate over time", "failed", "open"]) {
    assert.ok(reached.includes(wanted), `${wanted} among ${reached}`);
  }
});

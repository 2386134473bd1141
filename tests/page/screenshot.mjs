// Draws docs/images/first-page.png: the page with plausible data at a fixed time.
//
//   node screenshot.mjs [FILE [HASH [light|dark [WIDTH]]]]

import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { serve } from "./mock.mjs";
import { plausible } from "./plausible.mjs";

const local = (name) => fileURLToPath(new URL(name, import.meta.url));
const [file = local("../../docs/images/first-page.png"), hash = "#range=6h", colorScheme = "light", width = "1280"] = process.argv.slice(2);
const now = Date.parse("2026-11-27T12:41:20Z");

// The same letters on every machine: system-ui is Inter.
const env = { ...process.env, FONTCONFIG_FILE: local("fonts.conf") };
const executablePath = process.env.TOLLGATE_CHROMIUM ?? "/usr/bin/chromium";
const server = await serve(plausible(now));
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"], env });
const context = await browser.newContext({ viewport: { width: Number(width), height: 1560 }, timezoneId: "UTC", colorScheme });
const page = await context.newPage();
await page.clock.setFixedTime(now);
await page.goto(server.url + hash);
await page.locator("button.open").nth(1).waitFor();
if (Number(width) > 1000) await page.locator("figure.chart .plot").first().hover({ position: { x: 250, y: 60 } });
await page.waitForTimeout(500);
await page.screenshot({ path: file });
await browser.close();
await server.close();

// The first page: reads the selection from the hash, asks the API every ten seconds while
// somebody looks, and hands the answers to those who draw them: tiles.js, groups.js, charts.js
// (chart.js draws one, frame.js and scale.js reckon for it), calls.js (details.js: one of them).
// selection.js is the hash, api.js the requests, figures.js what the answers' numbers mean,
// format.js how numbers are written, and dom.js the only way into the page.

import * as api from "./api.js";
import { Calls } from "./calls.js";
import { Charts, ErrorKinds } from "./charts.js";
import { choose, el, replace, set } from "./dom.js";
import { ago, clockSeconds } from "./format.js";
import { Tones } from "./frame.js";
import { showGroups } from "./groups.js";
import { GROUPINGS, RANGES, byMetadata, groupingName, metadataKey, read, seconds, write } from "./selection.js";
import { showTiles } from "./tiles.js";

const EVERY = 10_000;

const at = (id) => document.getElementById(id);
const places = Object.fromEntries(
  ["ranges", "gateway", "by", "status", "refresh", "pause", "notices", "tiles", "groups", "charts", "calls", "foot"].map((id) => [id, at(id)]),
);

class Page {
  selection = read(location.hash);
  paused = false;
  #timer = 0;
  #asking = new AbortController();
  #tones = new Tones();
  #gateways = new Set();
  #metadata = new Set();
  #shown = { figures: "", calls: "" }; // of which selections, as their hashes
  #shownAt = null;

  constructor() {
    this.kinds = new ErrorKinds();
    this.charts = new Charts(places.charts, this.kinds.element);
    this.calls = new Calls(places.calls, { fetchOne: api.call, onFailed: (failed) => this.select({ failed }) });
    this.#listen();
    this.#controls();
    this.#foot();
    this.refresh();
    this.#learnGateways();
  }

  #listen() {
    addEventListener("hashchange", () => this.#selected());
    document.addEventListener("visibilitychange", () => this.#seen());
    places.gateway.addEventListener("change", () => this.select({ gateway: places.gateway.value }));
    places.by.addEventListener("change", () => this.select({ by: places.by.value }));
    places.refresh.addEventListener("click", () => this.refresh());
    places.pause.addEventListener("click", () => this.#pause(!this.paused));
    at("skip").addEventListener("click", (event) => {
      event.preventDefault(); // the hash is the selection's
      places.calls.focus();
    });
  }

  /** Changes the hash; all else follows from that. */
  select(change) {
    location.hash = write({ ...this.selection, ...change });
  }

  #selected() {
    const before = this.selection;
    this.selection = read(location.hash);
    this.#controls();
    this.refresh();
    if (before.range !== this.selection.range) this.#learnGateways();
  }

  #controls() {
    const { range, gateway, by, failed } = this.selection;
    if (places.ranges.childElementCount === 0) replace(places.ranges, Object.entries(RANGES).map((entry) => this.#rangeButton(entry)));
    for (const button of places.ranges.children) set(button, "aria-pressed", String(button.value === range));
    const names = [...new Set([gateway, ...this.#gateways])].filter(Boolean).sort();
    choose(places.gateway, [["", "All"], ...names.map((name) => [name, name])], gateway);
    choose(places.by, this.#groupings(by), by);
    this.calls.failed.checked = failed;
  }

  #rangeButton([range, [name]]) {
    const button = el("button", { type: "button" }, name);
    button.value = range;
    button.addEventListener("click", () => this.select({ range }));
    return button;
  }

  /** What metadata the last calls bore can be grouped by too. */
  #groupings(by) {
    const keys = [...new Set([metadataKey(by), ...this.#metadata])].filter(Boolean).sort();
    return [
      ["", "Nothing"],
      ...Object.entries(GROUPINGS),
      ...keys.map((key) => [byMetadata(key), `Metadata: ${groupingName(byMetadata(key))}`]),
    ];
  }

  #foot() {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    replace(places.foot, `Times are of this browser (${zone}). Percentiles, costs and counts are of finished calls. `,
      el("a", { href: "/metrics" }, "Metrics for Prometheus"));
  }

  #pause(paused) {
    this.paused = paused;
    set(places.pause, "aria-pressed", String(paused));
    replace(places.pause, paused ? "Resume" : "Pause");
    clearTimeout(this.#timer);
    if (paused) this.#status();
    else this.refresh();
  }

  /** Nobody asks while nobody looks. */
  #seen() {
    clearTimeout(this.#timer);
    if (document.visibilityState === "visible" && !this.paused) this.refresh();
  }

  async refresh() {
    clearTimeout(this.#timer);
    this.#asking.abort();
    const asking = (this.#asking = new AbortController());
    this.#status("Loading…");
    const wanted = write(this.selection);
    document.body.classList.toggle("waiting", this.#shown.figures !== wanted);
    const told = await Promise.all([this.#figures(asking.signal, wanted), this.#calls(asking.signal, wanted)]);
    if (asking.signal.aborted) return;
    document.body.classList.remove("waiting");
    if (told.every(Boolean)) this.#shownAt = Date.now();
    this.#status(told.every(Boolean) ? "" : "Failed");
    if (!this.paused && document.visibilityState === "visible") this.#timer = setTimeout(() => this.refresh(), EVERY);
  }

  #status(doing = "") {
    const last = this.#shownAt === null ? "" : clockSeconds(this.#shownAt / 1e3);
    const idle = this.paused ? `Paused, as of ${last || "never"}` : `Updated ${last}`;
    // The last good time stays readable while more is loading, so that nothing flickers.
    const shown = doing === "Failed" ? `Failed${last && `, as of ${last}`}` : doing && !last ? doing : idle;
    replace(places.status, shown);
    places.status.classList.toggle("bad", doing === "Failed");
    places.status.classList.toggle("paused", this.paused);
  }

  /** @returns {Promise<boolean>} whether it went well */
  async #figures(signal, wanted) {
    try {
      const result = await api.analytics(this.selection, signal);
      if (signal.aborted) return false;
      this.#show(result);
      this.#shown.figures = wanted;
      replace(places.notices);
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      this.#complain(error, this.#shown.figures === wanted);
      return false;
    }
  }

  #show(result) {
    this.#tones.learn(result);
    places.charts.hidden = false;
    showTiles(places.tiles, result);
    showGroups(places.groups, result, this.#tones, (tone) => this.charts.fade(tone));
    this.charts.show(result, this.#tones);
    this.kinds.show(result);
  }

  /** Figures of another selection must not be taken for those that could not be read. */
  #complain(error, older) {
    if (!older) {
      this.#shown.figures = "";
      replace(places.tiles);
      places.groups.hidden = places.charts.hidden = true;
    }
    const again = el("button", { type: "button" }, "Try again");
    again.addEventListener("click", () => this.refresh());
    replace(places.notices, el("div", { class: "notice bad" },
      el("p", {}, el("strong", {}, "The figures could not be read: "), message(error), older ? " What is shown below is older." : ""), again));
  }

  async #calls(signal, wanted) {
    const same = this.#shown.calls === wanted;
    try {
      const entries = await api.calls(this.selection, signal);
      if (signal.aborted) return false;
      this.calls.show(entries, same);
      this.#shown.calls = wanted;
      this.#learn(entries);
      if (entries.length === 0) await this.#nothing(signal);
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      if (!same) this.calls.clear();
      this.calls.say(el("p", { class: "notice bad" }, el("strong", {}, "The calls could not be read: "), message(error)));
      return false;
    }
  }

  /** Gateways and metadata that can be chosen, as far as the calls show them. */
  #learn(entries) {
    for (const { gateway, metadata } of entries) {
      if (gateway) this.#gateways.add(gateway);
      Object.keys(metadata ?? {}).slice(0, 5).forEach((key) => this.#metadata.size < 30 && this.#metadata.add(key));
    }
    this.#controls();
  }

  /** Asked apart from the figures, and not again and again: it is only a list of names. */
  async #learnGateways() {
    const names = await api.gateways(this.selection, AbortSignal.timeout(30_000)).catch(() => []);
    names.filter((name) => name && name !== "(other)").forEach((name) => this.#gateways.add(name));
    this.#controls();
  }

  /** Says why there is nothing, and what would change that. */
  async #nothing(signal) {
    const last = await api.latest(signal);
    if (signal.aborted) return;
    if (!last) return this.calls.say(firstSteps());
    const since = (Date.now() - Date.parse(last.created_at)) / 1e3;
    const { failed, gateway } = this.selection;
    const what = `No ${failed ? "failed " : ""}calls ${gateway ? `through ${gateway} ` : ""}in this range.`;
    this.calls.say(el("p", { class: "nothing" }, `${what} The latest call of all was ${ago(since)} ago. `, this.#wider(since)));
  }

  #wider(since) {
    const wider = Object.entries(RANGES).find(([, [, length]]) => length > Math.max(since, seconds(this.selection)));
    if (!wider) return null;
    const [range, [name]] = wider;
    const button = el("button", { type: "button" }, `Show ${name}`);
    button.addEventListener("click", () => this.select({ range }));
    return button;
  }
}

/** Anything but an answer of the API that this page cannot use is a fault of its own. */
function message(error) {
  return error instanceof api.ApiError ? error.message : `This page does not understand the answer: ${error.message}`;
}

function firstSteps() {
  return el("div", { class: "nothing" },
    el("p", {}, el("strong", {}, "No calls yet.")),
    el("p", {}, "Point an SDK's base URL at the gateway, and its calls appear here within seconds:"),
    el("pre", {}, `http://${location.hostname}:8787/v1/{account}/{gateway}/{provider}`),
    el("p", { class: "muted" }, "Calls are listed where the gateway's configuration keeps logs."));
}

new Page();

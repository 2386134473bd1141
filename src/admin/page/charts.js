// Which charts there are, and the crosshair that they share.

import { Chart } from "./chart.js";
import { el, replace } from "./dom.js";
import * as figures from "./figures.js";
import { count, duration, money, percent, roughDuration, roughMoney, short } from "./format.js";
import { frame } from "./frame.js";
import { durationTicks, ticks } from "./scale.js";

const counted = { format: count, tick: short, ticks: (most) => ticks(most, 1) };
const spent = { format: money, tick: roughMoney, ticks };
const timed = { format: duration, tick: roughDuration, ticks: durationTicks, kind: "lines" };
const shared = { format: percent, tick: percent, ticks: (most) => ticks(Math.max(most, 0.01)).filter((share) => share <= 1.001), groupedKind: "lines" };

const failed = (source) => (of) => figures.failures(of)[source];
const failedShare = (source) => (of) => figures.errorRate(of, source) ?? 0;
const answeredShare = (status) => (of) => figures.hitRate(of, status);
const sum = (numbers) => numbers.reduce((total, next) => total + next, 0);

/** Series are told as name, tone and value; `rare` ones are there only when they are not zero. */
const line = ([name, tone, of, rare = false]) => ({ name, tone, of, rare });
const quantiles = (what) => ["p50", "p95", "p99"].map((name) => [name, name, figures.quantile(what, name)]);

const DEFINITIONS = [
  {
    ...counted,
    title: "Requests",
    wide: true,
    empty: "No requests in this range",
    series: [
      ["Succeeded", "ok", (of) => figures.requests(of) - sum(Object.values(figures.failures(of)))],
      ["Client errors", "client", failed("client")],
      ["Gateway errors", "gateway", failed("gateway")],
      ["Provider errors", "provider", failed("provider")],
      ["Other failures", "other", failed("unknown"), true],
    ],
    grouped: figures.requests,
  },
  {
    ...counted,
    title: "Tokens",
    groupedTitle: "Tokens, input and output",
    wide: true,
    empty: "No tokens in this range",
    series: [
      ["Input", "input", figures.tokens.fresh],
      ["Input, cached", "cached", figures.tokens.cached],
      ["Output", "output", figures.tokens.output],
    ],
    grouped: figures.tokens.all,
  },
  {
    ...spent,
    title: "Cost",
    empty: "Nothing was spent in this range",
    series: [["Spent", "cost", figures.cost], ["Saved by the cache", "saved", figures.saved]],
    grouped: figures.cost,
  },
  {
    ...timed,
    title: "Latency",
    groupedTitle: "Latency, p95",
    empty: "No calls in this range",
    series: quantiles("latency_ms"),
    grouped: figures.quantile("latency_ms", "p95"),
  },
  {
    ...timed,
    title: "Time to first token",
    groupedTitle: "Time to first token, p95",
    empty: "No streamed answers in this range",
    series: quantiles("ttft_ms"),
    grouped: figures.quantile("ttft_ms", "p95"),
  },
  {
    ...shared,
    title: "Error rate",
    empty: "No errors in this range",
    series: [
      ["Provider", "provider", failedShare("provider")],
      ["Gateway", "gateway", failedShare("gateway")],
      ["Client", "client", failedShare("client")],
      ["Other", "other", failedShare("unknown"), true],
    ],
    grouped: (of) => figures.errorRate(of),
  },
  {
    ...shared,
    title: "Cache hit rate",
    empty: "No call in this range asked the cache",
    series: [
      ["Hit", "hit", answeredShare("hit")],
      ["Coalesced", "coalesced", answeredShare("coalesced")],
      ["Stale", "stale", answeredShare("stale")],
    ],
    grouped: (of) => figures.hitRate(of),
  },
].map((definition) => ({
  kind: "columns",
  groupedTitle: definition.title,
  groupedKind: definition.kind ?? "columns",
  ...definition,
  series: definition.series.map(line),
}));

export class Charts {
  #grid = null;
  #at = null;

  /** @param {Element} root @param {Element} last a panel that stands after the charts */
  constructor(root, last) {
    this.charts = DEFINITIONS.map((definition) => new Chart(definition, (index) => this.#point(index)));
    this.charts.forEach((chart) => chart.element.classList.toggle("wide", Boolean(chart.definition.wide)));
    replace(root, this.charts.map(({ element }) => element), last);
  }

  show(result, tones) {
    for (const chart of this.charts) {
      const { definition } = chart;
      const happened = ({ rare, of }) => !rare || of(result.totals) > 0;
      const next = frame({ ...definition, series: definition.series.filter(happened) }, result, tones);
      this.#grid = next.grid;
      chart.show(next);
    }
    this.#pointAll(this.#indexOf(this.#at));
  }

  /** The crosshair stays at its time when buckets move. */
  #indexOf(at) {
    if (at === null) return null;
    const index = Math.floor((at - this.#grid.start) / this.#grid.step);
    return index >= 0 && index < this.#grid.count ? index : null;
  }

  #point(index) {
    this.#at = index === null || !this.#grid ? null : this.#grid.start + index * this.#grid.step;
    this.#pointAll(index);
  }

  #pointAll(index) {
    for (const chart of this.charts) chart.point(index);
  }

  fade(tone) {
    for (const chart of this.charts) chart.fade(tone);
  }
}

/** Kinds of errors with how often each came, most first. */
export class ErrorKinds {
  constructor() {
    this.list = el("ol", { class: "kinds" });
    this.element = el("section", { class: "panel chart", "aria-label": "Errors by kind" },
      el("header", {}, el("h2", {}, "Errors by kind")), this.list);
  }

  show({ totals }) {
    const kinds = figures.errorKinds(totals).filter(([, , times]) => times > 0);
    const shown = kinds.slice(0, 7);
    const most = Math.max(1, ...kinds.map(([, , times]) => times));
    const rest = kinds.slice(7).reduce((sum, [, , times]) => sum + times, 0);
    replace(this.list,
      shown.map(([source, kind, times]) => errorRow(source, kind, times, most)),
      rest > 0 ? el("li", { class: "rest" }, `${count(rest)} of ${kinds.length - 7} other kinds`) : null,
      kinds.length === 0 ? el("li", { class: "nothing" }, "No errors in this range") : null);
  }
}

function errorRow(source, kind, times, most) {
  const known = ["client", "gateway", "provider"].includes(source) ? source : "other";
  const bar = el("progress", { class: known, value: times, max: most, "aria-hidden": "true" });
  return el("li", {}, el("span", { class: "name", title: `${source}: ${kind}` }, kind),
    el("span", { class: "source" }, source), el("span", { class: "value" }, count(times)), bar);
}

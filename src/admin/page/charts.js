// Which charts there are, and the crosshair that they share.

import { Chart } from "./chart.js";
import { el, replace } from "./dom.js";
import * as figures from "./figures.js";
import { count, duration, money, percent, roughDuration, roughMoney, short } from "./format.js";
import { frame } from "./frame.js";
import { durationTicks, ticks } from "./scale.js";

const counted = { format: count, tick: short, ticks: (most) => ticks(most, 1) };
const shares = { format: percent, tick: percent, ticks: (most) => ticks(Math.min(Math.max(most, 0.01), 1)).filter((share) => share <= 1.001) };
const failed = (source) => (point) => figures.failures(point)[source];
const nonzero = (value) => (point) => value(point) || 0;

const quantiles = (what) =>
  ["p50", "p95", "p99"].map((name) => ({ name, tone: name, of: figures.quantile(what, name) }));

const DEFINITIONS = [
  {
    ...counted,
    title: "Requests",
    groupedTitle: "Requests",
    kind: "columns",
    groupedKind: "columns",
    empty: "No requests in this range",
    wide: true,
    series: [
      { name: "Succeeded", tone: "ok", of: (point) => figures.requests(point) - sumOf(figures.failures(point)) },
      { name: "Client errors", tone: "client", of: failed("client") },
      { name: "Gateway errors", tone: "gateway", of: failed("gateway") },
      { name: "Provider errors", tone: "provider", of: failed("provider") },
      { name: "Other failures", tone: "other", of: failed("unknown"), rare: true },
    ],
    grouped: figures.requests,
  },
  {
    ...counted,
    title: "Tokens",
    groupedTitle: "Tokens, input and output",
    kind: "columns",
    groupedKind: "columns",
    empty: "No tokens in this range",
    wide: true,
    series: [
      { name: "Input", tone: "input", of: figures.tokens.fresh },
      { name: "Input, cached", tone: "cached", of: figures.tokens.cached },
      { name: "Output", tone: "output", of: figures.tokens.output },
    ],
    grouped: figures.tokens.all,
  },
  {
    format: money,
    tick: roughMoney,
    ticks,
    title: "Cost",
    groupedTitle: "Cost",
    kind: "columns",
    groupedKind: "columns",
    empty: "Nothing was spent in this range",
    series: [
      { name: "Spent", tone: "cost", of: figures.cost },
      { name: "Saved by the cache", tone: "saved", of: figures.saved },
    ],
    grouped: figures.cost,
  },
  {
    format: duration,
    tick: roughDuration,
    ticks: durationTicks,
    title: "Latency",
    groupedTitle: "Latency, p95",
    kind: "lines",
    groupedKind: "lines",
    empty: "No calls in this range",
    series: quantiles("latency_ms"),
    grouped: figures.quantile("latency_ms", "p95"),
  },
  {
    format: duration,
    tick: roughDuration,
    ticks: durationTicks,
    title: "Time to first token",
    groupedTitle: "Time to first token, p95",
    kind: "lines",
    groupedKind: "lines",
    empty: "No streamed answers in this range",
    series: quantiles("ttft_ms"),
    grouped: figures.quantile("ttft_ms", "p95"),
  },
  {
    ...shares,
    title: "Error rate",
    groupedTitle: "Error rate",
    kind: "columns",
    groupedKind: "lines",
    empty: "No errors in this range",
    series: [
      { name: "Provider", tone: "provider", of: nonzero((point) => figures.errorRate(point, "provider")) },
      { name: "Gateway", tone: "gateway", of: nonzero((point) => figures.errorRate(point, "gateway")) },
      { name: "Client", tone: "client", of: nonzero((point) => figures.errorRate(point, "client")) },
      { name: "Other", tone: "other", of: nonzero((point) => figures.errorRate(point, "unknown")), rare: true },
    ],
    grouped: figures.errorRate,
  },
  {
    ...shares,
    title: "Cache hit rate",
    groupedTitle: "Cache hit rate",
    kind: "columns",
    groupedKind: "lines",
    empty: "No call in this range asked the cache",
    series: [
      { name: "Hit", tone: "hit", of: (point) => figures.hitRate(point, "hit") },
      { name: "Coalesced", tone: "coalesced", of: (point) => figures.hitRate(point, "coalesced") },
      { name: "Stale", tone: "stale", of: (point) => figures.hitRate(point, "stale") },
    ],
    grouped: (point) => figures.hitRate(point),
  },
];

function sumOf(failures) {
  return Object.values(failures).reduce((sum, times) => sum + times, 0);
}

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
      // Series for what should not happen are there only when it does.
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

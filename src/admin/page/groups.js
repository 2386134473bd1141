// The table of groups with their totals. It is the legend of the grouped charts too.

import { el, foreign, replace, table } from "./dom.js";
import * as figures from "./figures.js";
import { count, duration, exact, money, percent } from "./format.js";
import { groupingName } from "./selection.js";

/** Columns after the name: heading, value, and its every digit. */
const COLUMNS = [
  ["Requests", (of) => count(figures.requests(of)), (of) => exact(figures.requests(of))],
  ["Errors", (of) => percent(figures.errorRate(of))],
  ["Input", (of) => count(figures.tokens.input(of)), (of) => exact(figures.tokens.input(of))],
  ["Cached", (of) => percent(figures.cachedShare(of))],
  ["Output", (of) => count(figures.tokens.output(of)), (of) => exact(figures.tokens.output(of))],
  ["Cost", (of) => money(figures.cost(of)), (of) => `$${exact(figures.cost(of))}`],
  ["Saved", (of) => money(figures.saved(of)), (of) => `$${exact(figures.saved(of))}`],
  ["Cache hits", (of) => percent(figures.hitRate(of))],
  ["p50", (of) => duration(of.latency_ms?.p50)],
  ["p95", (of) => duration(of.latency_ms?.p95)],
  ["p99", (of) => duration(of.latency_ms?.p99)],
  ["TTFT p95", (of) => duration(of.ttft_ms?.p95)],
];

const cells = (totals) =>
  COLUMNS.map(([heading, value, all]) => table.cell({ "data-label": heading, title: all?.(totals) }, value(totals)));

function row(group, tones, onPoint) {
  const tone = tones.of(group.name);
  const name = group.name ? foreign(group.name) : el("span", { class: "muted" }, "(none)");
  const head = el("th", { scope: "row", role: "rowheader", title: group.name }, el("i", { class: `swatch ${tone}` }), name);
  const element = table.row({}, head, cells(group.totals));
  element.addEventListener("pointerenter", () => onPoint(tone));
  element.addEventListener("pointerleave", () => onPoint(null));
  return element;
}

/**
 * @param {HTMLElement} root
 * @param {import("./frame.js").Tones} tones
 * @param {(tone: string|null) => void} onPoint a group is pointed at, or none
 */
export function showGroups(root, result, tones, onPoint) {
  root.hidden = !result.group_by || result.groups.length === 0;
  if (root.hidden) return replace(root);
  const heading = groupingName(result.group_by);
  const all = table.row({}, el("th", { scope: "row", role: "rowheader" }, "All"), cells(result.totals));
  const headings = [foreign(heading), ...COLUMNS.map(([name]) => name)].map((name) => table.heading({}, name));
  replace(root,
    el("header", {}, el("h2", {}, "By ", foreign(heading))),
    el("div", { class: "scroll" },
      table.all({ class: "groups" },
        table.part("thead", table.row({}, headings)),
        table.part("tbody", result.groups.map((group) => row(group, tones, onPoint))),
        table.part("tfoot", all))));
}

// One chart: columns that are stacked, or lines, in SVG; a crosshair; and what the series are at
// it: in the legend, or for groups, whose legend is the table above, in a box beside it.

import { el, foreign, replace, set, svg } from "./dom.js";
import { NONE, clock, day, span } from "./format.js";
import { timeTicks } from "./scale.js";

const HEIGHT = 148;
const MARGIN = { top: 8, right: 8, bottom: 20, left: 50 };
const TICK_WIDTH = 58;
const BOTTOM = HEIGHT - MARGIN.bottom;

/**
 * @typedef {object} Definition
 * @property {string} title
 * @property {string} groupedTitle
 * @property {"columns"|"lines"} kind
 * @property {"columns"|"lines"} groupedKind
 * @property {(value: number|null) => string} format
 * @property {(value: number) => string} tick
 * @property {(most: number) => number[]} ticks
 * @property {string} empty what is said when there is nothing to draw
 */

export class Chart {
  #frame = null;
  #index = null;
  #faded = null;
  #scale = null;

  /**
   * @param {Definition} definition
   * @param {(index: number|null) => void} onPoint the pointer or a key chose a bucket, or none
   */
  constructor(definition, onPoint) {
    this.definition = definition;
    this.onPoint = onPoint;
    this.title = el("h2", {}, definition.title);
    this.when = el("span", { class: "when" });
    this.legend = el("ul", { class: "legend" });
    this.box = el("div", { class: "box", hidden: true });
    this.canvas = svg("svg", { height: HEIGHT, "aria-hidden": "true" });
    this.plot = el("div", { class: "plot", role: "slider", tabindex: 0, "aria-valuemin": 0 }, this.canvas, this.box);
    this.element = el("figure", { class: "panel chart" }, el("header", {}, this.title, this.when), this.legend, this.plot);
    this.#listen();
  }

  #listen() {
    const { plot } = this;
    plot.addEventListener("pointermove", (event) => this.onPoint(this.#indexAt(event)));
    plot.addEventListener("pointerdown", (event) => this.onPoint(this.#indexAt(event)));
    // A finger that is lifted has not gone elsewhere; the blur tells when it does.
    plot.addEventListener("pointerleave", ({ pointerType }) => pointerType === "mouse" && this.onPoint(null));
    plot.addEventListener("blur", () => this.onPoint(null));
    plot.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(plot);
  }

  #indexAt(event) {
    if (!this.#scale) return null;
    const { left } = this.plot.getBoundingClientRect();
    const index = Math.floor((event.clientX - left - MARGIN.left) / this.#scale.width);
    return Math.min(this.#frame.grid.count - 1, Math.max(0, index));
  }

  #key(event) {
    if (!this.#frame) return;
    const last = this.#frame.grid.count - 1;
    const now = this.#index ?? last + 1;
    const page = Math.max(1, Math.round(last / 10));
    const to = {
      ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1,
      PageDown: now - page, PageUp: now + page, Home: 0, End: last, Escape: null,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.onPoint(to === null ? null : Math.min(last, Math.max(0, to)));
  }

  /** @param {import("./frame.js").Frame} frame */
  show(frame) {
    const { definition } = this;
    this.#frame = frame;
    const title = frame.grouped ? definition.groupedTitle : definition.title;
    replace(this.title, title);
    set(this.plot, "aria-label", `${title} over time`);
    set(this.plot, "aria-valuemax", frame.grid.count - 1);
    this.values = frame.series.map(() => el("span", { class: "value" }));
    const item = ({ name, tone }, index) =>
      el("li", {}, el("i", { class: `swatch ${tone}` }), el("span", { class: "name" }, name), this.values[index]);
    replace(this.legend, frame.grouped ? [] : frame.series.map(item));
    this.#draw();
  }

  get #kind() {
    return this.#frame.grouped ? this.definition.groupedKind : this.definition.kind;
  }

  #most() {
    const { series, grid } = this.#frame;
    let most = 0;
    for (let index = 0; index < grid.count; index += 1) {
      const values = series.map(({ values }) => values[index] ?? 0);
      const height = this.#kind === "columns" ? values.reduce((sum, value) => sum + value, 0) : Math.max(0, ...values);
      most = Math.max(most, height);
    }
    return most;
  }

  #draw() {
    const width = Math.floor(this.plot.clientWidth);
    if (!this.#frame || width < MARGIN.left + 40) return;
    const { grid, series } = this.#frame;
    const most = this.#most();
    const ticks = this.definition.ticks(most);
    const inner = width - MARGIN.left - MARGIN.right;
    const top = ticks[ticks.length - 1];
    this.#scale = {
      width: inner / grid.count,
      x: (index) => MARGIN.left + (index * inner) / grid.count,
      y: (value) => BOTTOM - (value / top) * (BOTTOM - MARGIN.top),
      right: width - MARGIN.right,
    };
    set(this.canvas, "width", width);
    const shown = most > 0 || series.some(({ values }) => this.#kind === "lines" && values.some((v) => v !== null));
    this.marks = shown ? this.#marks(series).flat() : [];
    this.cross = svg("g", { class: "cross" });
    const nothing = svg("text", { class: "nothing", x: MARGIN.left + inner / 2, y: (MARGIN.top + BOTTOM) / 2 }, this.definition.empty);
    replace(this.canvas, this.#valueAxis(shown ? ticks : [0]), this.#timeAxis(inner), this.marks, shown ? null : nothing, this.cross);
    this.fade(this.#faded);
    this.point(this.#index);
  }

  #valueAxis(ticks) {
    const { y, right } = this.#scale;
    return ticks.map((value) => {
      const at = Math.round(y(value)) + 0.5;
      return [
        svg("line", { class: value === 0 ? "base" : "rule", x1: MARGIN.left, x2: right, y1: at, y2: at }),
        svg("text", { class: "tick left", x: MARGIN.left - 7, y: at + 3.5 }, this.definition.tick(value)),
      ];
    });
  }

  #timeAxis(inner) {
    const { start, step, count } = this.#frame.grid;
    const end = start + step * count;
    const found = timeTicks(start, end, Math.floor(inner / TICK_WIDTH));
    return found.map(({ at, midnight }) => {
      const x = Math.round(MARGIN.left + ((at - start) / (end - start)) * inner);
      // Labels at the very edges would be cut off, or stand under the other axis.
      if (x < MARGIN.left + 12 || x > MARGIN.left + inner - 12) return [];
      return [
        svg("line", { class: "base", x1: x + 0.5, x2: x + 0.5, y1: BOTTOM, y2: BOTTOM + 4 }),
        svg("text", { class: "tick", x, y: HEIGHT - 4 }, midnight ? day(at) : clock(at)),
      ];
    });
  }

  /** One path a series. */
  #marks(series) {
    if (this.#kind === "lines") return series.map((line) => this.#line(line));
    const heights = new Array(this.#frame.grid.count).fill(0);
    return series.map((column) => this.#columns(column, heights));
  }

  #columns({ tone, values }, heights) {
    const { x, y, width } = this.#scale;
    const gap = width >= 4 ? 1 : 0;
    const path = values.map((value, index) => {
      if (!value) return "";
      const [left, right] = [Math.round(x(index)), Math.round(x(index + 1)) - gap];
      const low = y(heights[index]);
      heights[index] += value;
      return `M${left} ${low.toFixed(1)}V${y(heights[index]).toFixed(1)}H${Math.max(right, left + 1)}V${low.toFixed(1)}Z`;
    });
    return svg("path", { class: `column ${tone}`, d: path.join("") });
  }

  /** Broken where there are no values; a value between two breaks is a dot. */
  #line({ tone, values }) {
    const { x, y } = this.#scale;
    const there = (index) => (values[index] ?? null) !== null;
    let [line, dots] = ["", ""];
    values.forEach((value, index) => {
      if (!there(index)) return;
      const place = `${x(index + 0.5).toFixed(1)} ${y(value).toFixed(1)}`;
      if (there(index - 1)) line += `L${place}`;
      else if (there(index + 1)) line += `M${place}`;
      else dots += `M${place}h.01`;
    });
    return [svg("path", { class: `line ${tone}`, d: line }), svg("path", { class: `line dots ${tone}`, d: dots })];
  }

  /** Puts the crosshair on a bucket, or takes it away; the read-out follows. */
  point(index) {
    if (!this.#frame) return;
    const { grid, series } = this.#frame;
    this.#index = index;
    const at = (line) => (index === null ? line.total : line.values[index]);
    const told = series.map((line) => this.definition.format(at(line)));
    this.values.forEach((value, place) => replace(value, told[place]));
    const when = index === null ? "" : span(grid.start + index * grid.step, grid.step);
    replace(this.when, when);
    const text = series.map(({ name }, place) => `${name || "(none)"} ${told[place]}`).join(", ");
    set(this.plot, "aria-valuenow", index ?? grid.count - 1);
    set(this.plot, "aria-valuetext", `${when || "Whole range"}: ${text || this.definition.empty}`);
    this.#cross(index);
    this.#tell(index, told);
  }

  #cross(index) {
    if (!this.cross) return;
    if (index === null) return replace(this.cross);
    const { x, y } = this.#scale;
    const middle = x(index + 0.5);
    const dots = this.#kind === "lines" ? this.#frame.series : [];
    replace(
      this.cross,
      svg("line", { x1: middle, x2: middle, y1: MARGIN.top, y2: BOTTOM }),
      dots
        .filter(({ values }) => values[index] !== null)
        .map(({ values, tone }) => svg("circle", { class: tone, cx: middle, cy: y(values[index]), r: 3 })),
    );
  }

  /** The box beside the crosshair: groups only, and only where the pointer or the focus is. */
  #tell(index, told) {
    const here = this.plot.matches(":hover, :focus");
    this.box.hidden = !(this.#frame.grouped && index !== null && here && this.#scale);
    if (this.box.hidden) return;
    const row = ({ name, tone, values }, place) =>
      values[index] ? el("li", {}, el("i", { class: `swatch ${tone}` }), foreign(name || "(none)", { class: "name" }), el("span", { class: "value" }, told[place])) : null;
    const rows = this.#frame.series.map(row);
    replace(this.box, el("ul", {}, rows.some(Boolean) ? rows : el("li", {}, NONE)));
    const middle = this.#scale.x(index + 0.5);
    const width = this.box.offsetWidth;
    const left = middle + 12 + width <= this.plot.clientWidth ? middle + 12 : Math.max(0, middle - 12 - width);
    this.box.style.left = `${left}px`;
  }

  /** Lets one tone stand out, or none. */
  fade(tone) {
    this.#faded = tone;
    for (const mark of this.marks ?? []) mark.classList.toggle("faded", tone !== null && !mark.classList.contains(tone));
  }
}

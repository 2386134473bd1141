// From an answer of the analytics API to what a chart draws: series of values over one grid of
// buckets. Pure functions.

import { whole } from "./format.js";

/** More buckets than any screen has columns for. */
const MOST_BUCKETS = 1_500;

const OTHER = "(other)";
const TONES = 8;

/**
 * @typedef {object} Grid equal buckets that cover the range
 * @property {number} start seconds
 * @property {number} step seconds
 * @property {number} count
 *
 * @typedef {object} Series
 * @property {string} name
 * @property {string} tone its colour: a class of page.css
 * @property {(number|null)[]} values one a bucket
 * @property {number|null} total of the whole range
 *
 * @typedef {object} Frame
 * @property {Grid} grid
 * @property {Series[]} series
 * @property {boolean} grouped
 */

/** @returns {Grid} */
export function gridOf({ start, end, interval_s: interval, points }) {
  const step = Math.max(whole(interval), Math.ceil((end - start) / MOST_BUCKETS), 1);
  // Buckets lie where the API's lie; those without calls may be missing.
  const anchor = points.length > 0 ? whole(points[0].at) : 0;
  const first = anchor + Math.floor((start - anchor) / step) * step;
  return { start: first, step, count: Math.max(1, Math.ceil((end - first) / step)) };
}

/** One value for every bucket of the grid; of none where there is no point. */
function spread(points, grid, value) {
  const values = new Array(grid.count).fill(value({}));
  for (const point of points) {
    const index = Math.floor((whole(point.at) - grid.start) / grid.step);
    if (index >= 0 && index < grid.count) values[index] = value(point);
  }
  return values;
}

/**
 * @param {{series: {name: string, tone: string, of: Function}[], grouped: Function}} definition
 * @param {Tones} tones
 * @returns {Frame}
 */
export function frame(definition, result, tones) {
  const grid = gridOf(result);
  const line = (name, tone, source, value) => ({
    name,
    tone,
    values: spread(source.points, grid, value),
    total: value(source.totals),
  });
  const series = result.group_by
    ? result.groups.map((group) => line(group.name, tones.of(group.name), group, definition.grouped))
    : definition.series.map(({ name, tone, of }) => line(name, tone, result, of));
  return { grid, series, grouped: Boolean(result.group_by) };
}

/** Colours of groups. A group keeps its own while it is shown, whatever its rank becomes. */
export class Tones {
  #by = "";
  #taken = new Map();

  /** Learns which groups there are now. */
  learn({ group_by: by, groups }) {
    const names = by ? groups.map(({ name }) => name) : [];
    const kept = [...this.#taken].filter(([name]) => by === this.#by && names.includes(name));
    this.#by = by;
    this.#taken = new Map(kept);
    for (const name of names) {
      if (!this.#taken.has(name)) this.#taken.set(name, name === OTHER ? "other" : this.#free());
    }
  }

  of(name) {
    return this.#taken.get(name) ?? "other";
  }

  #free() {
    const taken = new Set(this.#taken.values());
    const tones = Array.from({ length: TONES }, (_, index) => `g${index}`);
    return tones.find((tone) => !taken.has(tone)) ?? "other";
  }
}

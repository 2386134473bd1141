// Where axes have their ticks: round numbers, and round local times. Pure functions.

const DAY = 86_400;
const STEPS = [60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200];

/** The smallest of 1, 2, 5, 10, … that is not under `value`. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((digit) => digit * power >= value * 0.999_999);
}

/**
 * Values of about three ticks above zero; the last one is the axis' end.
 * @param {number} most largest value that is shown
 * @param {number} least smallest step: 1 where things are counted
 */
export function ticks(most, least = 0) {
  if (!(most > 0)) return [0, least || 1];
  const step = Math.max(round(most / 3.2), least);
  const last = Math.ceil(most / step - 1e-9);
  return Array.from({ length: last + 1 }, (_, index) => index * step);
}

/** The same for milliseconds, where a round number is one of minutes from a minute on. */
export function durationTicks(most) {
  if (most <= 90_000) return ticks(most);
  return ticks(most / 60_000).map((minutes) => minutes * 60_000);
}

/**
 * Round local times from `start` to `end`, in seconds, at most `most` of them.
 * @returns {{at: number, midnight: boolean}[]}
 */
export function timeTicks(start, end, most) {
  const least = (end - start) / Math.max(1, most);
  const step = STEPS.find((candidate) => candidate >= least);
  return step ? withinDays(start, end, step) : wholeDays(start, end, Math.ceil(least / DAY));
}

function midnight(at) {
  const date = new Date(at * 1e3);
  date.setHours(0, 0, 0, 0);
  return date;
}

function withinDays(start, end, step) {
  const base = midnight(start).getTime() / 1e3;
  const found = [];
  for (let at = base + Math.ceil((start - base) / step) * step; at <= end; at += step) {
    found.push({ at, midnight: midnight(at).getTime() === at * 1e3 });
  }
  return found;
}

function wholeDays(start, end, step) {
  const date = midnight(start);
  const found = [];
  for (; date.getTime() / 1e3 <= end; date.setDate(date.getDate() + step)) {
    const at = date.getTime() / 1e3;
    if (at >= start) found.push({ at, midnight: true });
  }
  return found;
}

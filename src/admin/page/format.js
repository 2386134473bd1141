// Numbers, money, durations, shares and times as people read them. Pure functions; what is
// not a finite number is a dash.

export const NONE = "–";

const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });

/** What is not a number is none. Decimals may come as text. */
export function number(value) {
  if (value === null || value === undefined || value === "") return null;
  const parsed = Number(value);
  return Number.isFinite(parsed) ? parsed : null;
}

/** Absent counts are zero. */
export const whole = (value) => number(value) ?? 0;

const dash = (format) => (value) => {
  const parsed = number(value);
  return parsed === null ? NONE : format(parsed);
};

const exponent = (value) => value.toExponential(2).replace("e+", "e");

/** 128,412; from a million on 1.28M. */
export const count = dash((value) => {
  if (Math.abs(value) < 1e6) return grouped.format(value);
  return Math.abs(value) < 1e15 ? compact.format(value) : exponent(value);
});

/** 9,500; from ten thousand on 12.8K: for axes and narrow places. */
export const short = dash((value) => {
  if (Math.abs(value) >= 1e15) return Number(value.toPrecision(2)).toExponential().replace("e+", "e");
  return Math.abs(value) < 1e4 ? Number(value.toPrecision(4)).toLocaleString("en-US", { maximumFractionDigits: 12 }) : compact.format(value);
});

/** Every digit. */
export const exact = dash((value) => (Math.abs(value) < 1e21 ? value.toLocaleString("en-US") : exponent(value)));

const fixed = (digits) =>
  new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const dollars = { none: fixed(0), cents: fixed(2), mills: fixed(4) };
const tiny = new Intl.NumberFormat("en-US", { minimumSignificantDigits: 2, maximumSignificantDigits: 2 });

/** $1,284, $38.21, $0.0042, $0.000017: what is small shows its first digits. */
export const money = dash((value) => {
  const size = Math.abs(value);
  if (size >= 1e6) return `$${size < 1e15 ? compact.format(value) : exponent(value)}`;
  if (size >= 1e3) return `$${dollars.none.format(value)}`;
  if (size >= 1 || size === 0) return `$${dollars.cents.format(value)}`;
  return `$${size >= 0.001 ? dollars.mills.format(value) : tiny.format(value)}`;
});

/** For axes, where a step is a round number. */
export const roughMoney = dash((value) => {
  if (Math.abs(value) >= 1e4) return `$${short(value)}`;
  return `$${Number(value.toPrecision(3)).toLocaleString("en-US", { maximumFractionDigits: 12 })}`;
});

/** Of a share from 0 to 1. Never rounded to none or to all. */
export const percent = dash((share) => {
  const value = share * 100;
  if (value === 0) return "0%";
  if (value < 0.01) return "<0.01%";
  if (value < 1) return `${Number(value.toFixed(2))}%`;
  if (value < 100 && value >= 99.95) return ">99.9%";
  return `${Number(value.toFixed(1))}%`;
});

/** Of milliseconds: 0.21 ms, 820 ms, 4.12 s, 2 m 05 s. */
export const duration = dash((ms) => {
  if (ms < 10) return `${Number(ms.toPrecision(2))} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_995) return `${(ms / 1e3).toFixed(ms < 9_995 ? 2 : 1)} s`;
  const seconds = Math.round(ms / 1e3);
  if (seconds >= 36_000) return `${short(seconds / 3_600)} h`;
  return `${Math.floor(seconds / 60)} m ${String(seconds % 60).padStart(2, "0")} s`;
});

/** For axes, where a step is a round number. */
export const roughDuration = dash((ms) => {
  if (ms < 1e3) return `${short(ms)} ms`;
  return ms < 60_000 ? `${short(ms / 1e3)} s` : `${short(ms / 60_000)} m`;
});

const units = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Of bytes. */
export const size = dash((bytes) => {
  const step = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  return step === 0 ? `${bytes} B` : `${short(Number((bytes / 1024 ** step).toPrecision(3)))} ${units[step]}`;
});

const time = (options) => new Intl.DateTimeFormat("en-GB", { hourCycle: "h23", ...options });
const minutes = time({ hour: "2-digit", minute: "2-digit" });
const seconds = time({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const days = time({ day: "numeric", month: "short" });

const DAY = 86_400;

/** @param {number} at seconds */
export const clock = (at) => minutes.format(at * 1e3);
export const clockSeconds = (at) => seconds.format(at * 1e3);
export const day = (at) => days.format(at * 1e3);

/** A bucket's span of time: 28 Nov 12:05 – 12:10. */
export function span(at, length) {
  if (length >= DAY) return day(at);
  return `${day(at)} ${clock(at)} – ${clock(at + length)}`;
}

/** When a call began: the date only where it is not today's. */
export function moment(text, now = Date.now()) {
  const at = Date.parse(text);
  if (Number.isNaN(at)) return NONE;
  const today = new Date(now).toDateString() === new Date(at).toDateString();
  return today ? seconds.format(at) : `${days.format(at)} ${seconds.format(at)}`;
}

/** Seconds in words: 40 s, 12 min, 3 h, 2 d. */
export function ago(length) {
  if (length < 60) return `${Math.max(0, Math.round(length))} s`;
  if (length < 3_600) return `${Math.round(length / 60)} min`;
  return length < 2 * DAY ? `${Math.round(length / 3_600)} h` : `${Math.round(length / DAY)} d`;
}

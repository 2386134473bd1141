// The table of the last calls. A call never changes once it is finished, so rows stay as they
// are when the list is read again: what is open stays open, and the focus stays where it is.

import { details } from "./details.js";
import { el, foreign, replace, set, table } from "./dom.js";
import { NONE, count, duration, exact, moment, money, number, short } from "./format.js";

/** Headings, and the class of their cells. */
const COLUMNS = [
  ["Time", "time"], ["Gateway", "gateway"], ["Provider / model", "model"], ["Status", "state"], ["Cache", "cache"],
  ["Input", "number"], ["Output", "number"], ["Cost", "number"], ["Saved", "number"], ["TTFT", "number"],
  ["Duration", "number"], ["Attempts", "number few"],
];

export class Calls {
  /** Rows by the call's id. */
  #rows = new Map();
  #fetchOne;

  /**
   * @param {HTMLElement} root
   * @param {{fetchOne: (id: string, signal: AbortSignal) => Promise<object>, onFailed: (failed: boolean) => void}} wiring
   */
  constructor(root, { fetchOne, onFailed }) {
    this.#fetchOne = fetchOne;
    this.failed = el("input", { type: "checkbox", id: "failed" });
    this.failed.addEventListener("change", () => onFailed(this.failed.checked));
    this.note = el("span", { class: "when" });
    this.message = el("div", { class: "message" });
    this.body = table.part("tbody");
    this.body.addEventListener("keydown", (event) => walk(this.body, event));
    const headings = COLUMNS.map(([name, kind]) => table.heading({ class: kind }, name));
    this.table = table.all({ class: "calls", "aria-label": "Last calls", hidden: true },
      table.part("thead", table.row({}, headings)), this.body);
    const only = el("label", { class: "only" }, this.failed, " Failed only");
    replace(root, el("header", {}, el("h2", {}, "Last calls"), this.note, only), this.message, el("div", { class: "scroll" }, this.table));
  }

  /**
   * @param {object[]} entries latest first
   * @param {boolean} same what is selected is the same as before, but for the time
   */
  show(entries, same) {
    const known = this.#rows;
    const kept = same ? [...known.values()].filter((row) => row.open && !entries.some(({ id }) => id === row.id)) : [];
    const listed = entries.map((entry) => known.get(entry.id) ?? new Row(entry, this.#fetchOne));
    const rows = [...listed, ...kept];
    this.#rows = new Map(rows.map((row) => [row.id, row]));
    for (const [id, row] of known) if (!this.#rows.has(id)) row.drop();
    place(this.body, rows.flatMap((row) => row.elements));
    this.table.hidden = rows.length === 0;
    replace(this.message);
    replace(this.note, entries.length > 0 ? `the last ${entries.length}` : "");
  }

  /** Says something in place of the calls, or above those of before. */
  say(...message) {
    replace(this.message, ...message);
  }

  /** Nothing of before is shown when something else is selected. */
  clear() {
    this.show([], false);
  }
}

/** Puts the elements in this order, touching only those that are not there already. */
function place(parent, elements) {
  const wanted = new Set(elements);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const element of elements) {
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
}

/** Arrow keys go from call to call. */
function walk(body, event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.matches("button.open")) return;
  const buttons = [...body.querySelectorAll("button.open")];
  const next = buttons[buttons.indexOf(event.target) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

/** One call: its row, and under it, once opened, its details. */
class Row {
  open = false;
  #entry;
  #fetchOne;
  #stop = new AbortController();

  constructor(entry, fetchOne) {
    this.id = entry.id;
    this.#entry = entry;
    this.#fetchOne = fetchOne;
    this.button = el("button", { type: "button", class: "open", "aria-expanded": "false", title: entry.created_at }, moment(entry.created_at));
    this.element = table.row({ class: "call" }, cells(entry, this.button));
    this.place = table.cell({ colspan: COLUMNS.length });
    this.under = table.row({ class: "under", hidden: true }, this.place);
    this.element.addEventListener("click", (event) => this.#clicked(event));
    this.under.addEventListener("keydown", (event) => this.#escaped(event));
  }

  get elements() {
    return [this.element, this.under];
  }

  drop() {
    this.#stop.abort();
  }

  /** Selecting text in a row does not open it. */
  #clicked(event) {
    if (String(getSelection()) !== "" && !event.target.closest("button")) return;
    this.#toggle();
  }

  #escaped(event) {
    if (event.key !== "Escape") return;
    this.#toggle();
    this.button.focus();
  }

  #toggle() {
    this.open = !this.open;
    this.under.hidden = !this.open;
    set(this.button, "aria-expanded", String(this.open));
    if (this.open && !this.asked) this.#ask();
  }

  async #ask() {
    this.asked = true;
    replace(this.place, details(this.#entry, el("p", { class: "muted" }, "Loading the bodies…")));
    try {
      const entry = await this.#fetchOne(this.id, this.#stop.signal);
      replace(this.place, details(entry));
    } catch (error) {
      if (error.name === "AbortError") return;
      const retry = el("button", { type: "button" }, "Try again");
      retry.addEventListener("click", () => this.#ask());
      replace(this.place, details(this.#entry, el("p", { class: "notice bad" }, error.message, " ", retry)));
    }
  }
}

const cell = ([heading, kind], content, title) =>
  table.cell({ class: content === NONE ? `${kind} blank` : kind, "data-label": heading, title }, content);

function cells(entry, button) {
  const { provider, model, tokens_in: input, tokens_out: output, cost, saved, attempts } = entry;
  const name = [provider, model].filter(Boolean).join(" / ");
  const firstToken = entry.timings?.first_token;
  const contents = [
    [button],
    [foreign(entry.gateway || NONE), entry.gateway],
    [[provider ? foreign(provider, { class: "muted" }) : null, provider && model ? el("span", { class: "muted" }, " / ") : null, foreign(model ?? (provider ? "" : NONE))], name],
    [state(entry), [entry.status_code, entry.error, entry.error_detail].filter(Boolean).join(" ")],
    [cache(entry)],
    [count(input), exact(input)],
    [count(output), exact(output)],
    [money(cost), number(cost) === null ? "No price is known" : `$${exact(cost)}`],
    [number(saved) ? money(saved) : NONE],
    [duration(firstToken)],
    [duration(entry.timings?.duration ?? entry.duration)],
    [el("span", { class: attempts > 1 ? "again" : "" }, short(attempts))],
  ];
  return contents.map(([content, title], index) => cell(COLUMNS[index], content, title));
}

function state({ status_code: status, success, error, error_source: source }) {
  const known = ["client", "gateway", "provider"].includes(source) ? source : "other";
  const badge = el("span", { class: `badge ${success ? "fine" : known}` }, status || "none");
  return error ? [badge, el("span", { class: "error" }, error)] : badge;
}

function cache({ cache_status: status }) {
  const answered = ["hit", "stale", "coalesced"].includes(status);
  return el("span", { class: answered ? "answered" : "muted" }, status ?? NONE);
}

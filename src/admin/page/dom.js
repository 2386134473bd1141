// The only place where text becomes part of the page. Everything that comes from the store
// (prompts, metadata, model names, user agents) may be hostile: it becomes text nodes and
// attribute values here, never markup, and what would not be seen is made visible.

const SVG = "http://www.w3.org/2000/svg";

/** Control characters but tab and newline, and what turns the order of a line's letters around. */
const UNSEEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** @param {string} character */
function picture(character) {
  const code = character.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/**
 * The text with everything visible: no NUL, no half of a surrogate pair, no bidi override.
 * @param {unknown} text
 */
export function visible(text) {
  return String(text).toWellFormed().replace(UNSEEN, picture);
}

/**
 * @param {Element} element
 * @param {Record<string, unknown>} attributes of which null, undefined and false are left out
 * @param {unknown[]} children nodes, or what becomes text
 */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  append(element, children);
  return element;
}

/**
 * Sets an attribute, or removes it.
 * @param {Element} element
 * @param {string} name
 * @param {unknown} value
 */
export function set(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : visible(value));
}

function append(element, children) {
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
}

/** An HTML element. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Elements of tables: they keep their roles where a narrow page lays them out as cards. */
export const table = {
  all: (attributes, ...parts) => el("table", { role: "table", ...attributes }, parts),
  part: (tag, ...rows) => el(tag, { role: "rowgroup" }, rows),
  row: (attributes, ...cells) => el("tr", { role: "row", ...attributes }, cells),
  heading: (attributes, ...content) => el("th", { role: "columnheader", scope: "col", ...attributes }, content),
  cell: (attributes, ...content) => el("td", { role: "cell", ...attributes }, content),
};

/** Puts the children in place of those that are there. */
export function replace(element, ...children) {
  element.textContent = "";
  append(element, children);
}

/** Text of unknown direction, which must not turn around what stands next to it. */
export function foreign(text, attributes = {}) {
  return el("bdi", attributes, text);
}

/**
 * A select's options; the chosen one stays chosen. Nothing happens when they are the same, so
 * that an open list does not close under the pointer.
 * @param {HTMLSelectElement} select
 * @param {[string, string][]} options values and texts
 */
export function choose(select, options, chosen) {
  const now = JSON.stringify(options);
  if (select.dataset.options !== now) {
    select.dataset.options = now;
    replace(select, ...options.map(([value, text]) => option(value, text)));
  }
  select.selectedIndex = options.findIndex(([value]) => value === chosen);
}

/** The value is what is sent, so it stays as it is. */
function option(value, text) {
  const element = el("option", {}, text);
  element.value = value;
  return element;
}

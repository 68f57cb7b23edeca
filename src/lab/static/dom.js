// Building the page. Text always becomes a text node: names out of data files are never markup.

/**
 * Make an element. Properties that start with "on" are listeners, "class" and names with a dash are
 * attributes, `dataset` is an object; all others are set as properties of the node.
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  assign(node, properties);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** Make an SVG element; all properties are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function assign(node, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "class" || name === "role" || name === "for" || name.includes("-"))
      node.setAttribute(name, value);
    else node[name] = value;
  }
}

export const byId = (id) => document.getElementById(id);

/** Replace what an element holds. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null));
  return node;
}

/** Set a custom property of CSS: through the object model, which the page's policy allows. */
export function setVariable(node, name, value) {
  node.style.setProperty(name, value);
  return node;
}

/** Make the dot in a category's colour. */
export function swatch(color) {
  return setVariable(element("i", { class: "swatch", "aria-hidden": "true" }), "--color", color);
}

/**
 * Make a table. Columns are {name, number?: true}; rows are lists of texts or nodes, the first of
 * which heads its row.
 */
export function table(caption, columns, rows) {
  const cellClass = (place) => (columns[place].number ? "number" : null);
  const head = columns.map((column, place) =>
    element("th", { scope: "col", class: cellClass(place) }, column.name));
  const body = rows.map((row) => element("tr", {}, row.map((cell, place) =>
    place === 0
      ? element("th", { scope: "row" }, cell)
      : element("td", { class: cellClass(place) }, cell))));
  return element("table", {},
    element("caption", { class: "hidden" }, caption),
    element("thead", {}, element("tr", {}, head)), element("tbody", {}, body));
}

/** Call a function once, `wait` ms after the last call. */
export function debounced(call, wait) {
  let timer = null;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(call, wait, ...values);
  };
}

export const number = (value, digits = 4) =>
  value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");

/** Write a difference with its sign. */
export function signed(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  const text = number(value, digits);
  return Number(value.toFixed(digits)) > 0 ? `+${text}` : text;
}

export const count = (value) => value.toLocaleString("en-US");

/** Write one thing or several: plural(1, "image") is "1 image". */
export const plural = (value, thing) => `${count(value)} ${thing}${value === 1 ? "" : "s"}`;

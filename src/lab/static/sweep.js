// A sweep in the page: the score over a grid of two keys, row by row.

import { ApiError, numbered, postJson } from "./api.js";
import { byId, element, fill, number, setVariable } from "./dom.js";
import { isEqual } from "./state.js";
import { channels, textColor } from "./masks.js";

const MAX_CELLS = 400;
const SWEPT_KINDS = ["number", "integer", "switch", "choice"];
const FIRST_X = "score_threshold";
const FIRST_Y = "nms_iou_threshold";

export class Sweep {
  #controller = null;
  #cells = []; // {x, y, score, button}

  constructor(state) {
    this.state = state;
    this.keys = state.lab.controls.filter(({ kind, refused }) =>
      SWEPT_KINDS.includes(kind) && refused === null);
    for (const [axis, first] of [["x", FIRST_X], ["y", FIRST_Y]]) this.#prepare(axis, first);
    byId("sweep-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    byId("sweep-cancel").addEventListener("click", () => this.#controller?.abort());
    byId("sweep-start").disabled = !state.lab.has_scores;
    state.listen((what) => {
      if (what === "settings") this.#markCurrent();
    });
  }

  #prepare(axis, first) {
    const select = byId(`sweep-${axis}`);
    fill(select, this.keys.map(({ key, label }) => element("option", { value: key }, label)));
    select.value = this.keys.some(({ key }) => key === first) ? first : this.keys[0].key;
    const suggest = () => { byId(`sweep-${axis}-values`).value = suggestion(this.#control(axis)); };
    select.addEventListener("change", suggest);
    suggest();
  }

  #control(axis) {
    return this.keys.find(({ key }) => key === byId(`sweep-${axis}`).value);
  }

  #read(axis) {
    const control = this.#control(axis);
    const values = byId(`sweep-${axis}-values`).value.split(",").map((text) => text.trim())
      .filter((text) => text !== "").map((text) => parseValue(text, control));
    if (!values.length) throw new Error(`${control.label} needs values, separated by commas`);
    return { key: control.key, label: control.label, values: [...new Set(values)] };
  }

  async #start() {
    let x, y;
    try {
      [x, y] = [this.#read("x"), this.#read("y")];
      if (x.key === y.key) throw new Error("Choose two different keys");
      if (x.values.length * y.values.length > MAX_CELLS)
        throw new Error(`A sweep has at most ${MAX_CELLS} cells, these are ${x.values.length * y.values.length}`);
    } catch (error) {
      this.#say(error.message);
      return;
    }
    this.#controller?.abort();
    this.#controller = new AbortController();
    const { signal } = this.#controller;
    this.base = this.state.settings;
    this.#lay(x, y);
    byId("sweep-cancel").disabled = false;
    try {
      for (const [row, value] of y.values.entries()) {
        this.#say(`Row ${row + 1} of ${y.values.length} ...`);
        const answer = await this.#ask(x, { key: y.key, value }, signal);
        this.#fillRow(row, x, answer);
      }
      this.#sayBest(x, y);
    } catch (error) {
      if (error.name === "AbortError") this.#say("Cancelled.");
      else if (error instanceof ApiError) this.#say(error.message);
      else throw error;
    } finally {
      if (this.#controller?.signal === signal) byId("sweep-cancel").disabled = true;
    }
  }

  #ask(x, y, signal) {
    const question = { settings: this.base, x: { key: x.key, values: x.values }, y };
    return postJson("/api/grid", numbered(question), { signal });
  }

  /** Make the empty table. */
  #lay(x, y) {
    this.axes = { x, y };
    this.#cells = [];
    const rows = y.values.map((valueY, row) => element("tr", {},
      element("th", { scope: "row" }, String(valueY)),
      x.values.map((valueX, column) => {
        const button = element("button", {
          type: "button", disabled: true, onclick: () => this.#take(row * x.values.length + column),
        }, "·");
        this.#cells.push({ x: valueX, y: valueY, score: null, button });
        return element("td", {}, button);
      })));
    fill(byId("heat"), element("table", {},
      element("caption", {}, `${y.label} (down) by ${x.label} (across)`),
      element("thead", {}, element("tr", {}, element("td"),
        x.values.map((value) => element("th", { scope: "col" }, String(value))))),
      element("tbody", {}, rows)));
  }

  #fillRow(row, x, { scores, errors }) {
    scores.forEach((score, column) => {
      const cell = this.#cells[row * x.values.length + column];
      cell.score = score;
      cell.button.disabled = score === null;
      cell.button.textContent = score === null ? "×" : number(score, 3);
      cell.button.title = errors?.[column] ?? String(score);
    });
    this.#color();
    this.#markCurrent();
  }

  /** Colour the cells from the lowest to the highest score so far. */
  #color() {
    const scored = this.#cells.filter(({ score }) => score !== null);
    const values = scored.map(({ score }) => score);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    for (const { score, button } of scored) {
      const share = high > low ? (score - low) / (high - low) : 1;
      const { back, text } = heat(share);
      setVariable(setVariable(button, "--heat", back), "--heat-text", text);
      button.classList.toggle("best", score === high);
    }
  }

  #markCurrent() {
    if (!this.axes) return;
    const { x, y } = this.axes;
    const { settings } = this.state;
    const isSameBase = isEqual({ ...settings, [x.key]: 0, [y.key]: 0 }, { ...this.base, [x.key]: 0, [y.key]: 0 });
    for (const cell of this.#cells) {
      const isCurrent = isSameBase && settings[x.key] === cell.x && settings[y.key] === cell.y;
      cell.button.setAttribute("aria-pressed", String(isCurrent));
    }
    byId("heat").classList.toggle("stale", !isSameBase);
  }

  #take(place) {
    const { x, y } = this.#cells[place];
    this.state.commit({ ...this.base, [this.axes.x.key]: x, [this.axes.y.key]: y });
  }

  #sayBest(x, y) {
    const scored = this.#cells.filter(({ score }) => score !== null);
    if (!scored.length) {
      this.#say(this.#cells[0]?.button.title ?? "No cell has a score.");
      return;
    }
    const best = scored.reduce((one, other) => (other.score > one.score ? other : one));
    this.#say(`Best ${number(best.score)} at ${x.key}=${best.x}, ${y.key}=${best.y}: chosen on the ` +
      "images that score it, so in-sample. Click a cell to take it.");
  }

  #say(text) {
    byId("sweep-status").textContent = text;
  }
}

/** Read a value as it stands in YAML: a number, true, false, null or a word. */
function parseValue(text, { kind, choices, label, nullable }) {
  if (nullable && (text === "null" || text === "all")) return null;
  if (kind === "number" || kind === "integer") {
    const value = Number(text);
    if (!Number.isFinite(value) || (kind === "integer" && !Number.isInteger(value)))
      throw new Error(`${label} must be ${kind === "integer" ? "whole numbers" : "numbers"}, got ${text}`);
    return value;
  }
  const legal = kind === "switch" ? [false, true] : choices;
  const found = legal.find((choice) => String(choice) === text);
  if (found === undefined) throw new Error(`${label} must be among ${legal.join(", ")}, got ${text}`);
  return found;
}

function suggestion({ kind, key, minimum, maximum, choices }) {
  if (kind === "switch") return "false, true";
  if (kind === "choice") return choices.join(", ");
  if (kind === "integer") return key.includes("area") ? "0, 20, 50, 100, 200, 400" : "5, 10, 20, 50, 100";
  const tenth = (maximum - minimum) / 10;
  const rounded = (value) => Number(value.toPrecision(3));
  return Array.from({ length: 9 }, (_, place) => rounded(minimum + tenth * (place + 1))).join(", ");
}

const COLD = "#eef3f4";
const HOT = "#0c6a8d";

/** Return the colours of a cell; `share` is 0 for the lowest score and 1 for the highest. */
function heat(share) {
  const [cold, hot] = [channels(COLD), channels(HOT)];
  const mixed = cold.map((value, place) => Math.round(value + (hot[place] - value) * share));
  const back = `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  return { back, text: textColor(back) };
}

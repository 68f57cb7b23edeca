// The state of the page: settings, baseline and view; undo and redo; the address.

const MAX_UNDO = 200;
const SAME_EDIT_MS = 700; // changes of one key that follow each other so fast are one step of undo

export const VIEW = Object.freeze({
  mode: "image", // image | grid | sweep
  image: 0, // index of the open image
  layout: "side", // side | over | prediction | truth
  masks: true,
  boxes: false,
  labels: true,
  ghosts: false,
  opacity: 0.5,
  category: null, // id; null: all
  error: null, // kind of error; null: all
  low: 0,
  high: 1,
  text: "",
  order: "store",
  theme: "auto", // auto | light | dark
  shortcuts: true, // of single keys
});

const LEGAL_VIEW = {
  mode: ["image", "grid", "sweep"],
  layout: ["side", "over", "prediction", "truth"],
  order: ["store", "worst", "best", "lost", "gained"],
  theme: ["auto", "light", "dark"],
};

export const isEqual = (a, b) => JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));

/** Objects with their keys in order, so that equal ones have equal texts. */
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

/**
 * Settings, baseline and view, and who wants to know of their changes.
 *
 * A slider that is dragged calls `preview` for each position and `commit` when it is let go: one
 * step of undo. Listeners are called with "settings", "baseline" or "view".
 */
export class State {
  #listeners = [];
  #undo = [];
  #redo = [];
  #before = null; // what the drag under way began from
  #lastEdit = { key: null, time: 0 };

  constructor(lab) {
    this.lab = lab;
    this.settings = lab.settings;
    this.baseline = lab.baseline;
    this.view = { ...VIEW };
  }

  listen(listener) {
    this.#listeners.push(listener);
  }

  #tell(what) {
    for (const listener of this.#listeners) listener(what);
  }

  preview(changes) {
    this.#before ??= this.#snapshot();
    this.settings = { ...this.settings, ...changes };
    this.#tell("settings");
  }

  /** Make changes of settings for good, those of a preview included. */
  commit(changes = {}) {
    const before = this.#before ?? this.#snapshot();
    this.#before = null;
    this.settings = { ...this.settings, ...changes };
    if (isEqual(before.settings, this.settings)) return;
    this.#remember(before);
    this.#tell("settings");
    this.#tell("committed");
  }

  pin(name, settings) {
    this.#lastEdit.key = null;
    this.#remember(this.#snapshot());
    this.baseline = { name, settings };
    this.#tell("baseline");
    this.#tell("committed");
  }

  show(changes) {
    this.view = { ...this.view, ...changes };
    this.#tell("view");
  }

  get canUndo() {
    return this.#undo.length > 0;
  }

  get canRedo() {
    return this.#redo.length > 0;
  }

  undo() {
    this.#travel(this.#undo, this.#redo);
  }

  redo() {
    this.#travel(this.#redo, this.#undo);
  }

  #travel(from, to) {
    const target = from.pop();
    if (!target) return;
    to.push(this.#snapshot());
    this.#lastEdit.key = null;
    this.#restore(target);
    this.#tell("committed");
  }

  #restore({ settings, baseline }) {
    const isOther = !isEqual(baseline, this.baseline);
    this.settings = settings;
    this.baseline = baseline;
    if (isOther) this.#tell("baseline");
    this.#tell("settings");
  }

  #snapshot() {
    return { settings: this.settings, baseline: this.baseline };
  }

  #remember(before) {
    const changed = Object.keys(this.settings).filter(
      (key) => !isEqual(this.settings[key], before.settings[key]));
    const key = changed.length === 1 ? changed[0] : null;
    const now = performance.now();
    const goesOn = key !== null && key === this.#lastEdit.key &&
      now - this.#lastEdit.time < SAME_EDIT_MS;
    this.#lastEdit = { key, time: now };
    this.#redo.length = 0;
    if (goesOn) return;
    this.#undo.push(before);
    if (this.#undo.length > MAX_UNDO) this.#undo.shift();
  }

  /** Take a state from the address or from the last session; an undoable step where one is asked. */
  take(plain, { undoable = false } = {}) {
    const taken = checked(plain, this.lab);
    if (undoable) this.#remember(this.#snapshot());
    this.#before = null;
    this.#restore(taken);
    this.show(taken.view);
  }

  /** Return everything that a reload needs, as a JSON object. Settings that are usual are left out. */
  toPlain() {
    const view = Object.fromEntries(
      Object.entries(this.view).filter(([key, value]) => value !== VIEW[key]));
    const { name, settings } = this.baseline;
    const usual = usualSettings(this.lab);
    return {
      settings: differences(this.settings, usual),
      baseline: { name, settings: differences(settings, usual) },
      view,
    };
  }
}

/** Return the settings that the address leaves out. */
const usualSettings = (lab) =>
  (lab.presets.find((preset) => preset.name === "default") ?? { settings: lab.settings }).settings;

function differences(settings, usual) {
  return Object.fromEntries(
    Object.entries(settings).filter(([key, value]) => !isEqual(value, usual[key])));
}

/**
 * Return a state that came from outside, with every key, or throw an Error that says what is wrong.
 * Bounds are the server's to check: it refuses a value with a message that says what is legal.
 */
export function checked(plain, lab) {
  if (!isObject(plain)) throw new Error("not a JSON object");
  const { settings = {}, baseline = {}, view = {} } = plain;
  if (!isObject(settings) || !isObject(baseline) || !isObject(view))
    throw new Error("settings, baseline and view must be objects");
  const usual = usualSettings(lab);
  const name = baseline.name ?? "default";
  if (typeof name !== "string") throw new Error("the name of the baseline is not a text");
  return {
    settings: { ...usual, ...checkedSettings(settings, lab) },
    baseline: { name, settings: { ...usual, ...checkedSettings(baseline.settings ?? {}, lab) } },
    view: checkedView(view, lab),
  };
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

const LEGAL_KIND = {
  number: isNumber,
  integer: Number.isInteger,
  switch: (value) => typeof value === "boolean",
  choice: (value, { choices }) => choices.includes(value),
  categories: (value) =>
    Array.isArray(value) && value.every((one) => isNumber(one) || typeof one === "string"),
  per_category: (value) => isObject(value) && Object.values(value).every(isNumber),
  steps: (value) => Array.isArray(value) && value.every((one) => typeof one === "string"),
};

function checkedSettings(settings, lab) {
  if (!isObject(settings)) throw new Error("settings are not a JSON object");
  for (const [key, value] of Object.entries(settings)) {
    const control = lab.controls.find((one) => one.key === key);
    if (!control) throw new Error(`there is no setting ${key}`);
    const isLegal = (value === null && (control.nullable || control.kind === "per_category")) ||
      LEGAL_KIND[control.kind](value, control);
    if (!isLegal) throw new Error(`${key} cannot be ${JSON.stringify(value)}`);
  }
  return settings;
}

function checkedView(view, lab) {
  const taken = { ...VIEW };
  for (const [key, value] of Object.entries(view)) {
    if (!Object.hasOwn(VIEW, key)) throw new Error(`there is no view option ${key}`);
    if (Object.hasOwn(LEGAL_VIEW, key) ? !LEGAL_VIEW[key].includes(value) : !isLegalView(key, value))
      throw new Error(`${key} cannot be ${JSON.stringify(value)}`);
    taken[key] = value;
  }
  if (taken.image >= lab.image_list.length) throw new Error(`there is no image ${taken.image}`);
  return taken;
}

function isLegalView(key, value) {
  if (key === "category") return value === null || isNumber(value);
  if (key === "error") return value === null || typeof value === "string";
  if (key === "image") return Number.isInteger(value) && value >= 0;
  return typeof value === typeof VIEW[key] && (typeof value !== "number" || Number.isFinite(value));
}

// The address: "#s=" and the state as JSON in base64url.

export function toFragment(plain) {
  const bytes = new TextEncoder().encode(JSON.stringify(plain));
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return `#s=${btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/** Return the state in a fragment, null where it has none, or throw an Error. */
export function fromFragment(fragment) {
  const found = /^#s=(.*)$/.exec(fragment);
  if (!found) return null;
  const text = atob(found[1].replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
}

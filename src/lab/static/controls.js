// The settings: a control for each key of `postprocess`, grouped by step.

import { byId, count, element, fill, swatch } from "./dom.js";
import { isEqual } from "./state.js";

const STEP_TITLES = {
  score: "Score", nms: "NMS", cap: "Cap", remove: "Remove categories", max_per_class: "Cap per class",
  masks: "Masks", suppress_overlaps: "Overlaps", min_area: "Minimum area",
};
const BUILDERS = {
  number: numberControl, integer: numberControl, switch: switchControl, choice: choiceControl,
  categories: categoriesControl, per_category: perCategoryControl, steps: stepsControl,
};
const MAX_RADIOS = 3; // more choices, or long ones, open as a list
const MAX_RADIO_CHARACTERS = 22;

/** All controls; they follow the state, and change it. */
export class Controls {
  #rows = [];
  #groups = new Map(); // by step: where the number of candidates that it takes is shown

  constructor(state) {
    this.state = state;
    const steps = [...new Set(state.lab.controls.map((control) => control.step))];
    fill(byId("controls"), steps.map((step) => this.#group(step)));
    this.#fillPresets();
    byId("preset").addEventListener("change", () => this.#takePreset());
    state.listen((what) => {
      if (what === "settings" || what === "baseline") this.refresh();
    });
    this.refresh();
  }

  #group(step) {
    const taken = element("span", { class: "taken" });
    const own = this.state.lab.controls.filter((control) => control.step === step);
    this.#groups.set(step, taken);
    if (own.length === 1) return element("div", { class: "step single" }, this.#row(own[0], taken));
    return element("details", { class: "step", open: true },
      element("summary", {}, element("h3", {}, STEP_TITLES[step] ?? step), taken),
      own.map((control) => this.#row(control)));
  }

  #row(control, taken = null) {
    const id = `control-${control.key}`;
    const part = BUILDERS[control.kind](control, this.state, id);
    const reset = element("button", {
      type: "button", class: "quiet reset", title: "Back to the baseline's value",
      "aria-label": `Set ${control.label} back to the baseline's value`,
      onclick: () => this.state.commit({ [control.key]: this.state.baseline.settings[control.key] }),
    }, "↺");
    const help = element("p", { class: "help", id: `${id}-help`, hidden: true }, control.help);
    const about = element("button", {
      type: "button", class: "quiet about", "aria-expanded": "false", "aria-controls": help.id,
      "aria-label": `About ${control.label}`, title: control.help,
      onclick: () => {
        help.hidden = !help.hidden;
        about.setAttribute("aria-expanded", String(!help.hidden));
      },
    }, "i");
    const note = element("p", { class: "note" });
    const label = part.isGroup
      ? element("span", { class: "label", id: `${id}-label` }, control.label)
      : element("label", { class: "label", for: id }, control.label);
    const node = element("div", { class: "control", dataset: { key: control.key, kind: control.kind } },
      element("div", { class: "head" }, label, about, reset, taken, part.beside ?? null),
      part.below ?? null, note, help);
    this.#rows.push({ control, node, part, reset, note });
    return node;
  }

  refresh() {
    const { settings, baseline } = this.state;
    for (const row of this.#rows) {
      const { control, node, part, reset, note } = row;
      const reason = this.#whyRefused(control) ?? this.#whyIdle(control) ?? "";
      const seen = [settings[control.key], baseline.settings[control.key],
        settings[part.usualKey], reason];
      if (row.seen?.every((value, place) => value === seen[place])) continue;
      row.seen = seen;
      part.set(settings[control.key]);
      const isChanged = !isEqual(settings[control.key], baseline.settings[control.key]);
      node.classList.toggle("changed", isChanged);
      reset.hidden = !isChanged || control.refused !== null;
      note.textContent = reason;
      node.classList.toggle("idle", reason !== "");
      for (const input of node.querySelectorAll(".field")) input.disabled = control.refused !== null;
    }
    this.#showPreset();
  }

  /** Say why a setting cannot be changed; null where it can. The store's own reason stands above. */
  #whyRefused({ refused }) {
    return refused !== null && refused === this.state.lab.fixed_masks ? "Not with fixed masks." : refused;
  }

  /** Say why a setting has no effect at the moment; null where it has. */
  #whyIdle({ key, step, matters_for: rule }) {
    const { settings } = this.state;
    if (rule && !rule.values.includes(settings[rule.key]))
      return `Matters for ${rule.key} ${rule.values.join(", ")}.`;
    if (key !== "steps" && settings.steps && !settings.steps.includes(step))
      return `The step ${step} is left out.`;
    return null;
  }

  /** Show how many candidates each step takes. */
  showTaken(taken) {
    for (const [step, node] of this.#groups) {
      const number = Object.entries(taken)
        .filter(([name]) => name === step || name.startsWith(`${step} `))
        .reduce((sum, [, value]) => sum + value, 0);
      node.textContent = number ? `−${count(number)}` : "";
      node.title = number ? `${count(number)} candidates removed by this step` : "";
    }
  }

  #fillPresets() {
    const options = this.state.lab.presets.map(({ name, note }) =>
      element("option", { value: name }, note ? `${name} (${note})` : name));
    fill(byId("preset"), element("option", { value: "", disabled: true }, "custom"), options);
  }

  #showPreset() {
    byId("preset").value = presetName(this.state) ?? "";
  }

  #takePreset() {
    const preset = this.state.lab.presets.find(({ name }) => name === byId("preset").value);
    if (preset) this.state.commit(preset.settings);
  }
}

/** Return the name of the preset that the settings equal, or null. */
export function presetName({ lab, settings }) {
  return lab.presets.find((preset) => isEqual(preset.settings, settings))?.name ?? null;
}

/** A slider with its number; both speak of the same value. `edit(value, isFinal)` hears of changes. */
function sliderPair({ minimum, maximum, increment, kind }, id, label, edit) {
  const bounds = { min: minimum, max: maximum, step: increment };
  const slider = element("input", {
    type: "range", class: "field", tabIndex: 0, "aria-label": `${label}, slider`, ...bounds,
    oninput: () => edit(Number(slider.value), false),
    onchange: () => edit(Number(slider.value), true),
  });
  const field = element("input", {
    type: "number", class: "field", id, step: increment, min: minimum,
    ...(kind === "number" ? { max: maximum } : {}),
    onchange: () => {
      if (field.value !== "" && Number.isFinite(Number(field.value))) edit(Number(field.value), true);
    },
  });
  const set = (value) => {
    if (document.activeElement !== slider || Number(slider.value) !== value) slider.value = value;
    field.value = value;
    const share = (Math.min(Math.max(value, minimum), maximum) - minimum) / (maximum - minimum);
    slider.style.setProperty("--share", share);
  };
  return { slider, field, set };
}

function numberControl(control, state, id) {
  const { key, label, nullable } = control;
  let lastNumber = Math.min(control.maximum, 100);
  const { slider, field, set } = sliderPair(control, id, label, (value, isFinal) => {
    if (isFinal) state.commit({ [key]: value });
    else state.preview({ [key]: value });
  });
  const limit = nullable && element("input", {
    type: "checkbox", class: "field", "aria-label": `Limit ${label}`, title: "With a limit, or all",
    onchange: () => state.commit({ [key]: limit.checked ? lastNumber : null }),
  });
  return {
    beside: element("span", { class: "beside" }, limit || null, field),
    below: slider,
    set(value) {
      if (value !== null) lastNumber = value;
      if (limit) limit.checked = value !== null;
      slider.hidden = value === null;
      field.placeholder = "all";
      if (value === null) field.value = "";
      else set(value);
    },
  };
}

function switchControl({ key }, state, id) {
  const box = element("input", {
    type: "checkbox", role: "switch", class: "field switch", id,
    onchange: () => state.commit({ [key]: box.checked }),
  });
  return { beside: box, set(value) { box.checked = value; } };
}

const choiceName = (value) => ({ true: "on", false: "off" })[String(value)] ?? String(value);

function choiceControl(control, state, id) {
  const names = control.choices.map(choiceName);
  const isShort = names.length <= MAX_RADIOS && names.join("").length <= MAX_RADIO_CHARACTERS;
  return (isShort ? radios : list)(control, state, id);
}

function radios({ key, choices }, state, id) {
  const inputs = choices.map((choice, place) => element("input", {
    type: "radio", class: "field", name: id, id: `${id}-${place}`,
    onchange: () => state.commit({ [key]: choice }),
  }));
  const parts = inputs.map((input, place) =>
    element("label", {}, input, element("span", {}, choiceName(choices[place]))));
  return {
    isGroup: true,
    beside: element("span", { class: "segments", role: "radiogroup", "aria-labelledby": `${id}-label` },
      parts),
    set(value) {
      inputs.forEach((input, place) => { input.checked = choices[place] === value; });
    },
  };
}

function list({ key, choices }, state, id) {
  const select = element("select", {
    class: "field", id, onchange: () => state.commit({ [key]: choices[select.selectedIndex] }),
  }, choices.map((choice) => element("option", {}, choiceName(choice))));
  return { below: select, set(value) { select.selectedIndex = choices.indexOf(value); } };
}

/** A check box for each category and each group of categories that may be removed. */
function categoriesControl({ key, choices }, state, id) {
  const summary = element("summary");
  const rows = element("div", { class: "checks", role: "group", "aria-labelledby": `${id}-label` });
  const entries = [
    ...groupsOf(key, choices, state.lab).map((group) => ({ value: group, name: group.replaceAll("_", " ") })),
    ...state.lab.categories.map(({ id: value, name, color }) => ({ value, name, color })),
  ];
  const boxes = entries.map(({ value, name, color }) => {
    const box = element("input", {
      type: "checkbox", class: "field",
      onchange: () => {
        const others = state.settings[key].filter((one) => one !== value);
        state.commit({ [key]: box.checked ? [...others, value] : others });
      },
    });
    rows.append(element("label", {}, box, color ? swatch(color) : null, name));
    return box;
  });
  return {
    isGroup: true,
    below: element("details", { class: "opens" }, summary, rows),
    set(removed) {
      boxes.forEach((box, place) => { box.checked = removed.includes(entries[place].value); });
      summary.textContent = removed.length ? `${removed.length} removed` : "none removed";
    },
  };
}

/** Return the groups of categories that have a name: those offered, or in a preset. */
function groupsOf(key, choices, lab) {
  const used = lab.presets.flatMap(({ settings }) => settings[key]);
  return [...new Set([...(choices ?? []), ...used])].filter((one) => typeof one === "string");
}

/** A table with a slider for each category; a category without a value of its own has the usual. */
function perCategoryControl(control, state, id) {
  const { key } = control;
  const usualKey = key.replace("_per_class", "");
  const summary = element("summary");
  const body = element("div", { class: "checks sliders", role: "group", "aria-labelledby": `${id}-label` });
  const change = (category, value, isFinal) => {
    const { [category]: _, ...others } = state.settings[key] ?? {};
    const next = value === null ? others : { ...others, [category]: value };
    const changes = { [key]: Object.keys(next).length ? next : null };
    if (isFinal) state.commit(changes);
    else state.preview(changes);
  };
  const rows = state.lab.categories.map(({ id: category, name, color }) => {
    const pair = sliderPair({ ...control, kind: "number" }, `${id}-${category}`, name,
      (value, isFinal) => change(category, value, isFinal));
    const own = element("input", {
      type: "checkbox", class: "field", "aria-label": `${name}: a value of its own`,
      onchange: () => change(category, own.checked ? (state.settings[usualKey] ?? 0.5) : null, true),
    });
    pair.field.setAttribute("aria-label", name);
    body.append(element("div", { class: "row" },
      own, element("span", { class: "name" }, swatch(color), name), pair.slider, pair.field));
    return { category, own, pair };
  });
  return {
    isGroup: true,
    usualKey,
    below: element("details", { class: "opens" }, summary, body),
    set(values) {
      for (const { category, own, pair } of rows) {
        const value = values?.[category];
        own.checked = value !== undefined;
        pair.set(value ?? state.settings[usualKey] ?? 0.5);
        pair.field.classList.toggle("usual", value === undefined);
      }
      const number = Object.keys(values ?? {}).length;
      summary.textContent = number ? `${number} of their own` : "none of their own";
    },
  };
}

/** The steps in their order, each with a switch and buttons that move it. */
function stepsControl({ key, choices }, state, id) {
  const rows = element("ol", { class: "steps", "aria-labelledby": `${id}-label` });
  let order = [];
  const commit = () => state.commit({
    [key]: order.filter((step) => step.isOn).map((step) => step.name),
  });
  const move = (place, by) => {
    const name = order[place].name;
    order.splice(place + by, 0, ...order.splice(place, 1));
    commit();
    const moved = order.findIndex((step) => step.name === name);
    rows.children[moved]?.querySelector(by < 0 ? ".up" : ".down")?.focus();
  };
  const arrow = (place, by, sign, title) => element("button", {
    type: "button", class: `quiet field ${by < 0 ? "up" : "down"}`,
    "aria-label": `Move ${order[place].name} ${title}`, title: `Move ${title}`,
    "aria-disabled": String(!order[place + by]), onclick: () => order[place + by] && move(place, by),
  }, sign);
  const row = (step, place) => {
    const box = element("input", {
      type: "checkbox", class: "field", disabled: step.name === "masks",
      onchange: () => { step.isOn = box.checked; commit(); },
    });
    box.checked = step.isOn;
    return element("li", {}, element("label", {}, box, step.name),
      arrow(place, -1, "↑", "earlier"), arrow(place, 1, "↓", "later"));
  };
  return {
    isGroup: true,
    below: element("details", { class: "opens" }, element("summary", {}, "order and switches"), rows),
    set(steps) {
      const off = choices.filter((name) => !steps.includes(name)).map((name) => ({ name, isOn: false }));
      order = [...steps.map((name) => ({ name, isOn: true })), ...off];
      fill(rows, order.map(row));
    },
  };
}

// The page of the lab: reads the store's description, then connects the parts.

import { ApiError, getJson, postJson } from "./api.js";
import { Controls } from "./controls.js";
import { byId, debounced, element, fill, setVariable } from "./dom.js";
import { Grid } from "./grid.js";
import { Out } from "./out.js";
import { Questions } from "./questions.js";
import { Scores } from "./scores.js";
import { bindKeys, shortcuts } from "./shortcuts.js";
import { State, checked, fromFragment, isEqual, toFragment } from "./state.js";
import { Sweep } from "./sweep.js";
import { Viewer } from "./viewer.js";

const SAVE_AFTER_MS = 1000;
const THEMES = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };

async function start() {
  let lab;
  try {
    lab = await getJson("/api/lab");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say(error.message);
    return;
  }
  const state = new State(lab);
  const hasState = takeFragment(state);
  const page = build(state);
  connectView(state, page);
  keepAddress(state);
  keepSession(state);
  if (!hasState && lab.session) offer(state, lab.session);
  page.questions.settingsChanged();
  document.body.dataset.ready = "true";
}

function build(state) {
  const { lab } = state;
  byId("source").textContent = `${lab.predictions} · ${lab.competition.name}`;
  byId("source").title = [lab.predictions, lab.ground_truth, lab.images].filter(Boolean).join("\n");
  document.title = `Lab: ${lab.predictions}`;
  byId("settings-note").textContent = lab.fixed_masks ? `This store: ${lab.fixed_masks}` : "";
  byId("settings-note").hidden = !lab.fixed_masks;
  const controls = new Controls(state);
  const viewer = new Viewer(state, (index) => grid.baselineScores?.[index]);
  const open = (index) => {
    if (index !== undefined) state.show(state.view.mode === "sweep" ? { image: index, mode: "image" } : { image: index });
  };
  const grid = new Grid(state, (index) => {
    open(index);
    if (state.view.mode === "grid") state.show({ mode: "image" });
  });
  const scores = new Scores(state);
  const sweep = new Sweep(state);
  const out = new Out(state, { scores, grid, viewer });
  const questions = new Questions(state, {
    image: (answer) => {
      viewer.show(answer);
      viewer.preload(grid.neighbour(1));
      byId("image-place").textContent = placeOf(state, grid);
    },
    score: (answer, baselineScores) => {
      scores.show(answer);
      controls.showTaken(answer.taken);
      grid.setScores(answer.per_image, baselineScores);
      viewer.describe();
    },
    interval: (answer) => scores.showInterval(answer),
    errors: (answer) => {
      scores.showErrors(answer);
      grid.setErrors(answer.image_errors);
    },
    coco: (answer) => scores.showCoco(answer),
    stale: (isStale) => scores.markStale(isStale),
    accepted: () => refuse(""),
    refused: (error) => (error.status === 400 ? refuse(error.message) : say(error.message)),
  });
  const page = { state, controls, viewer, open, grid, scores, sweep, out, questions };
  bindKeys(state, shortcuts({ ...page, showHelp: () => byId("help").showModal() }));
  connectButtons(page);
  return page;
}

const refuse = (text) => { byId("settings-error").textContent = text; };

/** Show a message until it is closed. */
function say(text) {
  const line = element("p", {}, text,
    element("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => line.remove() }, "×"));
  fill(byId("messages"), line);
}

const placeOf = ({ view }, { shown }) => {
  const place = shown.indexOf(view.image);
  return place < 0 ? `not among ${shown.length}` : `${place + 1} / ${shown.length}`;
};

// Buttons, check boxes and tabs.

function connectButtons({ state, open, grid, scores, viewer, questions }) {
  const on = (id, act) => byId(id).addEventListener("click", act);
  on("undo", () => state.undo());
  on("redo", () => state.redo());
  on("help-button", () => byId("help").showModal());
  on("previous", () => open(grid.neighbour(-1)));
  on("next", () => open(grid.neighbour(1)));
  on("theme", () => {
    const names = Object.keys(THEMES);
    state.show({ theme: names[(names.indexOf(state.view.theme) + 1) % names.length] });
  });
  on("coco-button", () => questions.askCoco());
  for (const name of ["layout", "mode"])
    byId(name).addEventListener("change", (event) => state.show({ [name]: event.target.value }));
  for (const name of ["masks", "boxes", "labels", "ghosts"])
    byId(name).addEventListener("change", () => state.show({ [name]: byId(name).checked }));
  byId("opacity").addEventListener("input", () => state.show({ opacity: Number(byId("opacity").value) }));
  byId("single-keys").addEventListener("change", () => state.show({ shortcuts: byId("single-keys").checked }));
  connectTabs(viewer);
  markPanel("settings");
  for (const button of document.querySelectorAll("#panels button"))
    button.addEventListener("click", () => showPanel(state, button.dataset.panel));
  state.listen((what) => {
    byId("undo").disabled = !state.canUndo;
    byId("redo").disabled = !state.canRedo;
    if (what === "baseline") scores.showBaselines();
  });
  byId("undo").disabled = byId("redo").disabled = true;
}

function connectTabs(viewer) {
  const tabs = [byId("grid-tab"), byId("table-tab")];
  const choose = (chosen) => {
    for (const tab of tabs) {
      const isChosen = tab === chosen;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !isChosen;
    }
    viewer.fillTable();
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tabs.find((one) => one !== tab);
      choose(other);
      other.focus();
    });
  }
}

/** On a narrow screen one panel is below the image at a time. */
function showPanel(state, panel) {
  markPanel(panel);
  state.show({ mode: panel === "sweep" ? "sweep" : "image" });
}

function markPanel(panel) {
  document.body.dataset.panel = panel;
  for (const button of document.querySelectorAll("#panels button"))
    button.setAttribute("aria-pressed", String(button.dataset.panel === panel));
}

// The view: what is shown of it outside the parts that follow it themselves.

function connectView(state, { questions }) {
  let before = {};
  const follow = () => {
    const { view } = state;
    document.body.dataset.mode = view.mode;
    document.documentElement.dataset.theme = view.theme;
    const [sign, name] = THEMES[view.theme];
    fill(byId("theme"), sign);
    byId("theme").title = `Colours: ${name}`;
    byId("theme").setAttribute("aria-label", `Colours: ${name}`);
    for (const key of ["masks", "boxes", "labels", "ghosts"]) byId(key).checked = view[key];
    setVariable(byId("opacity"), "--share", view.opacity).value = view.opacity;
    byId("single-keys").checked = view.shortcuts;
    for (const key of ["layout", "mode"]) {
      const chosen = document.querySelector(`input[name=${key}][value=${view[key]}]`);
      chosen.checked = true;
    }
    if (before.image !== undefined && (view.image !== before.image || (view.ghosts && !before.ghosts)))
      questions.imageChanged();
    before = view;
  };
  state.listen((what) => {
    if (what === "view") follow();
  });
  follow();
}

// The address has the whole state: a reload, a bookmark and the back button restore it.

function takeFragment(state, { isQuiet = false } = {}) {
  try {
    const plain = fromFragment(location.hash);
    if (plain === null) return false;
    state.take(plain);
    return true;
  } catch (error) {
    if (!isQuiet) say(`The address has no state that can be used: ${error.message}`);
    return false;
  }
}

function keepAddress(state) {
  const write = (how) => {
    const fragment = toFragment(state.toPlain());
    if (fragment !== location.hash) history[how](null, "", fragment);
  };
  const writeLater = debounced(() => write("replaceState"), 250);
  state.listen((what) => {
    if (what === "committed") write("pushState");
    if (what === "view") writeLater();
  });
  window.addEventListener("popstate", () => takeFragment(state));
  writeLater();
}

// The session: saved by the server after each change, and offered at the next start.

function keepSession(state) {
  let saved = state.toPlain();
  const save = (options) => {
    const plain = state.toPlain();
    if (isEqual(plain, saved)) return;
    saved = plain;
    postJson("/api/session", { state: plain }, options).catch((error) => {
      if (!(error instanceof ApiError)) throw error;
      if (error.status !== 0) say(`The state is not saved: ${error.message}`);
    });
  };
  state.listen(debounced(() => save(), SAVE_AFTER_MS));
  window.addEventListener("pagehide", () => save({ keepalive: true }));
}

function offer(state, session) {
  try {
    checked(session, state.lab);
  } catch {
    return; // of another version of the lab, or damaged: nothing to resume
  }
  if (isEqual(session, state.toPlain())) return;
  const close = () => { byId("offer").hidden = true; };
  byId("offer").hidden = false;
  byId("resume").addEventListener("click", () => {
    state.take(session, { undoable: true });
    close();
  });
  byId("start-new").addEventListener("click", close);
}

start();

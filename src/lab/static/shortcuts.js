// Keys: what each does, and the list of them under "?".

import { byId, element, fill, table } from "./dom.js";

/** Each entry: the keys, their names for people, and what they do. */
export function shortcuts({ state, open, grid, viewer, scores, out, showHelp }) {
  const toggle = (key) => () => state.show({ [key]: !state.view[key] });
  const layout = (name) => () => state.show({ layout: name });
  const mode = (name) => () => state.show({ mode: state.view.mode === name ? "image" : name });
  const fade = (by) => () =>
    state.show({ opacity: Math.min(1, Math.max(0, Number((state.view.opacity + by).toFixed(2)))) });
  return [
    { keys: ["ArrowLeft"], name: "←", does: "Previous image", act: () => open(grid.neighbour(-1)) },
    { keys: ["ArrowRight"], name: "→", does: "Next image", act: () => open(grid.neighbour(1)) },
    { keys: ["ArrowUp"], name: "↑", does: "Image of the row above", act: () => open(grid.neighbour(-1, { rows: true })) },
    { keys: ["ArrowDown"], name: "↓", does: "Image of the row below", act: () => open(grid.neighbour(1, { rows: true })) },
    { keys: ["1"], name: "1", does: "Side by side", act: layout("side") },
    { keys: ["2"], name: "2", does: "On top of each other", act: layout("over") },
    { keys: ["3"], name: "3", does: "Prediction alone", act: layout("prediction") },
    { keys: ["4"], name: "4", does: "Ground truth alone", act: layout("truth") },
    { keys: ["m"], name: "M", does: "Masks", act: toggle("masks") },
    { keys: ["b"], name: "B", does: "Boxes", act: toggle("boxes") },
    { keys: ["l"], name: "L", does: "Labels", act: toggle("labels") },
    { keys: ["x"], name: "X", does: "Ghosts: candidates that a step removed", act: toggle("ghosts") },
    { keys: ["["], name: "[", does: "Masks more transparent", act: fade(-0.1) },
    { keys: ["]"], name: "]", does: "Masks less transparent", act: fade(0.1) },
    { keys: ["+", "="], name: "+", does: "Zoom in (or turn the wheel; drag to move)", act: () => viewer.zoomBy(1.4) },
    { keys: ["-"], name: "−", does: "Zoom out", act: () => viewer.zoomBy(1 / 1.4) },
    { keys: ["0"], name: "0", does: "All of the image", act: () => viewer.zoomBy(null) },
    { keys: ["g"], name: "G", does: "Grid, or image", act: mode("grid") },
    { keys: ["s"], name: "S", does: "Sweep, or image", act: mode("sweep") },
    { keys: ["/"], name: "/", does: "Find an image by its name", act: () => byId("filter-text").focus() },
    { keys: ["p"], name: "P", does: "Pin these settings as the baseline", act: () => scores.pin() },
    { keys: ["e"], name: "E", does: "Export", act: () => out.open() },
    { keys: ["?"], name: "?", does: "This list", act: showHelp },
  ];
}

const ALWAYS = [["Ctrl+Z", "Undo"], ["Ctrl+Shift+Z", "Redo"]];

/** Make the keys act, and list them in the dialog. */
export function bindKeys(state, entries) {
  const byKey = new Map(entries.flatMap((entry) => entry.keys.map((key) => [key, entry])));
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if ((event.ctrlKey || event.metaKey) && !event.altKey) travel(state, event);
    else if (state.view.shortcuts && !event.altKey && !isFor(event)) {
      const entry = byKey.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
      if (!entry) return;
      event.preventDefault();
      entry.act();
    }
  });
  fill(byId("shortcuts"), table("Shortcuts", [{ name: "Key" }, { name: "What it does" }],
    [...ALWAYS, ...entries.map(({ name, does }) => [name, does])]
      .map(([name, does]) => [element("kbd", {}, name), does])));
}

function travel(state, event) {
  const key = event.key.toLowerCase();
  if (isTyping(event.target) || (key !== "z" && key !== "y")) return;
  event.preventDefault();
  if (key === "y" || event.shiftKey) state.redo();
  else state.undo();
}

const isTyping = (target) =>
  target.matches("textarea, input:not([type=range], [type=checkbox], [type=radio], [type=number])");

/** Whether a key is for the control that has the focus. */
function isFor({ target, key }) {
  if (isTyping(target) || target.matches("select, input[type=number]")) return true;
  const moves = key.startsWith("Arrow");
  return moves && target.matches("input[type=range], input[type=radio], [role=tab]");
}

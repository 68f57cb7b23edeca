// The curve of the score over IoU thresholds, as SVG.

import { number, svg } from "./dom.js";

const WIDTH = 320;
const HEIGHT = 150;
const EDGE = { left: 30, right: 38, top: 8, bottom: 20 };

/** Draw the scores by threshold, over those of the baseline. */
export function curve(thresholds, scores, baseline) {
  const all = [...scores, ...baseline];
  const top = niceTop(Math.max(...all, 0.01));
  const first = thresholds[0];
  const span = thresholds.at(-1) - first || 1;
  const x = (threshold) => EDGE.left + ((threshold - first) / span) * (WIDTH - EDGE.left - EDGE.right);
  const y = (value) => HEIGHT - EDGE.bottom - (value / top) * (HEIGHT - EDGE.top - EDGE.bottom);
  const path = (values) => values.map((value, place) =>
    `${place ? "L" : "M"}${x(thresholds[place]).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const described = thresholds.map((one, place) => `${one}: ${number(scores[place])}`).join(", ");
  return svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img",
    "aria-label": `Score by IoU threshold. ${described}`,
  },
  ...[0, top / 2, top].flatMap((value) => gridLine(value, y(value))),
  ...thresholds.filter((_, place) => place % 3 === 0 || thresholds.length < 5).map((threshold) =>
    text(x(threshold), HEIGHT - 5, threshold.toFixed(2), "middle")),
  svg("path", { d: path(baseline), class: "line baseline" }),
  svg("path", { d: path(scores), class: "line" }),
  ...scores.map((value, place) => dot(x(thresholds[place]), y(value),
    `IoU ${thresholds[place]}: ${number(value)}, baseline ${number(baseline[place])}`)),
  ...endLabels(scores.at(-1), baseline.at(-1), x(thresholds.at(-1)) + 6, y));
}

function gridLine(value, y) {
  return [svg("line", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y, y2: y, class: "grid" }),
    text(EDGE.left - 5, y + 4, value && value.toFixed(value < 0.1 ? 2 : 1), "end")];
}

function dot(x, y, title) {
  const node = svg("circle", { cx: x, cy: y, r: 2.5, class: "dot" });
  const name = svg("title");
  name.textContent = title;
  node.append(name);
  return node;
}

/** Name both lines at their ends, apart from each other. */
function endLabels(score, baseline, x, y) {
  const apart = 12;
  let [now, before] = [y(score) + 4, y(baseline) + 4];
  if (Math.abs(now - before) < apart) before = now + (score >= baseline ? apart : -apart);
  if (before > HEIGHT - EDGE.bottom + 6) [now, before] = [now - apart, before - apart];
  return [text(x, now, "now", "start", "now"), text(x, before, "base", "start")];
}

function text(x, y, content, anchor, kind = "") {
  const node = svg("text", { x, y, "text-anchor": anchor, class: kind });
  node.textContent = content;
  return node;
}

const niceTop = (value) => [0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1].find((top) => value <= top) ?? 1;

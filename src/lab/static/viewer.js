// One image large: its masks and boxes on canvas, what the pointer is on, and the same as a table.

import { byId, element, fill, number, plural, setVariable, signed, swatch, table } from "./dom.js";
import { covers, parseRle } from "./masks.js";
import { Pane } from "./pane.js";

const MAX_ZOOM = 16;
const KEPT_PHOTOS = 8;

/** The open image. `show` takes the answer of /api/image; drawing follows the state's view. */
export class Viewer {
  #answer = null;
  #photos = new Map(); // index -> image element; null: it loads, or there is none
  #zoom = { scale: 1, x: 0, y: 0 };
  #drag = null;
  #hovered = null; // {role, id}

  /** `scoreBefore(index)` gives an image's score under the baseline, where it is known. */
  constructor(state, scoreBefore) {
    this.state = state;
    this.scoreBefore = scoreBefore;
    this.categories = new Map(state.lab.categories.map((one) => [one.id, one]));
    this.panes = {
      truth: new Pane(byId("truth-pane"), this.categories),
      prediction: new Pane(byId("prediction-pane"), this.categories),
    };
    for (const pane of Object.values(this.panes)) this.#listen(pane);
    new ResizeObserver(() => this.draw()).observe(byId("panes"));
    state.listen((what) => {
      if (what === "view") this.draw();
    });
  }

  /** Take the answer of /api/image, with the runs of its masks parsed. */
  show(answer) {
    const isOther = this.#answer?.index !== answer.index;
    const parse = (one) => ({ ...one, bounds: parseRle(one.mask) });
    this.#answer = {
      ...answer,
      detections: answer.detections.map(parse),
      ground_truth: answer.ground_truth.map(parse),
      ghosts: (answer.ghosts ?? []).map(parse),
    };
    if (isOther) {
      this.#zoom = { scale: 1, x: 0, y: 0 };
      this.#hovered = null;
      byId("tip").hidden = true;
    }
    this.#loadPhoto(answer.index);
    this.#paint();
    this.draw();
    byId("table-tab").textContent = `Detections (${answer.detections.length})`;
    this.fillTable();
  }

  /** Load an image that may be opened next. */
  preload(index) {
    if (index !== undefined) this.#loadPhoto(index);
  }

  #loadPhoto(index) {
    if (this.#photos.has(index) || this.state.lab.images === null) return;
    const photo = new Image();
    photo.src = `/api/photo?index=${index}`;
    this.#photos.set(index, null);
    photo.decode().then(() => {
      this.#photos.set(index, photo);
      if (index === this.#answer?.index) this.draw();
    }, () => {});
    for (const old of this.#photos.keys()) {
      if (this.#photos.size <= KEPT_PHOTOS) break;
      if (old !== this.#answer?.index) this.#photos.delete(old);
    }
  }

  /** Paint the masks, which change with the answer and with what is under the pointer. */
  #paint() {
    const answer = this.#answer;
    if (!answer) return;
    const { layout, ghosts, opacity } = this.state.view;
    const predicted = [...answer.detections].reverse(); // the best last, on top
    const shownGhosts = ghosts ? answer.ghosts : [];
    this.panes.truth.paint(answer, { areas: answer.ground_truth, opacity });
    this.panes.prediction.paint(answer, {
      areas: predicted, ghosts: shownGhosts, opacity,
      outlines: layout === "over" ? answer.ground_truth : [],
    });
    this.#paintHovered();
    this.painted = this.#paintedWith();
  }

  /** What the painted masks depend on, besides the answer. */
  #paintedWith() {
    const { layout, ghosts, opacity } = this.state.view;
    return `${layout === "over"} ${ghosts} ${opacity}`;
  }

  #paintHovered() {
    const { role, id } = this.#hovered ?? {};
    const found = this.#find(role, id);
    const match = role === "detection" ? this.#find("truth", found?.truth)
      : role === "truth" ? this.#find("detection", found?.detection)
        : role === "ghost" ? this.#find("detection", found?.by) : null;
    const isTruth = role === "truth";
    this.panes.truth.highlight(isTruth ? found : match);
    this.panes.prediction.highlight(isTruth ? match : found);
  }

  #find(role, id) {
    const answer = this.#answer;
    if (!answer || id === null || id === undefined) return null;
    const all = { detection: answer.detections, truth: answer.ground_truth, ghost: answer.ghosts };
    return (all[role] ?? []).find((one) => one.id === id) ?? null;
  }

  draw() {
    const { view, lab } = this.state;
    const entry = lab.image_list[view.image];
    byId("panes").dataset.layout = entry?.has_truth ? view.layout : "prediction";
    byId("prediction-caption").textContent = byId("panes").dataset.layout === "over"
      ? "Prediction, and ground truth in white" : "Prediction";
    this.describe();
    if (!this.#answer || this.#answer.index !== view.image) return;
    if (this.painted !== this.#paintedWith()) this.#paint();
    const photo = this.#photos.get(this.#answer.index) ?? null;
    for (const pane of Object.values(this.panes)) pane.draw(photo, view, this.#zoom);
  }

  /** Name the image, and say in words what the canvases show. */
  describe() {
    const entry = this.state.lab.image_list[this.state.view.image];
    byId("image-name").textContent = entry.image_id;
    byId("image-name").title = entry.image_id;
    const answer = this.#answer;
    if (answer?.index !== entry.index) return;
    const names = (list) => list.map((one) => this.#name(one.category_id)).join(", ") || "none";
    const say = (pane, text) => pane.canvas.setAttribute("aria-label", text);
    say(this.panes.truth, `Ground truth of ${entry.image_id}: ${names(answer.ground_truth)}`);
    say(this.panes.prediction,
      `Detections in ${entry.image_id}: ${names(answer.detections)}. The tab Detections lists them.`);
    const before = this.scoreBefore(entry.index);
    const change = typeof answer.score === "number" && typeof before === "number"
      ? answer.score - before : null;
    fill(byId("image-score"),
      typeof answer.score !== "number" ? "no score" : element("b", {}, number(answer.score)),
      change === null ? null : element("span", { class: toneOf(change) }, ` ${signed(change)}`));
  }

  #name(category) {
    return this.categories.get(category)?.name ?? `category ${category}`;
  }

  // What the pointer is on.

  #listen(pane) {
    const { canvas } = pane;
    canvas.addEventListener("pointermove", (event) => {
      if (this.#drag) this.#pan(event);
      else this.#hover(pane, event);
    });
    canvas.addEventListener("pointerleave", () => this.#setHovered(null));
    canvas.addEventListener("pointerdown", (event) => {
      if (this.#zoom.scale > 1) {
        this.#drag = { x: event.clientX, y: event.clientY };
        canvas.setPointerCapture(event.pointerId);
      } else this.#hover(pane, event);
    });
    canvas.addEventListener("pointerup", () => { this.#drag = null; });
    canvas.addEventListener("pointercancel", () => { this.#drag = null; });
    canvas.addEventListener("dblclick", () => this.zoomBy(null));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [x, y] = pane.toShare(event);
      this.zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, x, y);
    }, { passive: false });
  }

  /** Zoom about a point, given as a share of the pane; null: all of the image again. */
  zoomBy(factor, x = 0.5, y = 0.5) {
    const { scale, x: left, y: top } = this.#zoom;
    const next = factor === null ? 1 : Math.min(MAX_ZOOM, Math.max(1, scale * factor));
    const keep = (start, at) => start + at / scale - at / next;
    this.#zoom = this.#bounded({ scale: next, x: keep(left, x), y: keep(top, y) });
    this.draw();
  }

  #pan(event) {
    const { clientWidth, clientHeight } = event.target;
    const { scale, x, y } = this.#zoom;
    this.#zoom = this.#bounded({
      scale,
      x: x - (event.clientX - this.#drag.x) / clientWidth / scale,
      y: y - (event.clientY - this.#drag.y) / clientHeight / scale,
    });
    this.#drag = { x: event.clientX, y: event.clientY };
    this.draw();
  }

  #bounded({ scale, x, y }) {
    const inside = (value) => Math.min(Math.max(value, 0), 1 - 1 / scale);
    return { scale, x: inside(x), y: inside(y) };
  }

  #hover(pane, event) {
    if (!this.#answer) return;
    const [x, y] = pane.toImage(event);
    const found = this.#at(pane, x, y);
    this.#setHovered(found);
    if (found) this.#placeTip(event);
  }

  /** Return the smallest mask under a point; a ghost where there is nothing else. */
  #at(pane, x, y) {
    const { height, width, raster_hw: [rows, columns], detections, ground_truth, ghosts } = this.#answer;
    if (x < 0 || y < 0 || x >= width || y >= height) return null;
    const column = Math.floor((x / width) * columns);
    const row = Math.floor((y / height) * rows);
    const smallest = (list, role) => list
      .filter((one) => covers(one.bounds, rows, column, row))
      .sort((a, b) => (a.area_px ?? 0) - (b.area_px ?? 0))
      .map((one) => ({ role, id: one.id }))[0] ?? null;
    if (pane === this.panes.truth) return smallest(ground_truth, "truth");
    const { ghosts: areGhostsShown, layout } = this.state.view;
    return smallest(detections, "detection") ??
      (layout === "over" ? smallest(ground_truth, "truth") : null) ??
      (areGhostsShown ? smallest(ghosts, "ghost") : null);
  }

  #setHovered(hovered) {
    const isSame = hovered?.role === this.#hovered?.role && hovered?.id === this.#hovered?.id;
    this.#hovered = hovered;
    byId("tip").hidden = hovered === null;
    if (isSame) return;
    if (hovered) this.#fillTip(hovered);
    this.#paintHovered();
    this.draw();
    for (const row of byId("table-panel").querySelectorAll("[data-role]"))
      row.classList.toggle("hovered",
        hovered !== null && row.dataset.role === hovered.role && Number(row.dataset.id) === hovered.id);
  }

  #fillTip({ role, id }) {
    const one = this.#find(role, id);
    if (!one) return;
    const { name, color } = this.categories.get(one.category_id) ??
      { name: this.#name(one.category_id), color: "#888888" };
    const facts = [
      one.score === undefined ? "ground truth" : `score ${one.score.toFixed(3)}`,
      one.iou === null || one.iou === undefined ? null : `IoU ${one.iou.toFixed(3)}`,
      one.area_px === undefined ? null : plural(one.area_px, "pixel"),
    ].filter((fact) => fact !== null);
    fill(byId("tip"),
      element("b", {}, swatch(color), name), element("span", {}, facts.join(" · ")),
      one.error ? element("span", { class: "bad" }, one.error) : null,
      one.reason ? element("span", { class: "bad" }, `gone in ${one.step}: ${one.reason}`) : null,
      typeof one.by === "number" ? element("span", {}, `by ${this.#describeCandidate(one.by)}`) : null);
  }

  #describeCandidate(id) {
    const one = this.#find("detection", id) ?? this.#find("ghost", id);
    return one ? `${this.#name(one.category_id)} ${one.score.toFixed(3)}` : `candidate ${id}`;
  }

  #placeTip(event) {
    const tip = byId("tip");
    const frame = byId("panes").getBoundingClientRect();
    const x = event.clientX - frame.left;
    const y = event.clientY - frame.top;
    const left = x + 16 + tip.offsetWidth > frame.width ? x - tip.offsetWidth - 12 : x + 16;
    setVariable(tip, "--left", `${Math.max(0, left)}px`);
    setVariable(tip, "--top", `${Math.max(0, Math.min(y + 16, frame.height - tip.offsetHeight))}px`);
  }

  // The same as a table, for those who do not see the canvas, and for its numbers.

  fillTable() {
    if (!this.#answer || byId("table-panel").hidden) return;
    const { detections, ground_truth, ghosts } = this.#answer;
    const shownGhosts = this.state.view.ghosts ? ghosts : [];
    const missed = ground_truth.filter((one) => one.detection === null || one.detection === undefined);
    const rows = [
      ...detections.map((one) => this.#tableRow("detection", one, one.error ?? "")),
      ...missed.map((one) => this.#tableRow("truth", one, one.error ?? "missed")),
      ...shownGhosts.map((one) => this.#tableRow("ghost", one, `${one.step}: ${one.reason}`)),
    ];
    const columns = [{ name: "Category" }, { name: "Score", number: true }, { name: "IoU", number: true },
      { name: "Pixels", number: true }, { name: "What is wrong" }];
    const made = table("Detections, missed instances and removed candidates of the open image",
      columns, rows.map((row) => row.cells));
    made.querySelectorAll("tbody tr").forEach((node, place) => {
      const { role, id } = rows[place];
      Object.assign(node.dataset, { role, id });
      node.tabIndex = 0;
      for (const name of ["focus", "pointerenter"])
        node.addEventListener(name, () => { this.#setHovered({ role, id }); byId("tip").hidden = true; });
      node.addEventListener("pointerleave", () => this.#setHovered(null));
      node.addEventListener("blur", () => this.#setHovered(null));
    });
    fill(byId("table-panel"), rows.length ? made : element("p", { class: "remark" }, "Nothing is detected."));
  }

  #tableRow(role, one, wrong) {
    const { color = "#888888" } = this.categories.get(one.category_id) ?? {};
    const kind = { detection: "", truth: " (ground truth)", ghost: " (removed)" }[role];
    return {
      role, id: one.id,
      cells: [[swatch(color), `${this.#name(one.category_id)}${kind}`],
        one.score === undefined ? "–" : one.score.toFixed(3), number(one.iou, 3),
        one.area_px === undefined ? "–" : String(one.area_px), wrong],
    };
  }

  /** Return the shown panes beside each other on one canvas. */
  picture() {
    const canvases = Object.values(this.panes).map((pane) => pane.canvas)
      .filter((canvas) => canvas.offsetWidth > 0);
    const whole = element("canvas", {
      width: canvases.reduce((sum, canvas) => sum + canvas.width, 0),
      height: Math.max(...canvases.map((canvas) => canvas.height)),
    });
    const context = whole.getContext("2d");
    let left = 0;
    for (const canvas of canvases) {
      context.drawImage(canvas, left, 0);
      left += canvas.width;
    }
    return whole;
  }
}

/** Return the class that colours a difference. */
export const toneOf = (change) => (Math.abs(change) < 5e-5 ? "even" : change > 0 ? "good" : "bad");

// A pane of the viewer: the image, masks and boxes of one side on a canvas.

import { Layer, textColor } from "./masks.js";

const GHOST_DASH = [4, 3];
const TRUTH_COLOR = "#ffffff"; // of ground truth over the prediction
const LABEL_PX = 12;

export class Pane {
  #size = null; // height, width of the image, and the raster of its masks
  #boxes = []; // {instance, color, isGhost}
  #highlighted = null;

  constructor(figure, categories) {
    this.canvas = figure.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.categories = categories;
  }

  /** Paint masks of an answer: filled ones, dotted ghosts, and outlines of the other side. */
  paint({ height, width, raster_hw: raster }, { areas, ghosts = [], outlines = [], opacity }) {
    this.#size = { height, width };
    this.#makeLayers(raster);
    const { masks } = this.layers;
    masks.clear();
    for (const one of areas) masks.paintArea(one.bounds, this.#color(one), opacity);
    for (const one of ghosts) masks.paintOutline(one.bounds, this.#color(one), { dotted: true });
    for (const one of areas) masks.paintOutline(one.bounds, this.#color(one));
    for (const one of outlines) masks.paintOutline(one.bounds, TRUTH_COLOR);
    masks.finish();
    this.#boxes = [
      ...ghosts.map((instance) => ({ instance, color: this.#color(instance), isGhost: true })),
      ...outlines.map((instance) => ({ instance, color: TRUTH_COLOR, isOther: true })),
      ...areas.map((instance) => ({ instance, color: this.#color(instance) })),
    ];
  }

  #makeLayers([height, width]) {
    const [rows, columns] = this.layers?.masks.size ?? [];
    if (rows !== height || columns !== width)
      this.layers = { masks: new Layer([height, width]), marks: new Layer([height, width]) };
  }

  /** Mark one instance: the one under the pointer, or its partner of the other side; null: none. */
  highlight(instance) {
    this.#highlighted = instance;
    if (!this.layers || !instance) return;
    const { marks } = this.layers;
    marks.clear();
    marks.paintOutline(instance.bounds, TRUTH_COLOR);
    marks.finish();
  }

  /** Draw everything onto the canvas. `zoom` has the scale and the corner, as shares of the image. */
  draw(photo, view, zoom) {
    const { canvas, context } = this;
    if (!this.#size || canvas.offsetParent === null) return;
    const ratio = window.devicePixelRatio || 1;
    const room = canvas.parentElement.getBoundingClientRect();
    const { height, width } = this.#size;
    const fit = Math.min(room.width / width, room.height / height);
    this.#resize(Math.max(1, Math.round(width * fit)), Math.max(1, Math.round(height * fit)), ratio);
    const scale = (canvas.width / width) * zoom.scale;
    this.transform = { scale, x: -zoom.x * width * scale, y: -zoom.y * height * scale };
    context.setTransform(scale, 0, 0, scale, this.transform.x, this.transform.y);
    this.#drawPhoto(photo);
    this.#drawMasks(view);
    context.setTransform(1, 0, 0, 1, 0, 0);
    if (view.boxes || view.ghosts) this.#drawBoxes(view, ratio);
    if (view.labels) this.#drawLabels(ratio);
  }

  #resize(width, height, ratio) {
    const { canvas } = this;
    const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width === columns && canvas.height === rows) return;
    canvas.width = columns;
    canvas.height = rows;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }

  #drawPhoto(photo) {
    const { context } = this;
    const { height, width } = this.#size;
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#3a3c40";
    context.fillRect(0, 0, width, height);
    if (photo) context.drawImage(photo, 0, 0, width, height);
  }

  /** Draw the layers; enlarged ones without smoothing, so that a submitted pixel is a rectangle. */
  #drawMasks({ masks: areShown }) {
    const { context } = this;
    const { height, width } = this.#size;
    const { masks, marks } = this.layers;
    context.imageSmoothingEnabled = width * this.transform.scale < masks.width;
    if (areShown) masks.drawOn(context, width, height);
    if (this.#highlighted) marks.drawOn(context, width, height);
  }

  #drawBoxes(view, ratio) {
    const { context } = this;
    context.lineWidth = 1.5 * ratio;
    for (const { instance, color, isGhost } of this.#boxes) {
      if (!view.boxes && !isGhost) continue;
      context.setLineDash(isGhost ? GHOST_DASH.map((px) => px * ratio) : []);
      context.strokeStyle = color;
      context.globalAlpha = isGhost ? 0.8 : 1;
      const [left, top, right, bottom] = this.#onCanvas(instance.box_xyxy);
      context.strokeRect(left, top, right - left, bottom - top);
    }
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  #drawLabels(ratio) {
    const { context } = this;
    const height = (LABEL_PX + 5) * ratio;
    context.font = `500 ${LABEL_PX * ratio}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    const taken = [];
    for (const { instance, color, isGhost, isOther } of [...this.#boxes].reverse()) {
      if (isOther || isGhost) continue;
      const text = this.#labelOf(instance);
      const [left, top] = this.#onCanvas(instance.box_xyxy);
      const width = context.measureText(text).width + 8 * ratio;
      const place = this.#freePlace(taken, left, top, width, height);
      taken.push(place);
      context.fillStyle = color;
      context.fillRect(place.x, place.y, width, height);
      context.fillStyle = textColor(color);
      context.fillText(text, place.x + 4 * ratio, place.y + height / 2);
    }
  }

  /** Return the place of a label in the canvas: the nearest, below or above, where it covers none. */
  #freePlace(taken, left, top, width, height) {
    const x = Math.max(0, Math.min(left, this.canvas.width - width));
    const lowest = this.canvas.height - height;
    const start = Math.max(0, Math.min(top, lowest));
    const isFree = (y) => y >= 0 && y <= lowest && !taken.some((other) =>
      x < other.x + other.width && other.x < x + width && y < other.y + height && other.y < y + height);
    for (let away = 0; away <= lowest; away += height + 1) {
      const y = [start + away, start - away].find(isFree);
      if (y !== undefined) return { x, y, width };
    }
    return { x, y: start, width };
  }

  #labelOf({ category_id: id, score }) {
    const name = (this.categories.get(id)?.name ?? String(id)).slice(0, 28);
    return score === undefined ? name : `${name} ${score.toFixed(2)}`;
  }

  #color({ category_id: id }) {
    return this.categories.get(id)?.color ?? "#888888";
  }

  #onCanvas(box) {
    const { scale, x, y } = this.transform;
    return box.map((value, place) => value * scale + (place % 2 ? y : x));
  }

  /** Return where a pointer is, as shares of the pane. */
  toShare(event) {
    const frame = this.canvas.getBoundingClientRect();
    return [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
  }

  /** Return where a pointer is, in pixels of the image. */
  toImage(event) {
    const [x, y] = this.toShare(event);
    const { scale, x: left, y: top } = this.transform;
    return [(x * this.canvas.width - left) / scale, (y * this.canvas.height - top) / scale];
  }
}

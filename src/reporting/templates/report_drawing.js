// Drawings of an image as SVG: masks, boxes and labels, in two panes that zoom together.

const LABEL_PX = 11;
const pen = document.createElement("canvas").getContext("2d");
pen.font = `600 ${LABEL_PX}px system-ui, sans-serif`;
const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => placeLabels(target)));
const objectsOf = new WeakMap(); // by drawing

/** Make one side of a drawing: "truth" or "detections". */
function makePane(image, drawing, side) {
  const [width, height] = drawing?.size ?? [4, 3];
  const objects = drawing?.[side] ?? [];
  const noun = side === "truth" ? "ground-truth instance" : "detection";
  const facts = objects.map((one) => `${report.classes[one[0]].label} ${factsOf(one)}`.trim());
  const label = `${image.id}: ${plural(objects.length, noun)}${facts.length ? `: ${facts.join(", ")}` : ""}`;
  const svg = element("svg:svg", {
    class: "drawing", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label.slice(0, 400),
  });
  svg.append(element("svg:rect", { class: "surface", width, height }));
  if (drawing?.jpeg) {
    svg.append(element("svg:image", {
      class: "photo", width, height, preserveAspectRatio: "none",
      href: `data:image/jpeg;base64,${drawing.jpeg}`,
    }));
  }
  const area = ([, , , , [x0, y0, x1, y1]]) => (x1 - x0) * (y1 - y0);
  const ordered = objects.map((one, index) => ({ one, index }))
    .sort((a, b) => area(b.one) - area(a.one));
  for (const { one: [key, , , , , path, isMatched], index } of ordered) {
    svg.append(element("svg:path", {
      class: isMatched ? "shape" : "shape unmatched", d: path, "data-index": index,
      fill: report.classes[key].color, stroke: report.classes[key].color,
    }));
  }
  for (const { one: [key, , , , [x, y, right, bottom]] } of ordered) {
    svg.append(element("svg:rect", {
      class: "box", x, y, width: right - x, height: bottom - y, stroke: report.classes[key].color,
    }));
  }
  svg.append(element("svg:g", { class: "labels" }));
  objectsOf.set(svg, { objects: ordered.map(({ one }) => one).reverse(), width, height, side });
  resized.observe(svg);
  return element("div", { class: `pane ${side}` }, svg);
}

/** Write the labels anew, at a legible size, where none covers another. */
function placeLabels(svg) {
  const { objects, side } = objectsOf.get(svg);
  const [left, top, width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const scale = Math.max(width / svg.clientWidth, height / svg.clientHeight);
  if (!Number.isFinite(scale)) return;
  const taken = [];
  const labels = [];
  const isNamed = report.classes.length > 1;
  for (const one of objects) {
    const { label, color, text: ink } = report.classes[one[0]];
    const facts = side === "truth" ? "" : factsOf(one);
    const text = [isNamed ? label : "", facts].filter(Boolean).join(" ");
    if (!text || !one[5]) continue;
    const w = scale * (pen.measureText(text).width + 8);
    const h = scale * (LABEL_PX + 5);
    const [x0, y0, x1, y1] = one[4];
    const middle = (x0 + x1 - w) / 2;
    const place = [[middle, (y0 + y1 - h) / 2], [x0, y0 - h], [x0, y1], [middle, y0], [x1, y0]]
      .map(([x, y]) => [
        Math.max(left, Math.min(left + width - w, x)), Math.max(top, Math.min(top + height - h, y)),
      ])
      .find(([x, y]) => taken.every(([a, b, c, d]) => x >= a + c || a >= x + w || y >= b + d || b >= y + h));
    if (!place) continue;
    const [x, y] = place;
    taken.push([x, y, w, h]);
    labels.push(element("svg:g", {},
      element("svg:rect", { x, y, width: w, height: h, rx: 3 * scale, fill: color }),
      element("svg:text", {
        x: x + 4 * scale, y: y + h - 4.5 * scale, "font-size": LABEL_PX * scale, fill: ink,
      }, text)));
  }
  svg.querySelector(".labels").replaceChildren(...labels);
}

/** Make both panes of an image. */
function makePanes(image) {
  const drawing = drawingOf(image);
  const sides = report.hasTruth ? ["truth", "detections"] : ["detections"];
  return sides.map((side) => makePane(image, drawing, side));
}

/** A view of some drawings of the same image, moved and enlarged together. */
class Zoom {
  constructor(drawings, onChange) {
    this.drawings = drawings;
    this.onChange = onChange;
    const { width, height } = objectsOf.get(drawings[0]);
    Object.assign(this, { width, height, factor: 1, x: 0, y: 0 });
    for (const svg of drawings) this.#listen(svg);
  }

  /** Enlarge around a point of the image, that of the middle at first. */
  by(factor, x = this.x + this.width / this.factor / 2, y = this.y + this.height / this.factor / 2) {
    const next = Math.max(1, Math.min(32, this.factor * factor));
    this.#set(next, x - (x - this.x) * this.factor / next, y - (y - this.y) * this.factor / next);
  }

  /** Move by shares of what is seen. */
  move(right, down) {
    this.#set(this.factor, this.x + right * this.width / this.factor, this.y + down * this.height / this.factor);
  }

  reset() {
    this.#set(1, 0, 0);
  }

  #set(factor, x, y) {
    this.factor = factor;
    const [width, height] = [this.width / factor, this.height / factor];
    this.x = Math.max(0, Math.min(this.width - width, x));
    this.y = Math.max(0, Math.min(this.height - height, y));
    for (const svg of this.drawings) {
      svg.setAttribute("viewBox", `${this.x} ${this.y} ${width} ${height}`);
      placeLabels(svg);
    }
    this.onChange();
  }

  #listen(svg) {
    const point = (event) => new DOMPoint(event.clientX, event.clientY)
      .matrixTransform(svg.getScreenCTM().inverse());
    svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x, y } = point(event);
      this.by(Math.exp(-event.deltaY / 300), x, y);
    }, { passive: false });
    svg.addEventListener("dblclick", (event) => {
      const { x, y } = point(event);
      this.by(2, x, y);
    });
    let held = null;
    svg.addEventListener("pointerdown", (event) => {
      held = point(event);
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
      if (!held) return;
      const { x, y } = point(event);
      this.#set(this.factor, this.x + held.x - x, this.y + held.y - y);
    });
    for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, () => { held = null; });
  }
}

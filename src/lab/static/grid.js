// The grid of images: filters, orders, and only the rows that are on screen.

import { byId, count, element, fill, number, plural, setVariable, signed } from "./dom.js";
import { toneOf } from "./viewer.js";

const CARD_PX = 112; // smallest width; the row has as many as fit
const GAP_PX = 8;
const CAPTION_PX = 24;
const MARGIN_ROWS = 3; // drawn above and below what is on screen

const ORDERS = {
  worst: (grid) => (a, b) => grid.scoreOf(a, 2) - grid.scoreOf(b, 2),
  best: (grid) => (a, b) => grid.scoreOf(b, -1) - grid.scoreOf(a, -1),
  lost: (grid) => (a, b) => grid.changeOf(a) - grid.changeOf(b),
  gained: (grid) => (a, b) => grid.changeOf(b) - grid.changeOf(a),
};

/** The list of images that pass the filters, in the chosen order, as cards. */
export class Grid {
  #cards = new Map(); // index -> its card, while it is on screen
  #imageErrors = new Map(); // kind -> set of indices
  #columns = 1;

  constructor(state, open) {
    this.state = state;
    this.open = open;
    this.scores = null;
    this.baselineScores = null;
    this.box = byId("grid");
    this.list = this.box.querySelector("ul");
    this.shown = [];
    document.body.classList.toggle("unscored", !state.lab.has_scores);
    this.#fillChoices();
    this.#listen();
    this.refresh();
  }

  scoreOf(index, otherwise) {
    return this.scores?.[index] ?? otherwise;
  }

  changeOf(index) {
    const [now, before] = [this.scores?.[index], this.baselineScores?.[index]];
    return typeof now === "number" && typeof before === "number" ? now - before : 0;
  }

  setScores(scores, baselineScores) {
    this.scores = scores;
    this.baselineScores = baselineScores;
    this.refresh();
  }

  setErrors(imageErrors) {
    this.#imageErrors = new Map(
      Object.entries(imageErrors).map(([kind, indices]) => [kind, new Set(indices)]));
    const kinds = [...this.#imageErrors.keys()];
    this.#fillSelect(byId("filter-error"), "all errors", kinds.map((kind) => [kind, kind]));
    byId("filter-error").value = this.state.view.error ?? "";
    if (this.state.view.error !== null) this.refresh();
  }

  /** Apply filters and order anew. */
  refresh() {
    const { view, lab } = this.state;
    const indices = lab.image_list.map((entry) => entry.index).filter((index) => this.#passes(index));
    const order = ORDERS[view.order];
    this.shown = order ? indices.sort(order(this)) : indices;
    const total = lab.image_list.length;
    byId("shown").textContent = indices.length === total
      ? plural(total, "image") : `${count(indices.length)} of ${plural(total, "image")}`;
    this.#showFilters();
    this.#draw();
  }

  #passes(index) {
    const { category, error, low, high, text } = this.state.view;
    const entry = this.state.lab.image_list[index];
    if (category !== null && !entry.truth_category_ids.includes(category)) return false;
    if (error !== null && !this.#imageErrors.get(error)?.has(index)) return false;
    const score = this.scores?.[index];
    if ((low > 0 || high < 1) && !(score >= low && score <= high)) return false;
    return entry.image_id.toLowerCase().includes(text.toLowerCase());
  }

  #fillChoices() {
    const { lab } = this.state;
    this.#fillSelect(byId("filter-category"), "all categories",
      lab.categories.map(({ id, name }) => [String(id), name]));
    this.#fillSelect(byId("filter-error"), "all errors", []);
  }

  #fillSelect(select, all, entries) {
    fill(select, element("option", { value: "" }, all),
      entries.map(([value, name]) => element("option", { value }, name)));
  }

  #listen() {
    const on = (id, event, change) => byId(id).addEventListener(event, () => {
      this.state.show(change(byId(id).value));
    });
    on("filter-text", "input", (text) => ({ text }));
    on("filter-category", "change", (value) => ({ category: value === "" ? null : Number(value) }));
    on("filter-error", "change", (value) => ({ error: value === "" ? null : value }));
    on("filter-low", "change", (value) => ({ low: share(value, 0) }));
    on("filter-high", "change", (value) => ({ high: share(value, 1) }));
    on("order", "change", (order) => ({ order }));
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("reset", (event) => {
      event.preventDefault();
      this.state.show({ category: null, error: null, low: 0, high: 1, text: "", order: "store" });
    });
    this.box.addEventListener("scroll", () => this.#draw());
    new ResizeObserver(() => this.#draw()).observe(this.box);
    let before = this.state.view;
    this.state.listen((what) => {
      if (what !== "view") return;
      const { view } = this.state;
      const keys = ["category", "error", "low", "high", "text", "order"];
      if (keys.some((key) => view[key] !== before[key])) {
        this.box.scrollTop = 0;
        this.refresh();
      } else if (view.image !== before.image) this.#markOpen();
      before = view;
    });
  }

  #showFilters() {
    const { category, error, low, high, text, order } = this.state.view;
    if (document.activeElement !== byId("filter-text")) byId("filter-text").value = text;
    byId("filter-category").value = category === null ? "" : String(category);
    byId("filter-error").value = error ?? "";
    byId("filter-low").value = low;
    byId("filter-high").value = high;
    byId("order").value = order;
    const isAny = category !== null || error !== null || low > 0 || high < 1 || text || order !== "store";
    byId("filter-reset").hidden = !isAny;
  }

  /** Make the cards of the rows on screen, and drop the others. */
  #draw() {
    const { clientHeight: height, scrollTop } = this.box;
    const width = this.list.clientWidth;
    if (!width) return;
    this.#columns = Math.max(1, Math.floor((width + GAP_PX) / (CARD_PX + GAP_PX)));
    const card = (width - GAP_PX * (this.#columns - 1)) / this.#columns;
    this.rowPx = card + CAPTION_PX + GAP_PX;
    const rows = Math.ceil(this.shown.length / this.#columns);
    const first = Math.max(0, Math.floor(scrollTop / this.rowPx) - MARGIN_ROWS);
    const last = Math.min(rows, Math.ceil((scrollTop + height) / this.rowPx) + MARGIN_ROWS);
    setVariable(this.list, "--columns", this.#columns);
    setVariable(this.list, "--card", `${card}px`);
    setVariable(this.list, "--height", `${rows * this.rowPx}px`);
    setVariable(this.list, "--above", `${first * this.rowPx}px`);
    this.#place(this.shown.slice(first * this.#columns, last * this.#columns), first * this.#columns);
  }

  #place(indices, offset) {
    const cards = new Map(indices.map((index) => [index, this.#cards.get(index) ?? this.#card(index)]));
    indices.forEach((index, place) => {
      const node = cards.get(index);
      node.setAttribute("aria-posinset", offset + place + 1);
      node.setAttribute("aria-setsize", this.shown.length);
      this.#update(node, index);
      if (this.list.children[place] !== node)
        this.list.insertBefore(node, this.list.children[place] ?? null);
    });
    while (this.list.children.length > indices.length) this.list.lastChild.remove();
    this.#cards = cards;
  }

  #card(index) {
    const entry = this.state.lab.image_list[index];
    const frame = element("span", { class: "thumb" });
    if (this.state.lab.images !== null) {
      const image = element("img", { alt: "", decoding: "async", src: `/api/thumbnail?index=${index}&edge=256` });
      image.addEventListener("error", () => image.replaceWith(entry.image_id));
      frame.append(image);
    } else frame.append(entry.image_id);
    const button = element("button", { type: "button", title: entry.image_id, onclick: () => this.open(index) },
      frame, element("span", { class: "caption" }));
    return element("li", {}, button);
  }

  #update(node, index) {
    const button = node.firstChild;
    const entry = this.state.lab.image_list[index];
    const score = this.scores?.[index] ?? null;
    const change = this.baselineScores ? this.changeOf(index) : null;
    const hasChange = change !== null && score !== null;
    fill(button.lastChild,
      this.state.lab.has_scores ? element("b", {}, score === null ? "–" : number(score, 3))
        : plural(entry.num_candidates, "candidate"),
      hasChange ? element("span", { class: toneOf(change) }, signed(change, 3)) : null);
    const told = score === null ? "no score" : `score ${number(score, 3)}`;
    button.setAttribute("aria-label",
      `${entry.image_id}, ${told}${hasChange ? `, ${signed(change, 3)} against the baseline` : ""}`);
    const isOpen = index === this.state.view.image;
    button.setAttribute("aria-current", String(isOpen));
  }

  #markOpen() {
    for (const [index, node] of this.#cards)
      node.firstChild.setAttribute("aria-current", String(index === this.state.view.image));
    this.reveal();
  }

  /** Scroll until the open image is in sight. */
  reveal() {
    const place = this.shown.indexOf(this.state.view.image);
    if (place < 0 || !this.rowPx) return;
    const top = Math.floor(place / this.#columns) * this.rowPx;
    const { scrollTop, clientHeight } = this.box;
    if (top < scrollTop) this.box.scrollTop = top;
    else if (top + this.rowPx > scrollTop + clientHeight)
      this.box.scrollTop = top + this.rowPx - clientHeight;
  }

  /** Return the image that is so many images, or rows, after the open one among those shown. */
  neighbour(steps, { rows = false } = {}) {
    const place = this.shown.indexOf(this.state.view.image);
    if (place < 0) return this.shown[0];
    return this.shown[place + steps * (rows ? this.#columns : 1)];
  }
}

function share(text, otherwise) {
  const value = Number(text);
  return text === "" || !Number.isFinite(value) ? otherwise : Math.min(Math.max(value, 0), 1);
}

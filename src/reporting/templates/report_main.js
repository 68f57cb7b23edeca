// The controls, the cards and the view of one image.

let chosen = [];
let zoom = null;
const viewer = byId("viewer");
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    target.replaceChildren(...makePanes(report.images[target.dataset.image]));
  }
}, { rootMargin: "600px" });

/** Show the images that the state asks for. */
function show() {
  chosen = chosenImages();
  const pages = Math.max(1, Math.ceil(chosen.length / PAGE_SIZE));
  state.page = Math.min(state.page, pages);
  const start = PAGE_SIZE * (state.page - 1);
  seen.disconnect();
  byId("cards").replaceChildren(...chosen.slice(start, start + PAGE_SIZE).map(makeCard));
  byId("count").textContent = chosen.length === report.images.length
    ? plural(chosen.length, "image")
    : `${chosen.length.toLocaleString("en")} of ${plural(report.images.length, "image")}`;
  byId("none").hidden = chosen.length > 0;
  byId("pages").hidden = pages === 1;
  byId("page").textContent = `Page ${state.page} of ${pages}`;
  byId("previous-page").disabled = state.page === 1;
  byId("next-page").disabled = state.page === pages;
  for (const key of ["sort", "category", "error", "low", "high", "name"]) {
    if (byId(key) && byId(key) !== document.activeElement) byId(key).value = state[key];
  }
  const pair = [state.true && `instances of ${nameOf(state.true)}`,
    state.predicted && `detections as ${nameOf(state.predicted)}`].filter(Boolean).join(", ");
  byId("pair").hidden = !pair;
  byId("pair-text").textContent = pair;
  showLayers();
  writeFragment();
}

const nameOf = (id) => report.classes[classAt.get(id)].name;

function makeCard(image) {
  const panes = element("div", { class: "panes", "data-image": report.images.indexOf(image) });
  const [width, height] = [4, 3];
  const sides = report.hasTruth ? ["truth", "detections"] : ["detections"];
  panes.append(...sides.map((side) => element("div", { class: `pane ${side}` },
    element("svg:svg", { class: "drawing", viewBox: `0 0 ${width} ${height}`, "aria-hidden": true }))));
  seen.observe(panes);
  const button = element("button", { type: "button", class: "name" }, image.id);
  button.addEventListener("click", () => openImage(image));
  panes.addEventListener("click", () => openImage(image));
  const value = image.score ?? image.confidence;
  const errors = errorsOf(image);
  const remark = image.problem ?? (image.drawing === NONE ? "no drawing: see the note above" : null);
  return element("li", { class: "card" },
    element("header", {}, element("h3", {}, button), value === null ? null : element("p", {
      class: "value", title: report.hasTruth ? "score of this image" : "mean confidence",
    }, value.toFixed(3))),
    panes,
    element("ul", { class: "legend" }, ...legendOf(image)),
    errors.length ? element("p", { class: "errors-of" }, errors.slice(0, 6).join(" · "),
      errors.length > 6 ? ` and ${errors.length - 6} more` : "") : null,
    remark ? element("p", { class: "remark" }, remark) : null);
}

/** Return the classes of an image with their numbers of detections and of instances. */
function legendOf(image) {
  const counts = new Map();
  for (const [, truth, predicted, , count] of image.pairs) {
    for (const [side, index] of [[1, truth], [0, predicted]]) {
      if (index === NONE) continue;
      if (!counts.has(index)) counts.set(index, [0, 0]);
      counts.get(index)[side] += count;
    }
  }
  return [...counts].map(([index, [predicted, truth]]) => element("li", {},
    swatch(report.classes[index].color), report.classes[index].label, " ",
    element("small", { title: report.hasTruth ? "detections / ground truth" : "detections" },
      report.hasTruth ? `${predicted}/${truth}` : String(predicted))));
}

/** Open the view of one image. */
function openImage(image) {
  state.image = image.id;
  const place = chosen.indexOf(image);
  byId("viewer-title").textContent = image.id;
  byId("viewer-score").textContent = image.score === null ? "" : `score ${image.score.toFixed(3)}`;
  byId("previous").disabled = place <= 0;
  byId("next").disabled = place < 0 || place === chosen.length - 1;
  byId("viewer-panes").replaceChildren(...makePanes(image));
  byId("viewer-remark").textContent = image.problem
    ?? (image.drawing === NONE ? "This image is past the limit of drawings that the page holds." : "");
  byId("objects").replaceChildren(...objectRows(drawingOf(image)));
  byId("viewer-layers").append(byId("layers"));
  if (!viewer.open) viewer.showModal();
  zoom = new Zoom([...viewer.querySelectorAll(".drawing")], () => {
    byId("zoom").textContent = `${Math.round(100 * zoom.factor)}%`;
  });
  zoom.reset();
  writeFragment();
}

/** Return rows of a table of an image's objects; one that is pointed at stands out. */
function objectRows(drawing) {
  const sides = [["detections", "detection"], ["truth", "ground truth"]];
  return sides.flatMap(([side, noun]) => (drawing?.[side] ?? []).map((one, index) => {
    const [key, confidence, iou, kind] = one;
    const button = element("button", { type: "button", class: "name" }, report.classes[key].label);
    const row = element("tr", {},
      element("th", { scope: "row" }, swatch(report.classes[key].color), button),
      element("td", {}, noun),
      element("td", { class: "n" }, confidence === null ? "" : confidence.toFixed(2)),
      element("td", { class: "n" }, iou ? iou.toFixed(2) : ""),
      element("td", {}, kind === NONE ? "" : report.kinds[kind].split(",")[0]));
    const mark = (isOn) => viewer.querySelector(`.pane.${side} .shape[data-index="${index}"]`)
      ?.classList.toggle("hot", isOn);
    for (const name of ["mouseenter", "focusin"]) row.addEventListener(name, () => mark(true));
    for (const name of ["mouseleave", "focusout"]) row.addEventListener(name, () => mark(false));
    return row;
  }));
}

function step(by) {
  const image = chosen[chosen.findIndex(({ id }) => id === state.image) + by];
  if (image) openImage(image);
}

function showLayers() {
  document.body.dataset.hide = state.hide.join(" ");
  for (const box of byId("layers").querySelectorAll("input")) {
    box.checked = !state.hide.includes(box.value);
  }
}

/** Change a filter: its page is the first one. */
function set(values) {
  Object.assign(state, { page: 1, ...values });
  show();
}

/** Follow the fragment: a link of a bar or a class was clicked, or the page was opened with one. */
function follow() {
  const isLink = location.hash.includes("=");
  readFragment();
  show();
  const image = report.images.find(({ id }) => id === state.image);
  if (image) openImage(image);
  else if (viewer.open) viewer.close();
  if (isLink && !image) {
    byId("images").scrollIntoView();
    byId("images-title").focus({ preventScroll: true });
  }
}

for (const key of ["sort", "category", "error"]) {
  byId(key)?.addEventListener("change", ({ target }) => set({ [key]: target.value }));
}
byId("name").addEventListener("input", ({ target }) => set({ name: target.value }));
for (const key of ["low", "high"]) {
  byId(key)?.addEventListener("change", ({ target }) => {
    const value = Number(target.value);
    set({ [key]: target.value === "" || !(value >= 0 && value <= 1) ? START[key] : value });
    target.value = state[key];
  });
}
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("reset").addEventListener("click", () => set({ ...START, hide: state.hide }));
byId("pair").addEventListener("click", () => {
  set({ true: "", predicted: "" });
  byId("images-title").focus({ preventScroll: true });
});
byId("layers").addEventListener("change", ({ target }) => {
  state.hide = LAYERS.filter((one) => (one === target.value ? !target.checked : state.hide.includes(one)));
  showLayers();
  writeFragment();
});
for (const [id, by] of [["previous-page", -1], ["next-page", 1]]) {
  byId(id).addEventListener("click", () => {
    set({ page: state.page + by });
    byId("images").scrollIntoView();
    byId("images-title").focus({ preventScroll: true });
  });
}
for (const [id, act] of [
  ["previous", () => step(-1)], ["next", () => step(1)], ["close", () => viewer.close()],
  ["zoom-in", () => zoom.by(1.5)], ["zoom-out", () => zoom.by(1 / 1.5)], ["zoom", () => zoom.reset()],
]) byId(id).addEventListener("click", act);
viewer.addEventListener("close", () => {
  state.image = "";
  byId("layers-place").append(byId("layers"));
  byId("viewer-panes").replaceChildren();
  writeFragment();
});
viewer.addEventListener("click", ({ target }) => { if (target === viewer) viewer.close(); });
viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {
    "+": () => zoom.by(1.5), "=": () => zoom.by(1.5), "-": () => zoom.by(1 / 1.5), 0: () => zoom.reset(),
    ArrowLeft: () => (zoom.factor > 1 ? zoom.move(-0.2, 0) : step(-1)),
    ArrowRight: () => (zoom.factor > 1 ? zoom.move(0.2, 0) : step(1)),
    ArrowUp: () => zoom.factor > 1 && zoom.move(0, -0.2),
    ArrowDown: () => zoom.factor > 1 && zoom.move(0, 0.2),
    n: () => step(1), p: () => step(-1),
  }[event.key];
  if (!act || (event.key.startsWith("Arrow") && event.target.closest(".scroll") && zoom.factor === 1
    && /Up|Down/.test(event.key))) return;
  event.preventDefault();
  act();
});
addEventListener("hashchange", follow);
byId("explorer").hidden = false;
follow();
document.body.dataset.ready = "true";

// The images of the report: which are shown, and in which order. State lives in the fragment.

const byId = (id) => document.getElementById(id);
const report = JSON.parse(byId("report-data").textContent);
const NONE = -1;
const PAGE_SIZE = 24;
const LAYERS = ["image", "truth", "detections", "masks", "boxes", "labels"];
const START = {
  sort: report.hasTruth ? "worst" : "name",
  category: "", error: "", true: "", predicted: "", low: 0, high: 1, name: "", page: 1, image: "",
  hide: ["boxes"],
};
const classAt = new Map(report.classes.map(({ id }, index) => [id, index]));
const state = { ...START };

/** Make an element; values of attributes that are false or null are left out. */
function element(tag, attributes = {}, ...children) {
  const made = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

const swatch = (color) => element("svg:svg", { class: "swatch", viewBox: "0 0 10 10", "aria-hidden": true },
  element("svg:circle", { cx: 5, cy: 5, r: 5, fill: color }));
const plural = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

/** Take the state from the fragment; what is not legal there has its value at the start. */
function readFragment() {
  Object.assign(state, START);
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key of ["category", "true", "predicted"]) {
    if (classAt.has(given.get(key))) state[key] = given.get(key);
  }
  const sorts = [...byId("sort").options].map(({ value }) => value);
  if (sorts.includes(given.get("sort"))) state.sort = given.get("sort");
  const errors = byId("error") ? [...byId("error").options].map(({ value }) => value) : [];
  if (errors.includes(given.get("error"))) state.error = given.get("error");
  const range = /^([\d.]+)-([\d.]+)$/.exec(given.get(report.hasTruth ? "score" : "confidence") ?? "");
  if (range) [state.low, state.high] = range.slice(1).map((text) => Math.min(1, Number(text) || 0));
  state.name = given.get("name") ?? "";
  state.image = given.get("image") ?? "";
  state.page = Math.max(1, Math.trunc(Number(given.get("page"))) || 1);
  if (given.has("hide")) state.hide = given.get("hide").split(",").filter((one) => LAYERS.includes(one));
}

/** Write the state to the fragment, without a step in the browser's history. */
function writeFragment() {
  const given = new URLSearchParams();
  for (const key of ["category", "error", "true", "predicted", "name", "sort", "page", "image"]) {
    if (state[key] !== START[key]) given.set(key, state[key]);
  }
  if (state.low > 0 || state.high < 1) {
    given.set(report.hasTruth ? "score" : "confidence", `${state.low}-${state.high}`);
  }
  if (String(state.hide) !== String(START.hide)) given.set("hide", state.hide.join(","));
  const text = given.toString().replaceAll("%2C", ",");
  history.replaceState(null, "", `${location.pathname}${location.search}${text ? `#${text}` : ""}`);
}

/** Return a function from an image to the number of its objects that the filter means. */
function objectFilter() {
  const [category, truth, predicted] = [state.category, state.true, state.predicted]
    .map((id) => classAt.get(id) ?? NONE);
  const kinds = report.groups[state.error];
  const [low, high] = [Math.round(20 * state.low), Math.round(20 * state.high)];
  const hasBins = !report.hasTruth && (low > 0 || high < 20);
  const isMeant = ([kind, own, other, bin]) =>
    (category === NONE || own === category || other === category)
    && (truth === NONE || own === truth) && (predicted === NONE || other === predicted)
    && (kinds === undefined || kinds.includes(kind))
    && (!hasBins || (bin >= low && bin < high));
  const isFiltered = category !== NONE || truth !== NONE || predicted !== NONE || kinds || hasBins;
  const isError = ([kind]) => kind !== NONE;
  return (image) => {
    const errors = image.pairs.filter(isError);
    const counted = isFiltered ? image.pairs.filter(isMeant) : report.hasTruth ? errors : image.pairs;
    const isShown = (!isFiltered || counted.length > 0) && (state.error !== "none" || errors.length === 0);
    return isShown ? counted.reduce((sum, pair) => sum + pair[4], 0) : NONE;
  };
}

/** Return the images that the filters leave, in order. */
function chosenImages() {
  const count = objectFilter();
  const wanted = state.name.toLowerCase();
  const isInRange = ({ score }) => !report.hasTruth || (score >= state.low && score <= state.high);
  const found = report.images
    .map((image, place) => ({ image, place, count: isInRange(image) ? count(image) : NONE }))
    .filter((one) => one.count !== NONE && one.image.id.toLowerCase().includes(wanted));
  const confidence = ({ image }, missing) => image.confidence ?? missing;
  const order = {
    worst: (a, b) => a.image.score - b.image.score,
    best: (a, b) => b.image.score - a.image.score,
    most: (a, b) => b.count - a.count,
    fewest: (a, b) => a.count - b.count,
    unsure: (a, b) => confidence(a, 2) - confidence(b, 2),
    confident: (a, b) => confidence(b, -1) - confidence(a, -1),
    name: () => 0,
  }[state.sort];
  return found.sort((a, b) => order(a, b) || a.place - b.place).map(({ image }) => image);
}

/** Return the drawing of an image; it is parsed when it is asked for. Null: it has none. */
function drawingOf(image) {
  return image.drawing === NONE ? null : JSON.parse(byId(`drawing-${image.drawing}`).textContent);
}

/** Name an object's facts, as its label and the table have them. */
function factsOf([, confidence, iou, , , , isMatched]) {
  return [confidence === null ? "" : confidence.toFixed(2), isMatched && iou ? `IoU ${iou.toFixed(2)}` : ""]
    .filter(Boolean).join(" ");
}

/** Return the errors of an image as texts; poor masks are many, so they are counted together. */
function errorsOf(image) {
  const counts = new Map();
  const add = (text, count) => counts.set(text, (counts.get(text) ?? 0) + count);
  let poor = 0;
  for (const [kind, truth, predicted, , count] of image.pairs) {
    if (kind === NONE) continue;
    const name = report.kinds[kind];
    const [own, other] = [truth, predicted].map((index) => report.classes[index]?.label);
    if (name.startsWith("poor mask")) poor += count;
    else add(`${name}: ${name === "wrong class" ? `${own} as ${other}` : own ?? other}`, count);
  }
  const texts = [...counts].sort((a, b) => b[1] - a[1])
    .map(([text, count]) => (count > 1 ? `${text} × ${count}` : text));
  return poor ? [...texts, plural(poor, "poor mask")] : texts;
}

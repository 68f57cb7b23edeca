// The scores: the set's score with its interval, the difference to the baseline, and the tables.

import { curve } from "./charts.js";
import { presetName } from "./controls.js";
import { byId, count, debounced, element, fill, number, plural, signed, swatch, table } from "./dom.js";
import { isEqual } from "./state.js";
import { toneOf } from "./viewer.js";

const SPEAK_AFTER_MS = 800; // of rest: a dragged slider is not read aloud at each position
const COCO_NAMES = {
  map: "AP", map_50: "AP50", map_75: "AP75", map_small: "AP small", map_medium: "AP medium",
  map_large: "AP large",
};

export class Scores {
  constructor(state) {
    this.state = state;
    this.answer = null;
    this.speak = debounced((text) => { byId("spoken").textContent = text; }, SPEAK_AFTER_MS);
    const { lab } = state;
    byId("pin").addEventListener("click", () => this.pin());
    byId("baseline").addEventListener("change", () => this.#takeBaseline());
    byId("in-sample").textContent = lab.has_scores
      ? lab.in_sample_note : "There is no ground truth: nothing is scored.";
    fill(byId("notes"), (lab.notes ?? []).map((note) => element("li", {}, note)));
    byId("notes").parentElement.hidden = !lab.notes?.length;
    this.#showSearched();
    this.showBaselines();
    state.listen((what) => {
      if (what === "settings") this.#showSearched();
    });
  }

  /** Show the cross-validated figure of the search that found these settings, where one did. */
  #showSearched() {
    const { lab, settings } = this.state;
    const preset = lab.presets.find(({ name }) => name === presetName(this.state));
    // the option at the start need not be among the presets: it may come from another folder
    const searched = preset?.searched ?? (isEqual(settings, lab.settings) ? lab.searched : null);
    byId("searched").hidden = !lab.has_scores || !searched;
    if (!searched) return;
    const { gain, verdict, cross_validated: value, name } = searched;
    const facts = [
      typeof value === "number" ? `cross-validated ${number(value)}` : null,
      gain ? `${signed(gain.estimate)} over the winner's settings (${signed(gain.low)} to ` +
        `${signed(gain.high)})` : null,
      verdict,
    ].filter(Boolean);
    fill(byId("searched"), `Search ${name}: `, element("b", {}, facts.join(", ")));
  }

  showBaselines() {
    const { lab, baseline } = this.state;
    const names = lab.presets.map(({ name }) => name);
    const all = names.includes(baseline.name) ? names : [...names, baseline.name];
    fill(byId("baseline"), all.map((name) => element("option", { value: name }, name)));
    byId("baseline").value = baseline.name;
  }

  #takeBaseline() {
    const preset = this.state.lab.presets.find(({ name }) => name === byId("baseline").value);
    if (preset) this.state.pin(preset.name, preset.settings);
  }

  pin() {
    const score = this.answer?.competition_map;
    const name = presetName(this.state) ?? (typeof score === "number" ? `pinned ${number(score)}` : "pinned");
    this.state.pin(name, this.state.settings);
  }

  /** Mark what is shown as that of earlier settings, until the next answer. */
  markStale(isStale) {
    byId("scores").classList.toggle("stale", isStale);
  }

  show(answer) {
    this.answer = answer;
    const { competition_map: score, baseline_map: baseline, difference } = answer;
    byId("score").textContent = number(score);
    byId("score").title = score === null ? "" : String(score);
    byId("score").dataset.value = score ?? "";
    byId("small-score").textContent = number(score, 3);
    byId("timing").textContent = `${Math.round(answer.milliseconds)} ms`;
    byId("interval").classList.toggle("old", score !== null); // until the new one comes
    if (score !== null) this.#showDifference(score, baseline, difference);
    else this.speak(`${plural(answer.num_detections, "detection")}`);
    this.#showCounts(answer);
    this.#showCategories(answer.per_category);
    fill(byId("warnings"), answer.warnings.map((warning) => element("p", { class: "remark bad" }, warning)));
    if (!answer.is_exact)
      byId("warnings").append(element("p", { class: "remark bad" },
        "The store lacks candidates that these settings ask for: the model might give more."));
  }

  #showDifference(score, baseline, difference) {
    fill(byId("difference"), element("b", { class: toneOf(difference) }, signed(difference)),
      element("span", { id: "difference-interval", class: "old" }));
    byId("verdict").textContent = "";
    byId("baseline").title = `Baseline: ${number(baseline)}`;
    const { competition: { thresholds } } = this.state.lab;
    fill(byId("curve"), curve(thresholds, this.answer.per_threshold, this.answer.baseline_per_threshold));
    this.speak(`Score ${number(score)}, ${signed(difference)} against the baseline`);
  }

  /** Show the intervals, which follow the score. */
  showInterval({ interval, difference, probability_better: probability, verdict }) {
    const { confidence } = this.state.lab;
    byId("interval").classList.remove("old");
    byId("interval").textContent = interval === null ? ""
      : `${Math.round(confidence * 100)}% interval ${number(interval.low)} to ${number(interval.high)}`;
    const place = byId("difference-interval");
    if (!difference || !place) return;
    place.classList.remove("old");
    place.textContent = ` ${signed(difference.low)} to ${signed(difference.high)}`;
    const sides = /^[ab] is/.test(verdict) ? " (a: the baseline, b: these settings)" : "";
    fill(byId("verdict"), element("b", {}, verdict), element("small", {}, sides));
    byId("verdict").title = typeof probability === "number"
      ? `These settings are better in ${(probability * 100).toFixed(1)}% of the resamples` : "";
  }

  #showCounts({ num_candidates: candidates, num_detections: detections, taken }) {
    const lines = [["Candidates", count(candidates)],
      ...Object.entries(taken).map(([step, number]) => [step, `−${count(number)}`]),
      ["Detections", count(detections)],
      ["Detections an image", (detections / Math.max(1, this.state.lab.image_list.length)).toFixed(1)]];
    fill(byId("counts"), lines.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  }

  #showCategories(rows) {
    const { lab } = this.state;
    const colors = new Map(lab.categories.map(({ id, color }) => [id, color]));
    const name = ({ id, name: text }) => element("button", {
      type: "button", class: "link", title: `Show images with ${text}`,
      onclick: () => this.state.show({ category: id }),
    }, swatch(colors.get(id) ?? "#888888"), text);
    fill(byId("categories"), table("Scores by category",
      [{ name: "Category" }, { name: "Truth", number: true }, { name: "Det.", number: true },
        { name: "Score", number: true }],
      rows.map((row) => [name(row), count(row.num_ground_truth ?? 0), count(row.num_detections),
        number(row.score, 3)])));
  }

  /** Show what is wrong, and what each kind of error costs. */
  showErrors({ rows, by_category: byCategory, image_errors: imageErrors }) {
    const isPart = (name) => !Object.hasOwn(imageErrors, name); // "poor mask, WHICH": of poor masks
    const kind = (name) => (isPart(name)
      ? element("span", { class: "part" }, name.replace(/^poor mask, /, ""))
      : element("button", {
        type: "button", class: "link", title: `Show images with this error: ${name}`,
        onclick: () => this.state.show({ error: name }),
      }, name));
    const ordered = [...rows.filter((row) => !isPart(row.kind)), ...rows.filter((row) => isPart(row.kind))];
    fill(byId("errors"), table("Errors by kind",
      [{ name: "Kind" }, { name: "Count", number: true }, { name: "Gain if fixed", number: true }],
      ordered.map((row) => [kind(row.kind), count(row.count), signed(row.gain)])));
    const kinds = Object.keys(byCategory[0] ?? {}).filter((key) => key !== "id" && key !== "name");
    fill(byId("errors-by-category"), table("Gain by category if a kind of error were fixed",
      [{ name: "Category" }, ...kinds.map((name) => ({ name, number: true }))],
      byCategory.map((row) => [row.name, ...kinds.map((name) => number(row[name], 3))])));
  }

  /** Show COCO AP as a table, or a text in its place; null: nothing. */
  showCoco(answer) {
    if (answer === null || typeof answer === "string") {
      byId("coco").textContent = answer ?? "";
      return;
    }
    const rows = Object.entries(answer)
      .filter(([, value]) => typeof value === "number" || value === null)
      .map(([key, value]) => [COCO_NAMES[key] ?? key, number(value)]);
    fill(byId("coco"), table("COCO average precision", [{ name: "Metric" }, { name: "Value", number: true }], rows));
  }
}

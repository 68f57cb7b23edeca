// What leaves the page: settings as YAML, the command, the submission, tables and the image.

import { ApiError, post, postJson } from "./api.js";
import { byId, element } from "./dom.js";

export class Out {
  constructor(state, { scores, grid, viewer }) {
    this.state = state;
    this.parts = { scores, grid, viewer };
    const on = (id, act) => byId(id).addEventListener("click", () => this.#try(act));
    byId("out-button").addEventListener("click", () => this.open());
    byId("write-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#try(() => this.#write());
    });
    on("copy", () => this.#copy());
    on("download-submission", () => this.#submission());
    on("download-images", () => this.#images());
    on("download-categories", () => this.#categories());
    on("download-png", () => this.#png());
  }

  open() {
    byId("out-message").textContent = "";
    byId("out").showModal();
    this.#try(async () => {
      const { command } = await postJson("/api/command", { settings: this.state.settings });
      byId("command").value = command;
    });
  }

  async #try(act) {
    try {
      await act();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#say(error.message, true);
    }
  }

  #say(text, isBad = false) {
    byId("out-message").textContent = text;
    byId("out-message").classList.toggle("bad", isBad);
  }

  async #write() {
    const name = byId("write-name").value.trim();
    const { path, command } = await postJson("/api/write_settings", { name, settings: this.state.settings });
    byId("command").value = command;
    this.#say(`Written: ${path}`);
  }

  async #copy() {
    const field = byId("command");
    try {
      await navigator.clipboard.writeText(field.value);
      this.#say("Copied.");
    } catch { // no permission, or a page that is not on this computer
      field.select();
      this.#say("Select and copy the line above.");
    }
  }

  async #submission() {
    this.#say("Writing the submission ...");
    const answer = await post("/api/submission", { settings: this.state.settings });
    const named = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "");
    save(await answer.blob(), named?.[1] ?? "submission.csv");
    this.#say(`Submission: ${answer.headers.get("X-Lab-Validation") ?? "not checked"}.`);
  }

  #images() {
    const { lab } = this.state;
    const { grid } = this.parts;
    const rows = grid.shown.map((index) => {
      const { image_id: name, num_candidates: candidates } = lab.image_list[index];
      const [score, baseline] = [grid.scores?.[index] ?? "", grid.baselineScores?.[index] ?? ""];
      return [name, score, baseline, score === "" || baseline === "" ? "" : score - baseline, candidates];
    });
    saveCsv(["image_id", "score", "baseline", "difference", "num_candidates"], rows, "images.csv");
    this.#say(`${rows.length} images, in the order shown.`);
  }

  #categories() {
    const rows = (this.parts.scores.answer?.per_category ?? []).map((row) =>
      [row.id, row.name, row.images ?? "", row.num_ground_truth ?? "", row.num_detections, row.score ?? ""]);
    saveCsv(["category_id", "name", "images", "num_ground_truth", "num_detections", "score"], rows,
      "categories.csv");
    this.#say(`${rows.length} categories.`);
  }

  async #png() {
    const canvas = this.parts.viewer.picture();
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const name = this.state.lab.image_list[this.state.view.image].image_id;
    save(blob, `${name.replace(/[^\w.-]+/g, "_").replace(/\.\w+$/, "")}.png`);
    this.#say("Saved as it is shown.");
  }
}

function saveCsv(columns, rows, name) {
  const lines = [columns, ...rows].map((row) => row.map(csvCell).join(","));
  save(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }), name);
}

/** Quote where needed. A text that a spreadsheet would run as a formula gets an apostrophe. */
export function csvCell(value) {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

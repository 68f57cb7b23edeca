// Which question is asked when: the open image first, the score after it, what follows the score.

import { Channel } from "./api.js";

const SCORE_EVERY_MS = 300; // while a slider is dragged and the image keeps up with it
const FOLLOW_AFTER_MS = 60; // of rest after a score: its interval, then the errors

/**
 * Ask the server on each change of the state, and hand the answers to those who show them.
 *
 * @param {State} state
 * @param {object} show  functions by name: image, score, interval, errors, coco, refused, accepted,
 *   stale
 */
export class Questions {
  #knownBaseline = null; // the key of the baseline whose scores by image the page has
  #baselineScores = null;
  #lastScore = 0; // when the score was asked last
  #scoreIsDue = false;
  #followTimer = null;
  #cocoOf = null; // the settings whose COCO AP is asked for or shown
  #cocoIsDue = false;

  constructor(state, show) {
    this.state = state;
    this.show = show;
    const channel = (name, take) => new Channel(`/api/${name}`, take.bind(this),
      (error, body) => this.#refuse(error, body));
    this.image = channel("image", this.#takeImage);
    this.score = channel("score", this.#takeScore);
    this.interval = channel("interval", this.#takeInterval);
    this.errors = channel("errors", this.#takeErrors);
    this.coco = new Channel("/api/coco", this.#takeCoco.bind(this),
      (error) => this.show.coco(error.message));
    state.listen((what) => {
      if (what === "settings" || what === "baseline") this.settingsChanged();
    });
  }

  settingsChanged() {
    performance.mark("lab:changed");
    clearTimeout(this.#followTimer);
    this.interval.cancel();
    this.errors.cancel();
    this.#stopCoco();
    this.show.stale(true);
    this.#scoreIsDue = true;
    this.askImage(); // whose answer asks for the score
    if (this.image.isIdle) this.#askScore();
  }

  askImage() {
    const { settings, baseline, view: { image, ghosts } } = this.state;
    if (this.state.lab.image_list.length)
      this.image.send({ settings, baseline: baseline.settings, index: image, ghosts });
  }

  /** Open another image: what is under way for the last one is of no use. */
  imageChanged() {
    this.image.cancel();
    performance.mark("lab:changed");
    this.askImage();
  }

  #askScore() {
    this.#scoreIsDue = false;
    this.#lastScore = performance.now();
    const { settings, baseline } = this.state;
    this.score.send({ settings, baseline: baseline.settings, known_baseline: this.#knownBaseline });
  }

  /** Ask for COCO AP, after the score of these settings: a score would drop an earlier request. */
  askCoco() {
    this.#cocoOf = this.state.settings;
    this.#cocoIsDue = true;
    this.show.coco("Computing ...");
    if (this.score.isIdle && !this.#scoreIsDue) this.#sendCoco();
  }

  #sendCoco() {
    this.#cocoIsDue = false;
    this.coco.send({ settings: this.#cocoOf });
  }

  /** Forget the COCO AP of other settings; with another baseline, it follows the next score. */
  #stopCoco() {
    if (this.#cocoOf === this.state.settings) {
      this.#cocoIsDue ||= !this.coco.isIdle;
    } else {
      this.#cocoOf = null;
      this.#cocoIsDue = false;
      this.show.coco(null);
    }
    this.coco.cancel();
  }

  #isCurrent(body) {
    return body.settings === this.state.settings && body.baseline === this.state.baseline.settings;
  }

  #takeImage(answer, body) {
    if (body.index === this.state.view.image) this.show.image(answer);
    if (this.#isCurrent(body)) measure("lab:image");
    this.#scoreAfterImage();
  }

  /** Ask for the score once the image is up to date, or has kept the score waiting for long. */
  #scoreAfterImage() {
    const isLate = performance.now() - this.#lastScore > SCORE_EVERY_MS;
    if (this.#scoreIsDue && (this.image.isIdle || isLate)) this.#askScore();
  }

  #takeScore(answer, body) {
    if (answer.baseline_per_image) {
      this.#knownBaseline = answer.baseline_key;
      this.#baselineScores = answer.baseline_per_image;
    }
    this.show.score(answer, this.#baselineScores);
    this.show.accepted();
    if (!this.#isCurrent(body)) return;
    measure("lab:score");
    this.show.stale(false);
    clearTimeout(this.#followTimer);
    if (!this.state.lab.has_scores) return;
    const { settings, baseline } = body;
    this.#followTimer = setTimeout(() => this.interval.send({ settings, baseline }), FOLLOW_AFTER_MS);
    if (this.#cocoIsDue) this.#sendCoco();
  }

  #takeInterval(answer, body) {
    if (!this.#isCurrent(body)) return;
    this.show.interval(answer);
    measure("lab:interval");
    this.errors.send({ settings: body.settings });
  }

  #takeErrors(answer, body) {
    if (body.settings === this.state.settings) this.show.errors(answer);
  }

  #takeCoco(answer, body) {
    if (body.settings === this.state.settings) this.show.coco(answer);
  }

  #refuse(error, body) {
    if (body.settings === this.state.settings) {
      this.show.refused(error);
      if (this.#cocoIsDue) this.show.coco(null);
      this.#cocoIsDue = false;
    }
    if (this.#scoreIsDue && this.image.isIdle) this.#askScore();
  }
}

/** Measure the time since the last change of the settings, for benchmarks and developer tools. */
function measure(name) {
  if (performance.getEntriesByName("lab:changed").length) performance.measure(name, "lab:changed");
}

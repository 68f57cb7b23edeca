// Requests to the server. Each kind of question has a channel with one request at a time.

const CLIENT = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) =>
  byte.toString(16).padStart(2, "0")).join("");
let sequence = 0;

/** An answer that says what is wrong; `dropped` where a newer request has taken its place. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
    this.dropped = status === 409;
  }
}

/** The header by which the server knows this page: pages of other sites cannot send it. */
const HEADERS = { "X-Lab": "1" };

async function fetchChecked(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The lab does not answer. Start python -m src.lab again: it offers the last state.", 0);
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new ApiError(told.error ?? `The lab answered ${answer.status}.`, answer.status);
}

export async function getJson(path) {
  return (await fetchChecked(path, { headers: HEADERS })).json();
}

/** Post a JSON object and return the answer as it is. */
export function post(path, body, options = {}) {
  return fetchChecked(path, {
    method: "POST",
    headers: { ...HEADERS, "Content-Type": "application/json" },
    body: JSON.stringify(body),
    ...options,
  });
}

export async function postJson(path, body, options) {
  return (await post(path, body, options)).json();
}

/**
 * A kind of question of which only the newest matters. While one is under way, the next waits, and
 * a newer one takes the place of the one that waits: a dragged slider asks as often as the server
 * answers, and the last position is always asked.
 */
export class Channel {
  #controller = null;
  #waiting = null;

  /**
   * @param {string} path
   * @param {(answer: object, body: object) => void} onAnswer
   * @param {(error: ApiError, body: object) => void} onError
   */
  constructor(path, onAnswer, onError) {
    this.path = path;
    this.onAnswer = onAnswer;
    this.onError = onError;
  }

  get isIdle() {
    return this.#controller === null;
  }

  send(body) {
    if (this.#controller) this.#waiting = body;
    else this.#run(body);
  }

  /** Forget what is under way: its answer is of no use any more. */
  cancel() {
    this.#waiting = null;
    this.#controller?.abort();
    this.#controller = null;
  }

  async #run(body) {
    const controller = new AbortController();
    this.#controller = controller;
    sequence += 1;
    try {
      const numbered = { ...body, client: CLIENT, sequence };
      const answer = await postJson(this.path, numbered, { signal: controller.signal });
      if (!controller.signal.aborted) this.#finish(() => this.onAnswer(answer, body));
    } catch (error) {
      if (controller.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.#finish(() => error.dropped || this.onError(error, body));
    }
  }

  #finish(deliver) {
    this.#controller = null;
    const next = this.#waiting;
    this.#waiting = null;
    if (next) this.#run(next);
    deliver();
  }
}

/** Number a request that is not in a channel, as the rows of a sweep. */
export function numbered(body) {
  sequence += 1;
  return { ...body, client: CLIENT, sequence };
}

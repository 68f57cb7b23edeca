// Run-length masks, as the submission has them: "start length start length ...", starts counted
// from 1, pixels numbered column by column. See src/rle/.

/**
 * Parse a mask's text.
 * @returns {Int32Array} begin and end (exclusive) of each run by turns, counted from 0
 */
export function parseRle(text) {
  const numbers = text.trim() === "" ? [] : text.trim().split(/\s+/);
  const bounds = new Int32Array(numbers.length);
  for (let place = 0; place + 1 < numbers.length; place += 2) {
    bounds[place] = Number(numbers[place]) - 1;
    bounds[place + 1] = bounds[place] + Number(numbers[place + 1]);
  }
  return bounds;
}

/** Decode a mask to bytes of 0 and 1, row by row as a canvas has them. */
export function decode(bounds, [height, width]) {
  const pixels = new Uint8Array(height * width);
  forEachColumn(bounds, height, (x, top, bottom) => {
    for (let y = top; y < bottom; y += 1) pixels[y * width + x] = 1;
  });
  return pixels;
}

/** Whether a mask has the pixel in column x and row y. */
export function covers(bounds, height, x, y) {
  const place = x * height + y;
  let low = 0;
  let high = bounds.length / 2;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bounds[2 * middle + 1] <= place) low = middle + 1;
    else high = middle;
  }
  return 2 * low < bounds.length && bounds[2 * low] <= place;
}

const MAX_PIXELS = 1 << 22; // of a layer; of a larger raster every second pixel is drawn, or third

/**
 * A transparent picture on the raster of the masks, into which masks are painted. Its canvas is
 * transposed: pixels lie in memory column by column, as runs have them, so that a run is painted by
 * one fill. `drawOn` turns it round.
 */
export class Layer {
  constructor([height, width]) {
    this.size = [height, width];
    this.stride = Math.ceil(Math.sqrt((height * width) / MAX_PIXELS));
    this.height = Math.ceil(height / this.stride);
    this.width = Math.ceil(width / this.stride);
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.height;
    this.canvas.height = this.width;
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(this.height, this.width);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.inside = new Uint8Array((this.width + 2) * this.height); // a column of margin at both ends
  }

  clear() {
    this.pixels.fill(0);
  }

  /** Put the painted pixels onto the canvas. */
  finish() {
    this.context.putImageData(this.image, 0, 0);
  }

  /** Draw the layer on a context, so many pixels wide and high. */
  drawOn(context, width, height) {
    context.save();
    context.transform(0, 1, 1, 0, 0, 0);
    context.drawImage(this.canvas, 0, 0, height, width);
    context.restore();
  }

  /** Paint a mask's pixels, in place of those that are there. */
  paintArea(bounds, color, opacity = 1) {
    const value = packed(color, opacity);
    const runs = this.#reduced(bounds);
    for (let run = 0; run < runs.length; run += 2) this.pixels.fill(value, runs[run], runs[run + 1]);
  }

  /** Paint the pixels of a mask that touch one outside it; with gaps where dotted. */
  paintOutline(bounds, color, { dotted = false } = {}) {
    const { inside, pixels, height } = this;
    const value = packed(color, 1);
    const runs = this.#reduced(bounds);
    this.#mark(runs, 1);
    const paint = (place) => { if (!dotted || place % 6 < 3) pixels[place] = value; };
    for (let run = 0; run < runs.length; run += 2) {
      const [begin, end] = [runs[run], runs[run + 1]];
      for (let place = begin; place < end; place += 1) // the columns to the left and to the right
        if (inside[place] === 0 || inside[place + 2 * height] === 0) paint(place);
      paint(begin);
      paint(end - 1);
      for (let top = Math.ceil((begin + 1) / height) * height; top < end; top += height) {
        paint(top - 1); // a run that goes on in the next column touches the border of the image
        paint(top);
      }
    }
    this.#mark(runs, 0);
  }

  /** Note where a mask is; `inside` begins a column before the image. */
  #mark(runs, value) {
    for (let run = 0; run < runs.length; run += 2)
      this.inside.fill(value, runs[run] + this.height, runs[run + 1] + this.height);
  }

  /** Return the runs of every second (or third ...) pixel of every second column. */
  #reduced(bounds) {
    const { stride, height } = this;
    if (stride === 1) return bounds;
    const runs = [];
    forEachColumn(bounds, this.size[0], (x, top, bottom) => {
      if (x % stride) return;
      const [begin, end] = [Math.ceil(top / stride), Math.ceil(bottom / stride)];
      if (begin < end) runs.push((x / stride) * height + begin, (x / stride) * height + end);
    });
    return runs;
  }
}

/** Cut runs at the ends of columns: `visit(x, top, bottom)`. */
function forEachColumn(bounds, height, visit) {
  for (let run = 0; run < bounds.length; run += 2) {
    for (let begin = bounds[run]; begin < bounds[run + 1];) {
      const x = Math.floor(begin / height);
      const end = Math.min(bounds[run + 1], (x + 1) * height);
      visit(x, begin - x * height, end - x * height);
      begin = end;
    }
  }
}

/** Return "#rrggbb" as the canvas keeps it in memory. */
function packed(color, opacity) {
  const bytes = new Uint8ClampedArray([...channels(color), Math.round(255 * opacity)]);
  return new Uint32Array(bytes.buffer)[0];
}

export const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

/** Return near-black or white, whichever contrasts more with a colour (WCAG, relative luminance). */
export function textColor(color) {
  const [red, green, blue] = channels(color).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return (luminance + 0.05) ** 2 > 1.05 * 0.056 ? "#141414" : "#ffffff";
}

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
  forEachPixel(bounds, height, (x, y) => { pixels[y * width + x] = 1; });
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

function forEachPixel(bounds, height, visit) {
  for (let run = 0; run < bounds.length; run += 2) {
    let x = Math.floor(bounds[run] / height);
    let y = bounds[run] - x * height;
    for (let left = bounds[run + 1] - bounds[run]; left > 0; left -= 1) {
      visit(x, y);
      y += 1;
      if (y === height) { y = 0; x += 1; }
    }
  }
}

const MAX_PIXELS = 1 << 22; // of a layer; a larger raster is drawn with every second pixel, or third

/** A transparent picture on the raster of the masks, into which masks are painted. */
export class Layer {
  constructor([height, width]) {
    this.height = height;
    this.width = width;
    this.stride = Math.ceil(Math.sqrt((height * width) / MAX_PIXELS));
    this.canvas = document.createElement("canvas");
    this.canvas.width = Math.ceil(width / this.stride);
    this.canvas.height = Math.ceil(height / this.stride);
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.inside = new Uint8Array(height * width); // of the mask that is painted, by column
  }

  clear() {
    this.pixels.fill(0);
  }

  /** Put the painted pixels onto the canvas. */
  finish() {
    this.context.putImageData(this.image, 0, 0);
  }

  /** Paint a mask's pixels, over those that are there. */
  paintArea(bounds, color) {
    const value = packed(color);
    this.#visit(bounds, (place) => { this.pixels[place] = value; });
  }

  /** Paint the pixels of a mask that touch one outside it; every second pair where dotted. */
  paintOutline(bounds, color, { dotted = false } = {}) {
    const value = packed(color);
    const { inside, height } = this;
    const last = this.width * height - height;
    this.#mark(bounds, 1);
    this.#visit(bounds, (place, position, x, y) => {
      const isInner = y > 0 && y < height - 1 && position >= height && position < last &&
        inside[position - 1] && inside[position + 1] &&
        inside[position - height] && inside[position + height];
      if (!isInner && !(dotted && (x + y) % 6 > 2)) this.pixels[place] = value;
    });
    this.#mark(bounds, 0);
  }

  #mark(bounds, value) {
    for (let run = 0; run < bounds.length; run += 2)
      this.inside.fill(value, bounds[run], bounds[run + 1]);
  }

  #visit(bounds, paint) {
    const { height, stride } = this;
    const columns = this.canvas.width;
    for (let run = 0; run < bounds.length; run += 2) {
      let x = Math.floor(bounds[run] / height);
      let y = bounds[run] - x * height;
      for (let position = bounds[run]; position < bounds[run + 1]; position += 1) {
        if (stride === 1) paint(y * columns + x, position, x, y);
        else if (x % stride === 0 && y % stride === 0)
          paint((y / stride) * columns + x / stride, position, x, y);
        y += 1;
        if (y === height) { y = 0; x += 1; }
      }
    }
  }
}

const PACKED = new Map(); // colours as the canvas keeps them in memory, by "#rrggbb"

function packed(color) {
  if (!PACKED.has(color)) {
    const bytes = new Uint8ClampedArray([...channels(color), 255]);
    PACKED.set(color, new Uint32Array(bytes.buffer)[0]);
  }
  return PACKED.get(color);
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

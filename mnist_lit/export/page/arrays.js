// Grey pixels, `{ width, height, data }`, and what is done to them anywhere. As OpenCV does it,
// because a network is to see here what it sees in Python.

export function grey(width, height, data = new Float32Array(width * height)) {
  return { width, height, data };
}

/** As Python does it: halves to the even number. */
export function round(value) {
  const nearest = Math.round(value);
  return nearest - value === 0.5 && nearest % 2 ? nearest - 1 : nearest;
}

/** The value that a share of all values does not exceed. */
export function quantile(values, share) {
  return Float32Array.from(values).sort()[round(share * (values.length - 1))];
}

// Loops, here and below, because the typed arrays' own `map` and `reduce` take several times as long.

/** @param change from a value and its place to another value. */
export function map({ width, height, data }, change) {
  const changed = grey(width, height);
  for (let i = 0; i < data.length; i++) changed.data[i] = change(data[i], i);
  return changed;
}

export function largest(values, least = 0) {
  let most = least;
  for (let i = 0; i < values.length; i++) if (values[i] > most) most = values[i];
  return most;
}

/** A part; what lies outside is paper. */
export function crop(pixels, left, top, width, height) {
  const part = grey(width, height);
  const [from, to] = [Math.max(0, -left), Math.min(width, pixels.width - left)];
  for (let y = Math.max(0, -top); y < Math.min(height, pixels.height - top); y++) {
    const start = (top + y) * pixels.width + left;
    part.data.set(pixels.data.subarray(start + from, start + to), y * width + from);
  }
  return part;
}

export const withMargin = (pixels, margin) =>
  crop(pixels, -margin, -margin, pixels.width + 2 * margin, pixels.height + 2 * margin);

/** The box around what is more than so much ink; null: nothing is. */
export function boxOf({ width, height, data }, least) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!(data[y * width + x] > least)) continue;
      left = Math.min(left, x);
      right = Math.max(right, x + 1);
      top = Math.min(top, y);
      bottom = y + 1;
    }
  }
  return right ? [left, top, right, bottom] : null;
}

/**
 * Do to each row, and then to each column, what makes others of its values.
 *
 * @param change `(from, start, step, count, to, first, length)`: from `count` values, of which the
 *   first is at `start` and the next a `step` further, to `length` others, at `first` and so on.
 */
function separably(pixels, width, height, change) {
  const wide = grey(width, pixels.height);
  for (let y = 0; y < pixels.height; y++) {
    change(pixels.data, y * pixels.width, 1, pixels.width, wide.data, y * width, width);
  }
  const both = grey(width, height);
  for (let x = 0; x < width; x++) {
    change(wide.data, x, width, pixels.height, both.data, x, height);
  }
  return both;
}

/** The largest value within a square of 2 * reach + 1 pixels. */
export function dilate(pixels, reach) {
  return separably(pixels, pixels.width, pixels.height, (from, start, step, count, to, first) => {
    const falling = []; // places of what may yet be the largest, which is the first
    for (let i = 0; i < count + reach; i++) {
      if (i < count) {
        const value = from[start + i * step];
        while (falling.length && from[start + falling.at(-1) * step] <= value) falling.pop();
        falling.push(i);
      }
      if (falling[0] < i - 2 * reach) falling.shift();
      if (i >= reach) to[first + (i - reach) * step] = from[start + falling[0] * step];
    }
  });
}

/** The mean within a square of 2 * reach + 1 pixels; beyond the rim are the mirrored ones. */
export function blur(pixels, reach) {
  return separably(pixels, pixels.width, pixels.height, (from, start, step, count, to, first) => {
    const at = (i) => from[start + mirrored(i, count) * step];
    let sum = 0;
    for (let i = -reach; i <= reach; i++) sum += at(i);
    for (let i = 0; i < count; i++) {
      to[first + i * step] = sum / (2 * reach + 1);
      sum += at(i + reach + 1) - at(i - reach);
    }
  });
}

function mirrored(i, count) {
  if (count === 1) return 0;
  const period = 2 * (count - 1);
  const place = ((i % period) + period) % period;
  return Math.min(place, period - place);
}

/** A factor as large, at least one pixel: by areas, or, if it grows, by cubic splines. */
export function scaled(pixels, scale) {
  const width = Math.max(1, round(pixels.width * scale));
  const height = Math.max(1, round(pixels.height * scale));
  return separably(pixels, width, height, scale > 1 ? byCubics : byAreas);
}

function byAreas(from, start, step, count, to, first, length) {
  const size = count / length;
  for (let i = 0; i < length; i++) {
    const end = Math.min(count, (i + 1) * size);
    let sum = 0;
    for (let j = Math.floor(i * size); j < end; j++) {
      sum += from[start + j * step] * (Math.min(end, j + 1) - Math.max(i * size, j));
    }
    to[first + i * step] = sum / (end - i * size);
  }
}

function byCubics(from, start, step, count, to, first, length) {
  const size = count / length;
  for (let i = 0; i < length; i++) {
    const place = (i + 0.5) * size - 0.5;
    let sum = 0;
    for (let j = Math.floor(place) - 1; j <= Math.floor(place) + 2; j++) {
      const inside = Math.min(Math.max(j, 0), count - 1);
      sum += from[start + inside * step] * cubic(Math.abs(place - j));
    }
    to[first + i * step] = sum;
  }
}

/** Keys, "Cubic convolution interpolation" (1981), with OpenCV's a = -0.75. */
function cubic(x) {
  if (x < 1) return (1.25 * x - 2.25) * x * x + 1;
  return -0.75 * (((x - 5) * x + 8) * x - 4);
}

// Borgefors, "Distance transformations in digital images" (1986), in OpenCV's units: pixels.
const DIAGONAL = 1.4;
const KNIGHTS_MOVE = 2.1969;

/** How far each pixel is from the next one that is 0. */
export function distances({ width, height, data }) {
  const rim = 2; // that steps may reach
  const wide = width + 2 * rim;
  const found = grey(wide, height + 2 * rim);
  found.data.fill(width + height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!data[y * width + x]) found.data[(y + rim) * wide + x + rim] = 0;
    }
  }
  for (let y = 0; y < height; y++) {
    const row = (y + rim) * wide + rim;
    for (let x = 0; x < width; x++) spread(found.data, row + x, -1, -wide);
  }
  for (let y = height - 1; y >= 0; y--) {
    const row = (y + rim) * wide + rim;
    for (let x = width - 1; x >= 0; x--) spread(found.data, row + x, 1, wide);
  }
  return crop(found, rim, rim, width, height);
}

/** Take over what is nearer by the way over a pixel that was visited before. */
function spread(found, place, back, up) {
  let least = found[place];
  if (!least) return;
  least = Math.min(least, Math.min(found[place + back], found[place + up]) + 1);
  const diagonal = Math.min(found[place + up + back], found[place + up - back]);
  const level = Math.min(found[place + up + 2 * back], found[place + up - 2 * back]);
  const steep = Math.min(found[place + 2 * up + back], found[place + 2 * up - back]);
  found[place] = Math.min(least, diagonal + DIAGONAL, Math.min(level, steep) + KNIGHTS_MOVE);
}

// Grey pixels, `{ width, height, data }`, and operations on them that several modules need.
// Everywhere, names in capitals that no module declares are constants of the Python modules.

export function grey(width, height, data = new Float32Array(width * height)) {
  return { width, height, data };
}

/** Round halves to the even number, as Python does. */
export function round(value) {
  const nearest = Math.round(value);
  return nearest - value === 0.5 && nearest % 2 ? nearest - 1 : nearest;
}

/** Return a quantile without interpolation. */
export function quantile(values, share) {
  return Float32Array.from(values).sort()[round(share * (values.length - 1))];
}

export function median(values) {
  const sorted = Float32Array.from(values).sort();
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// Loops, here and below, because the typed arrays' own `map` and `reduce` take several times as long.

/** @param change maps a value and its index to another value. */
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

/** Cut out a part; beyond the picture it is 0. */
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

/** Return the bounding box of the values above a limit; null if there are none. */
export function boxOf({ width, height, data }, limit) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!(data[y * width + x] > limit)) continue;
      left = Math.min(left, x);
      right = Math.max(right, x + 1);
      top = Math.min(top, y);
      bottom = y + 1;
    }
  }
  return right ? [left, top, right, bottom] : null;
}

// Resize and blur as OpenCV does, so that the page reads as Python does.

import { grey, round } from "./arrays.js";

/** Resize by a factor, to one pixel at least. */
export function scaled(pixels, scale, method) {
  const width = Math.max(1, round(pixels.width * scale));
  return resized(pixels, width, Math.max(1, round(pixels.height * scale)), method);
}

/** Reduce a picture so that its longer side has at most so many pixels. */
export const reduced = (pixels, longest, method) =>
  scaled(pixels, Math.min(1, longest / Math.max(pixels.width, pixels.height)), method);

export function resized(pixels, width, height, method) {
  if (width === pixels.width && height === pixels.height) return pixels;
  return resampled(pixels, tapsOf(pixels.width, width, method), tapsOf(pixels.height, height, method));
}

export function blurred(pixels, sigma) {
  const reach = (round(8 * sigma + 1) | 1) >> 1;
  const places = Array.from({ length: 2 * reach + 1 }, (_, i) => i - reach);
  const kernel = places.map((x) => Math.exp(-(x ** 2) / (2 * sigma ** 2)));
  const total = kernel.reduce((sum, weight) => sum + weight);
  const gaussian = (i, size, count) =>
    places.map((x, j) => [mirrored(i + x, count), kernel[j] / total]);
  const [across, down] = [pixels.width, pixels.height].map((side) => tapsOf(side, side, gaussian));
  return resampled(pixels, across, down);
}

/** Return the place inside that the mirrored pixel beyond the rim has. */
export function mirrored(i, count) {
  if (count === 1) return 0;
  const period = 2 * (count - 1);
  const place = ((i % period) + period) % period;
  return Math.min(place, period - place);
}

/** Return the place inside that is nearest to a pixel, also to one beyond the rim. */
export const placeInside = (place, count) => Math.min(Math.max(place, 0), count - 1);

// Methods: from the index of a new pixel, how many old ones it takes, and how many old ones there
// are along the axis, to pairs of an old pixel's index and its weight.

export const nearest = (i, size, count) => [[Math.min(Math.floor(i * size), count - 1), 1]];

export function byAreas(i, size, count) {
  const [start, end] = [i * size, Math.min(count, (i + 1) * size)];
  const taps = [];
  for (let j = Math.floor(start); j < end; j++) {
    taps.push([j, (Math.min(end, j + 1) - Math.max(start, j)) / (end - start)]);
  }
  return taps;
}

export const linear = (i, size, count) => around(i, size, count, 1, (x) => 1 - x);

/** Source: Keys, "Cubic convolution interpolation" (1981), with OpenCV's a = -0.75. */
export const cubic = (i, size, count) =>
  around(i, size, count, 2, (x) =>
    x < 1 ? (1.25 * x - 2.25) * x * x + 1 : -0.75 * (((x - 5) * x + 8) * x - 4),
  );

function around(i, size, count, reach, weightAt) {
  const place = (i + 0.5) * size - 0.5;
  const first = Math.floor(place) - reach + 1;
  return Array.from({ length: 2 * reach }, (_, j) => [
    placeInside(first + j, count),
    weightAt(Math.abs(place - first - j)),
  ]);
}

/** Return what `method` says for all pixels of an axis: those of pixel i begin at `starts[i]`. */
function tapsOf(count, length, method) {
  const taps = Array.from({ length }, (_, i) => method(i, count / length, count));
  const starts = new Int32Array(length + 1);
  taps.forEach((some, i) => (starts[i + 1] = starts[i] + some.length));
  const places = Int32Array.from(taps.flat(), ([place]) => place);
  const weights = Float64Array.from(taps.flat(), ([, weight]) => weight);
  return { length, starts, places, weights };
}

function resampled({ width, height, data }, across, down) {
  const wide = grey(across.length, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < across.length; x++) {
      let sum = 0;
      for (let tap = across.starts[x]; tap < across.starts[x + 1]; tap++) {
        sum += across.weights[tap] * data[y * width + across.places[tap]];
      }
      wide.data[y * across.length + x] = sum;
    }
  }
  const out = grey(across.length, down.length);
  const sums = new Float64Array(across.length);
  for (let y = 0; y < down.length; y++) {
    sums.fill(0);
    for (let tap = down.starts[y]; tap < down.starts[y + 1]; tap++) {
      const [weight, row] = [down.weights[tap], down.places[tap] * across.length];
      for (let x = 0; x < sums.length; x++) sums[x] += weight * wide.data[row + x];
    }
    out.data.set(sums, y * across.length);
  }
  return out;
}

// One digit, prepared as the images of MNIST were: what pictures/preparation.py does.

import { boxOf, crop, distances, largest, map, round, scaled, withMargin } from "./arrays.js";

export const FRAME = 28; // an MNIST image, of which ...
export const FIT = 20; // ... a digit's longest side takes this much
const THINNEST = 0.09; // strokes, as a share of the longest side
const THICKEST = 0.22;
const EDGE = 0.3; // ink that a digit's longest side reaches to; its faint ends are part of it
const MIN_SIZE = 60; // pixels along the longest side; of less, strokes cannot be measured
const MAX_SIZE = 320; // ... and a larger digit has no more to tell

const clipped = (value) => Math.min(1, Math.max(0, value));

/** Fit the ink in a box into the frame, FRAME x FRAME; null for a blob, which no pen has drawn. */
export function prepare(ink, [left, top, right, bottom]) {
  const size = Math.max(right - left, bottom - top);
  // If it is as large as it should be, resampling would only blur it.
  if (FIT - 2 <= size && size <= FIT) return centred(ink);
  const large = sized(ink, MIN_SIZE, MAX_SIZE);
  const solid = boxOf(large, 0.5);
  if (!solid) return null;
  const depth = depthOf(large);
  const longest = Math.max(solid[2] - solid[0], solid[3] - solid[1]);
  if (2 * largest(depth.data) > 0.7 * longest) return null;
  const usual = withUsualStrokes(large, depth, longest);
  const box = boxOf(usual, EDGE);
  if (!box) return null;
  return centred(sized(crop(usual, box[0], box[1], box[2] - box[0], box[3] - box[1]), FIT, FIT));
}

/** Scale ink so that its longest side, in pixels, is `least` to `most`. */
function sized(ink, least, most) {
  const longest = Math.max(ink.width, ink.height);
  const scale = Math.min(Math.max(longest, least), most) / longest;
  if (scale === 1) return ink;
  return scale < 1 ? scaled(ink, scale) : map(scaled(ink, scale), clipped);
}

/** How far inside the ink each pixel is, in pixels. */
function depthOf(ink) {
  const solid = map(ink, (value) => (value > 0.5 ? 1 : 0));
  return crop(distances(withMargin(solid, 1)), 1, 1, ink.width, ink.height);
}

/** Thicken what a hair has drawn and thin what a brush has, to strokes as MNIST has them. */
function withUsualStrokes(ink, depth, longest) {
  const thickness = Math.max(1, 4 * meanInside(depth.data) - 2);
  // The longest side changes with the strokes: both are at their limit together.
  if (thickness < THINNEST * longest) {
    const add = (THINNEST * longest - thickness) / (1 - THINNEST) / 2;
    const padded = withMargin(ink, Math.floor(add) + 2);
    const outside = distances(map(padded, (value) => (value > 0.5 ? 0 : 1)));
    return map(outside, (value) => clipped(add + 1 - value));
  }
  if (thickness > THICKEST * longest) {
    const wanted = (thickness - THICKEST * longest) / (1 - THICKEST) / 2;
    const remove = Math.min(wanted, largest(depth.data) / 2);
    return map(depth, (value) => clipped(value - remove));
  }
  return ink;
}

function meanInside(depths) {
  let [sum, count] = [0, 0];
  for (let i = 0; i < depths.length; i++) {
    sum += depths[i];
    if (depths[i] > 0) count += 1;
  }
  return sum / count;
}

/** Put ink into the frame, its centre of mass as near to pixel 14, 14 as whole pixels allow. */
function centred(ink) {
  let [total, down, right] = [0, 0, 0];
  for (let y = 0; y < ink.height; y++) {
    for (let x = 0; x < ink.width; x++) {
      const value = ink.data[y * ink.width + x];
      total += value;
      down += value * y;
      right += value * x;
    }
  }
  total = Math.max(total, 1e-6);
  const [top, left] = [down, right].map((sum) => round(sum / total - FRAME / 2));
  return crop(ink, left, top, FRAME, FRAME);
}

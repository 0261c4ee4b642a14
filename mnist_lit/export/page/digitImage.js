// One digit, prepared as the images of MNIST were: what reading/digit_image.py does.

import { boxOf, crop, grey, largest, map, round, withMargin } from "./arrays.js";
import { byAreas, cubic, scaled } from "./resize.js";

const clipped = (value) => Math.min(1, Math.max(0, value));

/** Fit the ink in a box into a frame of 28 pixels; null for a blob, which no pen has drawn. */
export function fitIntoFrame(ink, [left, top, right, bottom]) {
  const size = Math.max(right - left, bottom - top);
  // At the right size already, resampling would only blur it.
  if (DIGIT_BOX_PX - 2 <= size && size <= DIGIT_BOX_PX) return centred(ink);
  const large = sized(ink, MIN_SIZE, MAX_SIZE);
  const solid = boxOf(large, 0.5);
  if (!solid) return null;
  const depth = depthOf(large);
  const longest = Math.max(solid[2] - solid[0], solid[3] - solid[1]);
  if (2 * largest(depth.data) > 0.7 * longest) return null;
  const usual = withUsualStrokes(large, depth, longest);
  const box = boxOf(usual, EDGE);
  if (!box) return null;
  const [x, y] = box;
  return centred(sized(crop(usual, x, y, box[2] - x, box[3] - y), DIGIT_BOX_PX, DIGIT_BOX_PX));
}

/** Scale ink so that its longer side has `least` to `most` pixels. */
function sized(ink, least, most) {
  const longest = Math.max(ink.width, ink.height);
  const scale = Math.min(Math.max(longest, least), most) / longest;
  if (scale === 1) return ink;
  return scale < 1 ? scaled(ink, scale, byAreas) : map(scaled(ink, scale, cubic), clipped);
}

/** Return the distance of each pixel from the paper, in pixels. */
function depthOf(ink) {
  const solid = map(ink, (value) => (value > 0.5 ? 1 : 0));
  return crop(distances(withMargin(solid, 1)), 1, 1, ink.width, ink.height);
}

/** Thicken or thin strokes to the widths that MNIST has. */
function withUsualStrokes(ink, depth, longest) {
  const thickness = Math.max(1, 4 * meanInside(depth.data) - 2);
  // The longer side changes with the strokes, which the formulas solve for.
  if (thickness < MIN_STROKE * longest) {
    const add = (MIN_STROKE * longest - thickness) / (1 - MIN_STROKE) / 2;
    const padded = withMargin(ink, Math.floor(add) + 2);
    const outside = distances(map(padded, (value) => (value > 0.5 ? 0 : 1)));
    return map(outside, (value) => clipped(add + 1 - value));
  }
  if (thickness > MAX_STROKE * longest) {
    const wanted = (thickness - MAX_STROKE * longest) / (1 - MAX_STROKE) / 2;
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

/** Crop a frame in which the centre of mass of the ink is at pixel 14, 14, up to a half. */
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
  const [top, left] = [down, right].map((sum) => round(sum / total - IMAGE_PX / 2));
  return crop(ink, left, top, IMAGE_PX, IMAGE_PX);
}

// Source: Borgefors, "Distance transformations in digital images" (1986), with OpenCV's lengths.
const DIAGONAL = 1.4;
const KNIGHTS_MOVE = 2.1969;

/** Return the distance of each pixel from the nearest one that is 0. */
function distances({ width, height, data }) {
  const rim = 2; // pixels that a step may reach
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

/** Lower a distance to that of a visited neighbour and the step from there. */
function spread(found, place, back, up) {
  let least = found[place];
  if (!least) return;
  least = Math.min(least, Math.min(found[place + back], found[place + up]) + 1);
  const diagonal = Math.min(found[place + up + back], found[place + up - back]);
  const level = Math.min(found[place + up + 2 * back], found[place + up - 2 * back]);
  const steep = Math.min(found[place + 2 * up + back], found[place + 2 * up - back]);
  found[place] = Math.min(least, diagonal + DIAGONAL, Math.min(level, steep) + KNIGHTS_MOVE);
}

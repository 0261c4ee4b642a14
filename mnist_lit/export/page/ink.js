// The writing of a picture, separated from its paper: what reading/ink.py does.

import { boxOf, crop, grey, largest, map, mean, median, quantile, round, withMargin } from "./arrays.js";
import { fitIntoFrame } from "./digitImage.js";
import { contrastTo, denoised, paperCandidates, rimOf } from "./paper.js";

/**
 * Separate ink from paper, of one colour if that leaves little noise and little ink.
 *
 * @returns `pixels` from 0, paper, to 255; `sizes`, likely longer sides of digits in them, the likeliest
 *   first, none if there is no ink; and `downscale`, as given.
 */
export function findInk({ planes, downscale }) {
  const pixels = denoised(planes);
  let ink, components;
  for (const paper of paperCandidates(pixels)) {
    ink = contrastTo(pixels, paper);
    components = inkComponents(ink.contrast, ink.noise);
    const share = components.reduce((sum, { area }) => sum + area, 0) / ink.contrast.data.length;
    if (mean(ink.noise.data) < MAX_NOISE && share < MAX_INK_SHARE) break;
  }
  return { pixels: withoutEdgeLines(normalised(ink)), sizes: likelySizes(components), downscale };
}

/** Find connected ink: pixels that cannot be noise, and fainter ones connected to them. */
function inkComponents(contrast, { data: noise }) {
  const { width, height, data } = contrast;
  const isAbove = (i, least, factor) => data[i] > Math.max(least, factor * noise[i]);
  const strong = data.filter((_, i) => isAbove(i, MIN_CONTRAST, 5));
  if (!strong.length) return [];
  const strongest = quantile(strong, 0.95);
  const isSure = (i) => data[i] > 0.5 * strongest && isAbove(i, MIN_CONTRAST, 5);
  const faintest = Math.max(0.05, 0.3 * strongest);
  const mask = map(contrast, (_, i) => Number(isAbove(i, faintest, 3)));
  return connected(mask).filter(({ places }) => places.some(isSure));
}

/** Return the components of a mask, `{ places, area, box, width, height }`; the mask is emptied. */
function connected({ width, height, data: mask }) {
  const components = [];
  for (let start = mask.indexOf(1); start >= 0; start = mask.indexOf(1, start)) {
    const places = takeComponent(mask, width, height, start);
    let [left, top, right, bottom] = [width, height, 0, 0];
    for (const place of places) {
      const x = place % width;
      const y = (place - x) / width;
      [left, top] = [Math.min(left, x), Math.min(top, y)];
      [right, bottom] = [Math.max(right, x + 1), Math.max(bottom, y + 1)];
    }
    const box = [left, top, right, bottom];
    components.push({ places, area: places.length, box, width: right - left, height: bottom - top });
  }
  return components;
}

/** Remove a pixel from a mask with all that are connected to it, also over corners; return them. */
function takeComponent(mask, width, height, start) {
  const waiting = [start];
  const places = [];
  mask[start] = 0;
  while (waiting.length) {
    const place = waiting.pop();
    places.push(place);
    const x = place % width;
    const y = (place - x) / width;
    for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
      for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
        const near = row * width + column;
        if (mask[near]) waiting.push(near);
        mask[near] = 0;
      }
    }
  }
  return places;
}

/** Return likely sizes of digits, the likeliest first: see reading/ink.py. */
function likelySizes(components) {
  const sizeOf = ({ width, height }) => Math.max(width, height);
  const characters = components.filter(
    (component) => sizeOf(component) >= MIN_SIZE_PX && component.width < LINE_FROM * component.height,
  );
  const counted = characters.length ? characters : components;
  if (!counted.length) return [];
  const [longer, heights] = [counted.map(sizeOf), counted.map(({ height }) => height)];
  const sizes = [weightedMedian(longer), weightedMedian(heights), median(longer)];
  return [...sizes, Math.sqrt(Math.min(...sizes) * Math.max(...sizes))];
}

/** Return the median of values, each weighted by itself. */
function weightedMedian(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.reduce((sum, value) => sum + value) / 2;
  let sum = 0;
  return sorted.find((value) => (sum += value) >= half);
}

/** Scale contrast without noise so that most of the ink is near 255. */
function normalised({ contrast, noise: { data: noise } }) {
  const clean = map(contrast, (value, i) => Math.max(value - 2 * noise[i], 0));
  const inked = clean.data.filter((_, i) => contrast.data[i] > Math.max(MIN_CONTRAST, 5 * noise[i]));
  const full = inked.length ? quantile(inked, FULL_INK) : 1;
  return map(clean, (value) => Math.floor(Math.min(255, value * (255 / full))));
}

/** Remove leftovers of a frame around the picture: see reading/ink.py. */
function withoutEdgeLines(ink) {
  const { width, height } = ink;
  const depth = Math.floor(EDGE_SHARE * Math.min(width, height));
  if (!depth || !rimOf(width, height).some((place) => ink.data[place] > FAINT_INK)) return ink;
  const isInner = (place) => {
    const x = place % width;
    const y = (place - x) / width;
    return x >= depth && x < width - depth && y >= depth && y < height - depth;
  };
  const lines = connected(map(ink, (value) => Number(value > FAINT_INK))).filter((component) => {
    const [left, top, right, bottom] = component.box;
    const touches = left === 0 || top === 0 || right === width || bottom === height;
    const isLong = 2 * component.width >= width || 2 * component.height >= height;
    return touches && isLong && !component.places.some(isInner);
  });
  const mask = grey(width, height);
  for (const place of lines.flatMap(({ places }) => places)) mask.data[place] = 1;
  return map(ink, (value, i) => (isNearMask(mask, i) ? 0 : value));
}

/**
 * Cut a digit out, by its box in the picture, and prepare it like an image of MNIST.
 *
 * @returns null if no pen has drawn what is there.
 */
export function digitImage({ pixels, downscale }, box) {
  let [left, top, right, bottom] = withinPicture(box.map((edge) => round(edge / downscale)), pixels);
  const reach = 1 + round(REACH * Math.max(right - left, bottom - top));
  const [x, y] = [Math.max(0, left - reach), Math.max(0, top - reach)];
  const [width, height] = [Math.min(right + reach, pixels.width) - x, Math.min(bottom + reach, pixels.height) - y];
  // Faint ink counts like any other.
  const full = largest(crop(pixels, left, top, right - left, bottom - top).data, 1);
  const window = map(crop(pixels, x, y, width, height), (value) => Math.min(1, value / full));
  const mask = digitMask(window, [left - x, top - y, right - x, bottom - y]);
  const inner = boxOf(mask, 0.5);
  if (!inner) return null;
  [left, top, right, bottom] = inner;
  const margin = 2 + Math.floor(Math.max(right - left, bottom - top) / 20);
  // The faint edges of strokes are not in the mask.
  const digit = map(window, (value, i) => (isNearMask(mask, i) ? value : 0));
  const [wide, high] = [right - left + 2 * margin, bottom - top + 2 * margin];
  const framed = crop(withMargin(digit, margin), left, top, wide, high);
  return fitIntoFrame(framed, [margin, margin, wide - margin, high - margin]);
}

/** Select the pixels of a digit in a window around its box: see reading/ink.py. */
function digitMask(window, [left, top, right, bottom]) {
  const { width, height } = window;
  const mask = grey(width, height);
  const isInside = (place) => {
    const x = place % width;
    const y = (place - x) / width;
    return x >= left && x < right && y >= top && y < bottom;
  };
  const components = connected(map(window, (value) => Number(value > FAINT_INK / 255)));
  const belonging = components.filter(
    ({ places, area }) => places.filter(isInside).length > 0.5 * area,
  );
  for (const { places, box } of belonging.length ? belonging : components) {
    const endsInside = box[0] > 0 && box[1] > 0 && box[2] < width && box[3] < height;
    const isWhole = belonging.length && endsInside;
    for (const place of isWhole ? places : places.filter(isInside)) mask.data[place] = 1;
  }
  return mask;
}

/** Tell whether a pixel or one of its eight neighbours is in a mask. */
function isNearMask({ width, height, data }, place) {
  const x = place % width;
  const y = (place - x) / width;
  for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
    for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
      if (data[row * width + column]) return true;
    }
  }
  return false;
}

/** Convert a box to whole pixels of the picture, at least one, all inside. */
export function pictureBox({ pixels, downscale }, box) {
  const [width, height] = [pixels.width, pixels.height].map((side) => round(side * downscale));
  return withinPicture(box.map((edge) => round(edge * downscale)), { width, height });
}

function withinPicture([left, top, right, bottom], { width, height }) {
  const [x, y] = [Math.max(0, Math.min(left, width - 1)), Math.max(0, Math.min(top, height - 1))];
  return [x, y, Math.max(x + 1, Math.min(right, width)), Math.max(y + 1, Math.min(bottom, height))];
}

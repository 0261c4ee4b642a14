// Digits of any size, detected by a network on rescaled pictures: what reading/detector.py does.

import { boxOf, crop, map, round } from "./arrays.js";
import { byAreas, linear, scaled } from "./resize.js";

/**
 * Detect digits at the best scale, searched from likely sizes.
 *
 * @param network of the packaged detector, a `Network`.
 * @returns `digits`, each with its `box` and the `probs` of the ten, and `isComplete`, false if a
 *   likely scale was left out because of its cost.
 */
export function detect(network, ink, sizes) {
  const [x, y, right, bottom] = boxOf(ink, MIN_INK) ?? [0, 0, ink.width, ink.height];
  const part = crop(ink, x, y, right - x, bottom - y);
  let best = [];
  let [bestVote, pixelsLeft, isComplete] = [0, MAX_NETWORK_PIXELS, true];
  const tried = [];
  const others = OTHER_SIZES.map((factor) => sizes[0] * factor);
  const waiting = [...sizes, ...others];
  while (waiting.length) {
    const size = waiting.shift();
    const pixels = part.width * part.height * (DIGIT_PX / size) ** 2;
    if (tried.some((other) => isSameSize(size, other))) continue;
    if (pixels > pixelsLeft) {
      isComplete &&= others.includes(size);
      continue;
    }
    tried.push(size);
    pixelsLeft -= pixels;
    const digits = detectAt(network, part, size).filter(isDigit);
    const vote = digits.reduce((sum, digit) => sum + voteOf(digit, size), 0);
    if (vote > bestVote) [best, bestVote] = [digits, vote];
    if (!digits.length) continue;
    const medianSize = digits.map(sizeOfDigit).sort((a, b) => a - b)[(digits.length - 1) >> 1];
    const isCertain = digits.every(({ probs }) => Math.max(...probs) > CERTAIN_PROB);
    if (isSameSize(medianSize, size) && isCertain) break;
    waiting.unshift(medianSize);
  }
  const digits = best.map(({ box, probs }) => ({
    box: box.map((edge, i) => edge + (i % 2 ? y : x)),
    probs: probs.slice(0, NUM_DIGITS),
  }));
  return { digits, isComplete };
}

const isSameSize = (size, other) => Math.abs(Math.log(size / other)) < SAME_SIZE_LOG;
const sizeOfDigit = ({ box: [left, top, right, bottom] }) => Math.max(right - left, bottom - top);

/** Tell whether a digit is the most probable class. */
function isDigit({ probs }) {
  const most = Math.max(...probs);
  return probs.indexOf(most) < NUM_DIGITS && most > MIN_DETECTION_PROB;
}

/** Count a digit by its probability, and less the further its size is from the scale's. */
function voteOf(digit, size) {
  const misfit = Math.log(sizeOfDigit(digit) / size) / SIZE_FIT_LOG;
  return (Math.max(...digit.probs) - MIN_DETECTION_PROB) * Math.exp(-(misfit ** 2));
}

/** Detect all characters at the scale that maps a digit of this size to 28 pixels. */
function detectAt(network, ink, size) {
  const scale = DIGIT_PX / size;
  const small = scaled(ink, scale, scale < 1 ? byAreas : linear);
  const levels = map(small, (value) => round(value) / 255);
  const [width, height] = [small.width, small.height].map(
    (side) => 4 * Math.ceil((side + 2 * MARGIN_PX) / 4),
  );
  const maps = run(network, crop(levels, -MARGIN_PX, -MARGIN_PX, width, height));
  return nonMaxSuppression(peaks(maps, ink.width / small.width, ink.height / small.height));
}

/** Run the network, on a large picture in bands, whose maps are put together. */
function run(network, { width, height, data }) {
  const band = Math.max(4 * BAND_OVERLAP_PX, Math.floor(MAX_BAND_PIXELS / width / 4) * 4);
  const [columns, rows] = [width / STRIDE, height / STRIDE];
  const parts = [];
  for (let top = 0; top < height; top += band) {
    const start = Math.max(0, top - BAND_OVERLAP_PX);
    const end = Math.min(height, top + band + BAND_OVERLAP_PX);
    const shape = [1, 1, end - start, width];
    const maps = network.run({ shape, data: data.subarray(start * width, end * width) }, "maps");
    parts.push({ maps, start: start / STRIDE, top: top / STRIDE });
  }
  const channels = parts[0].maps.shape[1];
  const all = new Float32Array(channels * rows * columns);
  for (const { maps, start, top } of parts) {
    const count = Math.min(rows - top, band / STRIDE);
    for (let c = 0; c < channels; c++) {
      const from = (c * maps.shape[2] + top - start) * columns;
      all.set(maps.data.subarray(from, from + count * columns), (c * rows + top) * columns);
    }
  }
  return { channels, columns, rows, data: all };
}

/** Decode the network's output: a character is a local maximum over all classes. */
function peaks({ channels, columns, rows, data }, xScale, yScale) {
  const area = rows * columns;
  const numClasses = channels - 2;
  const highest = data.slice(0, area);
  for (let i = area; i < numClasses * area; i++) {
    if (data[i] > highest[i % area]) highest[i % area] = data[i];
  }
  const found = [];
  for (let i = 0; i < area; i++) {
    if (sigmoid(highest[i]) > MIN_PEAK_PROB && isPeak(highest, columns, rows, i)) found.push(i);
  }
  found.sort((a, b) => highest[b] - highest[a]);
  return found.slice(0, MAX_DETECTIONS).map((i) => {
    const [width, height] = [numClasses, numClasses + 1].map(
      (map_) => Math.exp(Math.min(2, Math.max(-2, data[map_ * area + i]))) * DIGIT_PX,
    );
    const x = STRIDE * ((i % columns) + 0.5) - MARGIN_PX;
    const y = STRIDE * (Math.floor(i / columns) + 0.5) - MARGIN_PX;
    const edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
    return {
      box: edges.map((edge, j) => edge * (j % 2 ? yScale : xScale)),
      probs: Array.from({ length: numClasses }, (_, c) => sigmoid(data[c * area + i])),
    };
  });
}

const sigmoid = (value) => 1 / (1 + Math.exp(-value));

function isPeak(values, width, height, place) {
  const x = place % width;
  const y = (place - x) / width;
  for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
    for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
      if (values[row * width + column] > values[place]) return false;
    }
  }
  return true;
}

/** Drop each detection that overlaps a more probable one, or is inside it or around it. */
function nonMaxSuppression(detections) {
  const kept = [];
  for (const detection of detections) {
    if (!kept.some((better) => doOverlap(better, detection) || isInside(better, detection))) {
      kept.push(detection);
    }
  }
  return kept;
}

function doOverlap({ box: a }, { box: b }) {
  const common = areaOf(intersection(a, b));
  return common > MAX_IOU * (areaOf(a) + areaOf(b) - common);
}

/** Tell whether one of two digits or letters is inside the other; signs may contain digits. */
function isInside(a, b) {
  if (isSign(a) || isSign(b)) return false;
  const smaller = Math.max(1e-6, Math.min(areaOf(a.box), areaOf(b.box)));
  return areaOf(intersection(a.box, b.box)) > MAX_CONTAINED * smaller;
}

const isSign = ({ probs }) => probs.indexOf(Math.max(...probs)) >= FIRST_SIGN;
const intersection = (a, b) => a.map((edge, i) => Math[i < 2 ? "max" : "min"](edge, b[i]));
const areaOf = ([left, top, right, bottom]) => Math.max(0, right - left) * Math.max(0, bottom - top);

// The colour of the paper, and the contrast of each pixel to it: what reading/paper.py does, with
// the same numbers. A picture is a list of planes, one or three.

import { grey, largest, map, mean, median, quantile, round } from "./arrays.js";
import { blurred, byAreas, linear, mirrored, nearest, placeInside, reduced, resized } from "./resize.js";

/** Blur a grainy picture in proportion to its grain. */
export function denoised(planes) {
  const { width, height } = planes[0];
  if (Math.min(width, height) < 100) return planes;
  const at = (x, y) => {
    const place = mirrored(y, height) * width + mirrored(x, width);
    return mean(planes.map(({ data }) => data[place]));
  };
  const row = (x, y) => at(x - 1, y) - 2 * at(x, y) + at(x + 1, y);
  const grains = sample(width, height, (x, y) =>
    Math.abs(row(x, y - 1) - 2 * row(x, y) + row(x, y + 1)) / 6,
  );
  const blur = Math.min(2, (40 * median(grains)) / 0.6745);
  return blur < 0.5 ? planes : planes.map((plane) => blurred(plane, blur));
}

/** Compute the contrast of each pixel to the paper around it, and the noise of the contrast. */
export function contrastTo(planes, paper) {
  const contrast = distance(planes, paper);
  const hasOneColour = span(meanOf(paper).data) === 0;
  const inkShare = () => mean(contrast.data.map((value) => value > MIN_CONTRAST));
  const isMostlyInk = hasOneColour && inkShare() > MOSTLY_INK;
  const freeOfInk = isMostlyInk ? NOISE_QUANTILE_OF_INK : NOISE_QUANTILE;
  const noise = noiseOf(contrast, freeOfInk);
  if (noise === 0 && hasOneColour) return { contrast, noise: map(contrast, () => 0) };
  return withLight(planes, meanOfBlank(planes, paper, contrast, noise), freeOfInk);
}

/** Estimate the paper locally: as the mean of everything that cannot be ink, smoothed by a median. */
function meanOfBlank(planes, paper, contrast, noise) {
  const { width, height } = paper[0];
  const limit = Math.max(MIN_CONTRAST, 6 * noise);
  const blank = map(contrast, (value) => (value < limit ? 1 : 0));
  const weight = resized(blank, width, height, byAreas).data;
  const square = [-2, -1, 0, 1, 2].flatMap((y) => [-2, -1, 0, 1, 2].map((x) => [x, y]));
  return planes.map((plane, colour) => {
    const blankOnly = map(plane, (value, i) => value * blank.data[i]);
    const sum = resized(blankOnly, width, height, byAreas);
    const { data } = paper[colour];
    const local = map(sum, (value, i) => (value + 0.05 * data[i]) / (weight[i] + 0.05));
    return filtered(local, square, median);
  });
}

/** Compute contrast and noise; ink absorbs a share of the light, so both are divided by the light. */
function withLight(planes, paper, freeOfInk) {
  const contrast = distance(planes, paper);
  const noise = noiseOf(contrast, freeOfInk);
  const light = meanOf(paper);
  const strongest = contrast.data.indexOf(largest(contrast.data));
  const isLighter = mean(planes.map(({ data }) => data[strongest])) > mean(light.data);
  if (span(light.data) < SAME_COLOUR || isLighter) return { contrast, noise: map(contrast, () => noise) };
  const most = largest(light.data);
  const relative = map(light, (value) => Math.max(value / most, DARKEST_SHADOW));
  const { data } = resized(relative, contrast.width, contrast.height, linear);
  return {
    contrast: map(contrast, (value, i) => value / data[i]),
    noise: map(contrast, (value, i) => noise / data[i]),
  };
}

/** Yield small maps of the paper's colour, the likeliest first. */
export function* paperCandidates(planes) {
  const coarse = planes.map((plane) => {
    const small = reduced(plane, 4 * COARSE_PX, nearest);
    return reduced(medianFiltered(small, 7), COARSE_PX, byAreas);
  });
  const around = coarse.map(({ width, height, data }) => rimOf(width, height).map((i) => data[i]));
  const colours = around.map(median);
  const numOther = around[0].filter((_, i) =>
    colours.some((colour, plane) => Math.abs(around[plane][i] - colour) > SAME_COLOUR),
  ).length;
  if (numOther < 0.3 * around[0].length) {
    yield coarse.map((plane, i) => map(plane, () => colours[i]));
  } else {
    const ofTwo = paperOfTwoColours(planes);
    if (ofTwo) yield coarse.map((plane, i) => map(plane, () => ofTwo[i]));
  }
  yield closedPaper(planes);
}

/** Return the paper of a digit that is cropped closely, else null: see reading/paper.py. */
function paperOfTwoColours(planes) {
  const small = planes.map((plane) => reduced(plane, OTSU_PX, nearest));
  const { width, height, data } = meanOf(small);
  const threshold = otsuLevel(data);
  const isLight = Array.from(data, (value) => Math.floor(value * 255 + 0.5) > threshold);
  const [light, dark] = [true, false].map((which) => data.filter((_, i) => isLight[i] === which));
  if (!light.length || !dark.length) return null;
  const within = (light.length * variance(light) + dark.length * variance(dark)) / data.length;
  if (within > (1 - TWO_COLOURS) * variance(data)) return null;
  const rim = rimOf(width, height);
  const paperIsLight = 2 * rim.filter((place) => isLight[place]).length >= rim.length;
  const [columns, rows] = [width, height].map((side) => [...Array(side).keys()]);
  const hasInk = (columns, rows) =>
    rows.some((y) => columns.some((x) => isLight[y * width + x] !== paperIsLight));
  const isAtEachEdge =
    hasInk(columns, rows.slice(0, 2)) &&
    hasInk(columns, rows.slice(-2)) &&
    hasInk(columns.slice(0, 2), rows) &&
    hasInk(columns.slice(-2), rows);
  if (!isAtEachEdge) return null;
  return small.map(({ data }) => median(data.filter((_, i) => isLight[i] === paperIsLight)));
}

/** Return the level, in 255ths, that splits values into the two classes of Otsu (1979). */
function otsuLevel(values) {
  const counts = new Float64Array(256);
  for (const value of values) counts[Math.floor(value * 255 + 0.5)] += 1;
  const total = counts.reduce((sum, count, level) => sum + count * level, 0);
  let [best, bestLevel, num, sum] = [0, 0, 0, 0];
  counts.forEach((count, level) => {
    num += count;
    sum += count * level;
    const numOthers = values.length - num;
    const between = num * numOthers * (sum / num - (total - sum) / numOthers) ** 2;
    if (between > best) [best, bestLevel] = [between, level]; // never if one of them is empty: NaN
  });
  return bestLevel;
}

function variance(values) {
  const centre = mean(values);
  return mean(values.map((value) => (value - centre) ** 2));
}

/** Close the strokes by the paper around them, in each colour by itself: see reading/paper.py. */
function closedPaper(planes) {
  return planes.map((plane) => {
    const small = reduced(plane, CLOSED_PX, byAreas);
    const steps = [(values) => Math.max(...values), (values) => Math.min(...values)];
    if (isLight(small)) steps.reverse();
    const disc = discOf(windowOf(small, STROKE) >> 1);
    return steps.reduce((part, step) => filtered(part, disc, step), small);
  });
}

/** Tell light ink on dark paper: see reading/paper.py. */
function isLight(plane) {
  const [narrow, wide] = [NARROW, WIDE].map((share) => {
    const { data } = medianFiltered(plane, windowOf(plane, share));
    return Array.from(plane.data, (value, i) => round(data[i] * 255) - Math.floor(value * 255 + 0.5));
  });
  const amount = (values) => mean(values.map(Math.abs));
  const differs = amount(narrow) < WIDE_STROKES * amount(wide) ? wide : narrow;
  return mean(differs) < LIGHT_INK * amount(differs);
}

const windowOf = ({ width, height }, share) => Math.floor(share * Math.max(width, height)) | 1;

/** Return x and y of the pixels of a disc around 0, as OpenCV draws it. */
function discOf(radius) {
  const offsets = [];
  for (let y = -radius; y <= radius; y++) {
    const reach = round(Math.sqrt(radius ** 2 - y ** 2));
    for (let x = -reach; x <= reach; x++) offsets.push([x, y]);
  }
  return offsets;
}

/** Apply `choose` to the values around each pixel; beyond its rim the picture continues. */
function filtered(plane, offsets, choose) {
  const { width, height, data } = plane;
  return map(plane, (_, i) => {
    const column = i % width;
    const row = (i - column) / width;
    const at = ([x, y]) => data[placeInside(row + y, height) * width + placeInside(column + x, width)];
    return choose(offsets.map(at));
  });
}

/** Return the indices of the pixels once around, those of the corners twice. */
export function rimOf(width, height) {
  const across = [...Array(width).keys()];
  const down = [...Array(height).keys()].map((y) => y * width);
  const right = down.map((place) => place + width - 1);
  const bottom = across.map((x) => (height - 1) * width + x);
  return [...across, ...right, ...bottom.reverse(), ...down.reverse()];
}

/** Take the median of the square around each pixel, in 255ths; beyond its rim the picture continues. */
function medianFiltered(pixels, size) {
  const { width, height, levels } = framed(pixels, size >> 1);
  const out = grey(pixels.width, pixels.height);
  const counts = new Int32Array(256);
  let [level, numUpTo] = [0, 0]; // the median, and how many values are no larger
  const addColumn = (x, y, count) => {
    for (let row = y; row < y + size; row++) {
      const value = levels[row * width + x];
      counts[value] += count;
      if (value <= level) numUpTo += count;
    }
  };
  for (let y = 0; y + size <= height; y++) {
    counts.fill(0);
    numUpTo = 0;
    for (let x = 0; x < size - 1; x++) addColumn(x, y, 1);
    for (let x = 0; x + size <= width; x++) {
      addColumn(x + size - 1, y, 1);
      while (2 * numUpTo < size * size) numUpTo += counts[++level];
      while (2 * (numUpTo - counts[level]) > size * size) numUpTo -= counts[level--];
      out.data[y * out.width + x] = level / 255;
      addColumn(x, y, -1);
    }
  }
  return out;
}

/** Repeat the rim of a picture around it, in 255ths. */
function framed(pixels, margin) {
  const [width, height] = [pixels.width + 2 * margin, pixels.height + 2 * margin];
  const levels = new Uint8Array(width * height);
  for (let i = 0; i < levels.length; i++) {
    const column = placeInside((i % width) - margin, pixels.width);
    const row = placeInside(Math.floor(i / width) - margin, pixels.height);
    levels[i] = pixels.data[row * pixels.width + column] * 255 + 0.5;
  }
  return { width, height, levels };
}

/** Compute how far each pixel is from the paper's colour. */
function distance(planes, paper) {
  const sum = map(planes[0], () => 0);
  planes.forEach((plane, colour) => {
    const { data } = resized(paper[colour], plane.width, plane.height, linear);
    for (let i = 0; i < data.length; i++) sum.data[i] += (plane.data[i] - data[i]) ** 2;
  });
  return map(sum, (value) => Math.sqrt(value / planes.length));
}

const meanOf = (planes) =>
  planes.length === 1 ? planes[0] : map(planes[0], (_, i) => mean(planes.map(({ data }) => data[i])));

const span = (values) => Math.max(...values) - Math.min(...values);

/** Return a few thousand values on a regular grid. */
function sample(width, height, valueAt) {
  const step = 1 + Math.floor(Math.min(width, height) / 50);
  const values = [];
  for (let y = 0; y < height; y += step) {
    for (let x = 0; x < width; x += step) values.push(valueAt(x, y));
  }
  return values;
}

/** Estimate the noise of contrast by a quantile, free of ink: see reading/paper.py. */
const noiseOf = ({ width, height, data }, [share, ofHalfNormal]) =>
  quantile(sample(width, height, (x, y) => data[y * width + x]), share) / ofHalfNormal;

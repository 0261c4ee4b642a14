// From a canvas to what it says: what classifier.py does.

import { grey, largest } from "./arrays.js";
import { findPlaces, halves, linesOf, mayBeTwo } from "./digits.js";
import { FRAME } from "./preparation.js";

const LOOK_RAD = (8 * Math.PI) / 180; // how far a digit is turned or slanted when looked at again
const SURE = 0.95; // how probable a digit is that needs no second look
// Between digits there is paper, within them there is none, and all ink is some digit's. For each
// exception, what is read must be so much more probable, as a logarithm.
const EXCEPTION = 0.8;

/**
 * Read a canvas.
 *
 * @param network a `Network`.
 * @param strength grey pixels, ink 1, paper 0.
 * @returns `{ number, digits }`, as the page takes it.
 */
export function readCanvas(network, strength) {
  const places = findPlaces(strength);
  const alone = places.map((arcs) => arcs.filter(({ start, end }) => end - start === 1));
  readArcs(network, alone.flat(), (arc, cost) => cost);
  const digits = places.flatMap((arcs, i) => {
    // What cannot cost less than its pieces alone, whatever it is, need not be looked at.
    const saved = ({ start, end }) =>
      costOfArcs(alone[i].slice(start, end)) - EXCEPTION * (end - start - 1);
    const together = arcs.filter((arc) => arc.end - arc.start > 1 && saved(arc) > 0);
    readArcs(network, together, (arc, cost) => Math.min(cost, saved(arc)));
    return likeliest(arcs.filter((arc) => alone[i].includes(arc) || arc.digit));
  });
  const lines = linesOf(digits.map(({ box }) => box)).map((line) => line.map((i) => digits[i]));
  const number = lines.map((line) => line.map(({ digit }) => digit).join("")).join(" ");
  return { number, digits: lines.flat().map((digit) => shown(network, digit)) };
}

/**
 * Find what arcs are, `digit`, and read it, `read`.
 *
 * @param limit from an arc and what it costs as one digit to what it may cost as two.
 */
function readArcs(network, arcs, limit) {
  for (const arc of arcs) arc.digit = arc.find();
  const found = arcs.filter(({ digit }) => digit);
  const read = classify(network, found.map(({ digit }) => digit));
  found.forEach((arc, i) => {
    const isWorthCutting = mayBeTwo(arc.digit) && limit(arc, costOf([read[i]])) > EXCEPTION;
    arc.read = isWorthCutting ? asOneOrTwo(network, arc.digit, read[i]) : [read[i]];
  });
}

/** A digit as one, or as two that touch if that is likelier. */
function asOneOrTwo(network, digit, read) {
  const cuts = halves(digit);
  const parts = classify(network, cuts.flat());
  const ways = [[read], ...cuts.map((_, i) => parts.slice(2 * i, 2 * i + 2))];
  const costs = ways.map((way) => costOf(way) + EXCEPTION * (way.length - 1));
  return ways[costs.indexOf(Math.min(...costs))];
}

/** How improbable digits are together. */
const costOf = (digits) => digits.reduce((sum, { confidence }) => sum - Math.log(confidence), 0);

const costOfArcs = (arcs) =>
  arcs.reduce((sum, { read = [], digit }) => sum + costOf(read) + (digit ? 0 : EXCEPTION), 0);

/** The way to take a place's ink that costs least. */
function likeliest(arcs) {
  const paths = new Map([[0, { cost: 0, digits: [] }]]);
  for (const { start, end, digit, read = [] } of arcs) {
    const before = paths.get(start);
    const cost = before.cost + costOf(read) + EXCEPTION * (end - start - 1 + (digit ? 0 : 1));
    if (!(cost >= paths.get(end)?.cost)) paths.set(end, { cost, digits: [...before.digits, ...read] });
  }
  return paths.get(arcs.at(-1).end).digits;
}

function classify(network, found) {
  const logs = logProbabilities(network, found.map(({ image }) => image));
  return found.map((digit, i) => {
    const isSure = Math.max(...logs[i]) >= Math.log(SURE);
    const probabilities = (isSure ? logs[i] : lookAgain(network, digit.image, logs[i])).map(Math.exp);
    const confidence = Math.max(...probabilities);
    return { ...digit, digit: probabilities.indexOf(confidence), confidence, probabilities };
  });
}

/** What the network says of images: for each, the logarithms of ten probabilities. */
function logProbabilities(network, images) {
  if (!images.length) return [];
  const { data } = network.run(asBatch(images), "logits");
  return images.map((_, i) => normalised([...data.subarray(10 * i, 10 * (i + 1))]));
}

function asBatch(images) {
  const data = new Float32Array(images.length * FRAME ** 2);
  images.forEach((image, i) => data.set(image.data, i * FRAME ** 2));
  return { shape: [images.length, 1, FRAME, FRAME], data };
}

function normalised(logs) {
  const most = Math.max(...logs);
  const total = most + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - most), 0));
  return logs.map((log) => log - total);
}

/** What the network says of all looks together, `logs` being what it says of the first. */
function lookAgain(network, image, logs) {
  const looks = [logs, ...logProbabilities(network, otherLooks(image))];
  const sums = logs.map((_, digit) => looks.reduce((sum, look) => sum + look[digit], 0));
  return normalised(sums.map((sum) => sum / looks.length));
}

/** An image turned a little either way, and slanted a little either way. */
function otherLooks(image) {
  const [cos, sin, slant] = [Math.cos(LOOK_RAD), Math.sin(LOOK_RAD), Math.tan(LOOK_RAD)];
  const middle = (FRAME - 1) / 2;
  return [[cos, -sin, sin, cos], [cos, sin, -sin, cos], [1, slant, 0, 1], [1, -slant, 0, 1]].map(
    ([a, b, c, d]) => {
      const look = grey(FRAME, FRAME);
      for (let i = 0; i < look.data.length; i++) {
        const [x, y] = [(i % FRAME) - middle, Math.floor(i / FRAME) - middle];
        look.data[i] = between(image, middle + a * x + b * y, middle + c * x + d * y);
      }
      return look;
    },
  );
}

/** The ink at a place between pixels. */
function between({ width, height, data }, x, y) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const at = (column, row) =>
    column >= 0 && column < width && row >= 0 && row < height ? data[row * width + column] : 0;
  const [right, down] = [x - left, y - top];
  const above = at(left, top) * (1 - right) + at(left + 1, top) * right;
  return above * (1 - down) + (at(left, top + 1) * (1 - right) + at(left + 1, top + 1) * right) * down;
}

/** A digit as the page shows it; what the filters find is computed when it is. */
function shown(network, { digit, confidence, probabilities, box, image }) {
  return {
    digit, confidence, probabilities, box,
    image: asBytes(image.data, 1),
    get feature_maps() {
      if (!network.has("feature_maps")) return [];
      const { shape, data } = network.run(asBatch([image]), "feature_maps");
      const most = largest(data, 1e-6);
      const area = shape[2] * shape[3];
      const mapAt = (i) => data.subarray(i * area, (i + 1) * area);
      return Array.from({ length: shape[1] }, (_, i) => asBytes(mapAt(i), most));
    },
  };
}

const asBytes = (values, most) => Uint8Array.from(values, (value) => Math.round((255 * value) / most));

// From strokes to digits: what may be one, what may be two that touch, and in which order. What
// pictures/digits.py does.

import { blur, boxOf, crop, dilate, map, quantile, round, scaled } from "./arrays.js";
import {
  MOST_STROKES, connected, findPieces, heightOf, isOneDigitAtMost, joinStrokes, nearEachOther,
  sizeOfInk, union, usualSize, wholeSize,
} from "./pieces.js";
import { FIT, prepare } from "./preparation.js";

const SMALLEST = 0.3; // height of a digit, as a share of the usual one's
const FAINTEST = 0.4; // ink, as a share of what most of the same digit's ink has
const CUT_FROM = 0.6; // width over height; what is wider may be two digits
const CUT_SLANTS = [-0.5, -0.25, 0, 0.25, 0.5]; // columns a row
const CUTS_A_SLANT = 2;
const CUT_MARGIN = 0.2; // of the width, where no digit would be left
const SPECK_OF_HALF = 0.1; // of a half's ink; what is less and apart is the other half's
const MAX_SIZE_TO_CUT = 100; // pixels along the longest side; cuts take no more

/**
 * The places on a canvas where there may be digits.
 *
 * @param strength grey pixels, ink 1, paper 0.
 * @returns places, each a list of arcs, `{ start, end, find }`: pieces of ink from `start` to the one
 *   before `end` taken for one digit, and what finds it, `{ image, box, ink, frame }`, or none, null.
 */
export function findPlaces(strength) {
  const found = findPieces(strength);
  const pieces = joinStrokes(found.pieces);
  const usual = usualSize(pieces);
  const whole = wholeSize(pieces, usual);
  return nearEachOther(pieces, whole).map(({ parts }) => {
    const arcs = [];
    for (let start = 0; start < parts.length; start++) {
      for (let end = start + 1; end <= Math.min(parts.length, start + MOST_STROKES); end++) {
        const one = parts.slice(start, end).reduce(union);
        if (end - start > 1 && !isOneDigitAtMost(one, whole)) continue;
        const isLarge = heightOf(one) > SMALLEST * usual;
        const find = () => (isLarge ? asDigit(cutOut(one, strength, found.labels), one.box) : null);
        arcs.push({ start, end, find });
      }
    }
    return arcs;
  });
}

/** A digit's ink with a margin, and where it is. */
function cutOut(digit, strength, labels) {
  const size = sizeOfInk(digit);
  const margin = 2 + Math.floor(size / 20);
  const [left, top] = digit.box.slice(0, 2).map((edge) => Math.max(0, edge - margin));
  const right = Math.min(strength.width, digit.box[2] + margin);
  const bottom = Math.min(strength.height, digit.box[3] + margin);
  const area = [left, top, right - left, bottom - top];
  const part = crop(strength, ...area);
  const mine = map(crop(labels, ...area), (label) => (label && digit.numbers.includes(label) ? 1 : 0));
  const full = Math.max(1e-6, quantile(part.data.filter((_, i) => mine.data[i]), 0.85));
  let peak = map(part, () => full);
  if (size > 2 * FIT) { // the edges of smaller ones are faint as they should be
    const reach = 1 + Math.floor(size / 12);
    const around = blur(dilate(part, reach), reach);
    peak = map(around, (value) => Math.min(full, Math.max(FAINTEST * full, value)));
  }
  const near = dilate(mine, 1 + Math.floor(size / 40)).data;
  const ink = map(part, (value, i) => (near[i] ? Math.min(1, value / peak.data[i]) : 0));
  return { ink, frame: [left, top, right, bottom] };
}

function asDigit({ ink, frame }, box) {
  const [left, top] = frame;
  const image = prepare(ink, box);
  if (!image) return null;
  const scale = Math.min(1, MAX_SIZE_TO_CUT / Math.max(ink.width, ink.height));
  return { image, box, ink: scale < 1 ? scaled(ink, scale) : ink, frame };
}

/** Whether it is wide enough for two that touch. */
export const mayBeTwo = ({ ink }) => ink.width >= CUT_FROM * ink.height;

/** The ways to cut a digit in two, straight, upright or aslant, where least ink is in the way. */
export function halves(digit) {
  const { ink } = digit;
  return CUT_SLANTS.flatMap((slant) => {
    const across = (i) => (i % ink.width) + slant * (Math.floor(i / ink.width) - ink.height / 2);
    const profile = new Float64Array(ink.width);
    for (let i = 0; i < ink.data.length; i++) {
      profile[Math.trunc(Math.min(ink.width - 1, Math.max(0, across(i))))] += ink.data[i];
    }
    return valleys(profile).map((cut) => {
      const left = map(ink, (value, i) => (across(i) < cut ? value : 0));
      const right = map(ink, (value, i) => (across(i) < cut ? 0 : value));
      return [half(digit, left), half(digit, right)];
    });
  }).filter(([left, right]) => left && right);
}

/** Where there is least, and where there is least apart from there; not near the ends. */
function valleys(profile) {
  const margin = Math.max(1, round(CUT_MARGIN * profile.length));
  const inner = profile.slice(margin, -margin);
  const found = [];
  while (found.length < CUTS_A_SLANT && inner.some(Number.isFinite)) {
    const valley = inner.indexOf(inner.reduce((a, b) => Math.min(a, b)));
    found.push(margin + valley);
    const reach = Math.floor(margin / 2);
    inner.fill(Infinity, Math.max(0, valley - reach), valley + reach + 1);
  }
  return found;
}

function half(digit, given) {
  const { labels, pieces } = connected(given, 0.5);
  const total = pieces.reduce((sum, { area }) => sum + area, 0);
  const specks = pieces.filter(({ area }) => area < SPECK_OF_HALF * total);
  const numbers = new Set(specks.flatMap((speck) => speck.numbers));
  const ink = map(given, (value, i) => (numbers.has(labels.data[i]) ? 0 : value));
  const box = boxOf(ink, 0.5);
  if (!box || box[3] - box[1] < 5) return null;
  const image = prepare(ink, box);
  if (!image) return null;
  const [left, top, right] = digit.frame;
  const scale = (right - left) / ink.width;
  return { ...digit, image, ink, box: box.map((edge, i) => round((i % 2 ? top : left) + edge * scale)) };
}

/** Which boxes stand in a line, lines from top to bottom, each from left to right by its middle. */
export function linesOf(boxes) {
  const found = [];
  const shared = (line, [, top, , bottom]) => {
    const [, above, , below] = boxes[line.at(-1)];
    const overlap = Math.min(bottom, below) - Math.max(top, above);
    return overlap / Math.min(bottom - top, below - above);
  };
  const across = (index) => boxes[index][0] + boxes[index][2];
  for (const index of [...boxes.keys()].sort((a, b) => across(a) - across(b))) {
    const shares = found.map((line) => shared(line, boxes[index]));
    const most = Math.max(...shares);
    if (most >= 0.2) found[shares.indexOf(most)].push(index);
    else found.push([index]);
  }
  const middle = (line) => line.reduce((sum, i) => sum + boxes[i][1] + boxes[i][3], 0) / line.length;
  return found.sort((a, b) => middle(a) - middle(b));
}

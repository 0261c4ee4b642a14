// Connected ink on a canvas, and which pieces of it may be one digit's: what pictures/ink.py and
// pieces.py do, less what only photographs and forms need.

import { grey } from "./arrays.js";

const LEAST_CONTRAST = 0.08; // fainter is no ink
const SPECK = 5; // pixels, in all and along the longest side; what has fewer is no stroke
// Gaps between strokes that may be one digit's, as a share of the usual digit's size.
const NEAR_BESIDE = 0.25;
const NEAR_BELOW = 0.4;
const JOINED_BESIDE = 0.12; // ... and are, if they can be nothing else
const JOINED_BELOW = 0.25;
const TALLEST = 1.6; // a digit of several pieces, as a share of it
const WIDEST = 1.25;
const BAR_FROM = 4; // width over height
const LARGEST_WHOLE = 2.2; // a digit all of whose strokes are apart, as a share of the usual one
export const MOST_STROKES = 3; // pieces of one digit

export const widthOf = ({ box: [left, , right] }) => right - left;
export const heightOf = ({ box: [, top, , bottom] }) => bottom - top;
export const sizeOfInk = (ink) => Math.max(widthOf(ink), heightOf(ink));

/**
 * Label connected pixels, also over corners, that have more than so much ink.
 *
 * @returns `labels`, of each pixel from 1 on, 0 where there is none, and the pieces of ink, each
 *   with its `box`, its `area` in pixels, and `strongest`, the most ink that it has anywhere; its
 *   `numbers` are its labels.
 */
export function connected({ width, height, data }, least) {
  const labels = new Int32Array(width * height);
  const pieces = [];
  for (let start = 0; start < data.length; start++) {
    if (labels[start] || !(data[start] > least)) continue;
    const number = pieces.length + 1;
    const waiting = [start];
    labels[start] = number;
    let [left, top, right, bottom, area, strongest] = [width, height, 0, 0, 0, 0];
    while (waiting.length) {
      const place = waiting.pop();
      const x = place % width;
      const y = (place - x) / width;
      left = Math.min(left, x);
      top = Math.min(top, y);
      right = Math.max(right, x + 1);
      bottom = Math.max(bottom, y + 1);
      area += 1;
      strongest = Math.max(strongest, data[place]);
      for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
        for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
          const near = row * width + column;
          if (labels[near] || !(data[near] > least)) continue;
          labels[near] = number;
          waiting.push(near);
        }
      }
    }
    pieces.push({ box: [left, top, right, bottom], area, strongest, numbers: [number] });
  }
  return { labels: grey(width, height, labels), pieces };
}

/** Ink, told from paper: what is dark, and what is connected to it; without specks and frames. */
export function findPieces(strength) {
  const candidates = strength.data.filter((value) => value > LEAST_CONTRAST).sort();
  const strongest = candidates[Math.round(0.95 * (candidates.length - 1))] ?? 1;
  const { labels, pieces } = connected(strength, Math.max(0.05, 0.3 * strongest));
  const sure = Math.max(LEAST_CONTRAST, 0.5 * strongest);
  const strokes = pieces
    .filter((piece) => piece.strongest > sure && sizeOfInk(piece) >= SPECK && piece.area >= SPECK)
    .sort((a, b) => b.area - a.area);
  const usual = usualSize(strokes);
  const large = strokes.filter((piece) => sizeOfInk(piece) > 0.12 * usual);
  return { labels, pieces: large.filter((piece) => !large.some((other) => isFrame(piece, other, labels))) };
}

/** Whether a piece is drawn around another one. */
function isFrame(piece, other, { width, data }) {
  const [left, top, right, bottom] = piece.box;
  const [from, above, to, below] = other.box;
  if (!(left < from && to < right && top < above && below < bottom)) return false;
  if (heightOf(other) <= 0.25 * heightOf(piece)) return false;
  const [x, y] = [(from + to) >> 1, (above + below) >> 1];
  const isMine = (column, row) => piece.numbers.includes(data[row * width + column]);
  const meets = (x_, y_, right_, down) => {
    for (; x_ >= left && x_ < right && y_ >= top && y_ < bottom; x_ += right_, y_ += down) {
      if (isMine(x_, y_)) return true;
    }
    return false;
  };
  return meets(x - 1, y, -1, 0) && meets(x, y, 1, 0) && meets(x, y - 1, 0, -1) && meets(x, y, 0, 1);
}

/** The longest side of the piece up to which, from low to high ones, half of all height is. */
export function usualSize(pieces) {
  const byHeight = [...pieces].sort((a, b) => heightOf(a) - heightOf(b));
  const total = byHeight.reduce((sum, piece) => sum + heightOf(piece), 0);
  let sum = 0;
  const usual = byHeight.find((piece) => (sum += heightOf(piece)) >= total / 2);
  return usual ? sizeOfInk(usual) : 0;
}

/** The usual size of digits: of pieces, unless they are so few that all may be one digit's. */
export function wholeSize(pieces, usual) {
  if (pieces.length < 2 || pieces.length > MOST_STROKES) return usual;
  return Math.max(usual, Math.min(LARGEST_WHOLE * usual, sizeOfInk(pieces.reduce(union))));
}

export function union(a, b) {
  const box = [0, 1, 2, 3].map((i) => Math[i < 2 ? "min" : "max"](a.box[i], b.box[i]));
  return { box, area: a.area + b.area, numbers: [...a.numbers, ...b.numbers] };
}

/** Put together what can only be the strokes of one digit, the smallest piece first. */
export function joinStrokes(given) {
  const usual = usualSize(given);
  const pieces = [...given];
  while (joinTwo(pieces, usual));
  return pieces.filter((piece) => widthOf(piece) < 4 * usual);
}

function joinTwo(pieces, usual) {
  for (const piece of [...pieces].sort((a, b) => sizeOfInk(a) - sizeOfInk(b))) {
    const near = pieces
      .filter((other) => other !== piece && belong(piece, other, usual))
      .map((other) => ({ other, gap: gaps(piece.box, other.box).reduce((a, b) => a + b) }))
      .sort((a, b) => a.gap - b.gap);
    if (near.length) {
      const { other } = near[0];
      pieces.splice(pieces.indexOf(piece), 1);
      pieces.splice(pieces.indexOf(other), 1);
      pieces.push(union(piece, other));
      return true;
    }
  }
  return false;
}

/** How far two boxes are apart, across and down; 0 where they overlap. */
const gaps = (a, b) =>
  [0, 1].map((axis) => Math.max(0, Math.max(a[axis], b[axis]) - Math.min(a[axis + 2], b[axis + 2])));

/** Whether two pieces are strokes of one digit. */
function belong(piece, other, usual) {
  const [a, b] = [piece.box, other.box];
  const [across, down] = gaps(a, b);
  const overlap = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  if (overlap >= 0.5 * Math.min(widthOf(piece), widthOf(other))) {
    // One above the other, as the bar of a 5.
    const below = b[1] > a[1] ? other : piece;
    if (widthOf(below) > BAR_FROM * heightOf(below)) return false; // the foot of a 2, or a line
    // Digits of two lines would be twice the usual height, and a gap more.
    const highest = (down <= 0.15 * usual ? 1.95 : 1.5) * usual;
    const height = Math.max(a[3], b[3]) - Math.min(a[1], b[1]);
    return height < highest && down <= JOINED_BELOW * usual;
  }
  const lower = Math.min(heightOf(piece), heightOf(other));
  const isBeside = Math.min(a[3], b[3]) - Math.max(a[1], b[1]) > 0.5 * lower;
  const isNear = (isBeside || down <= 0.1 * usual) && across <= JOINED_BESIDE * usual;
  if (lower < 0.6 * usual && isNear) return true;
  return lower < 0.8 * usual && isBeside && across <= 0.06 * usual;
}

/** Put together what may be the strokes of one digit, or digits beside each other, as `parts`. */
export function nearEachOther(pieces, whole) {
  let places = [];
  for (const piece of pieces) {
    let place = { ...piece, parts: [piece] };
    for (const other of [...places]) {
      const isNear = other.parts.some((part) => {
        const [across, down] = gaps(part.box, piece.box);
        const near = across <= NEAR_BESIDE * whole && down <= NEAR_BELOW * whole;
        return near && isOneDigitAtMost(union(part, piece), whole);
      });
      const both = { ...union(place, other), parts: [...place.parts, ...other.parts] };
      if (isNear && heightOf(both) <= TALLEST * whole) { // else it would be two lines
        places = places.filter((kept) => kept !== other);
        place = both;
      }
    }
    places.push(place);
  }
  const middle = ({ box: [left, , right] }) => left + right;
  for (const { parts } of places) parts.sort((a, b) => middle(a) - middle(b));
  return places;
}

export const isOneDigitAtMost = (ink, whole) =>
  heightOf(ink) <= TALLEST * whole && widthOf(ink) <= WIDEST * whole;

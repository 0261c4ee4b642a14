// The writing of a picture, separated from its paper: what reading/ink.py does.

import { crop, grey, map, mean, median, quantile, round, withMargin } from "./arrays.js";
import { fitIntoFrame } from "./digitImage.js";
import { contrastTo, denoised, paperCandidates } from "./paper.js";

/**
 * Separate ink from paper, whose colour is estimated in several ways.
 *
 * @returns `pixels` from 0, paper, to 255; `sizes`, likely heights of digits in them, the likeliest
 *   first, none if there is no ink; and `downscale`, as given.
 */
export function findInk({ planes, downscale }) {
  const pixels = denoised(planes);
  let best = null;
  for (const paper of paperCandidates(pixels)) {
    const { contrast, noise } = contrastTo(pixels, paper);
    const pieces = inkPieces(contrast, noise);
    const share = pieces.reduce((sum, { area }) => sum + area, 0) / contrast.data.length;
    const isClean = mean(noise.data) < MAX_NOISE;
    const isBetter = best && (isClean === best.isClean ? share < best.share : isClean);
    if (!best || isBetter) best = { contrast, noise, pieces, share, isClean };
    if (isClean && share < MAX_INK_SHARE) break;
  }
  return { pixels: normalised(best), sizes: likelySizes(best.pieces), downscale };
}

/** Find connected ink: pixels that cannot be noise, and fainter ones connected to them. */
function inkPieces(contrast, { data: noise }) {
  const { width, height, data } = contrast;
  const isAbove = (i, least, factor) => data[i] > Math.max(least, factor * noise[i]);
  const strong = data.filter((_, i) => isAbove(i, MIN_CONTRAST, 5));
  if (!strong.length) return [];
  const strongest = quantile(strong, 0.95);
  const isSure = (i) => data[i] > 0.5 * strongest && isAbove(i, MIN_CONTRAST, 5);
  const faintest = Math.max(0.05, 0.3 * strongest);
  const { data: unseen } = map(contrast, (_, i) => Number(isAbove(i, faintest, 3)));
  const pieces = [];
  for (let start = unseen.indexOf(1); start >= 0; start = unseen.indexOf(1, start)) {
    const piece = takePiece(unseen, width, height, start, isSure);
    if (piece.hasSure) pieces.push(piece);
  }
  return pieces;
}

/** Remove a pixel from a mask with all that are connected to it, also over corners. */
function takePiece(mask, width, height, start, isSure) {
  let [left, top, right, bottom, area, hasSure] = [width, height, 0, 0, 0, false];
  const waiting = [start];
  mask[start] = 0;
  while (waiting.length) {
    const place = waiting.pop();
    const x = place % width;
    const y = (place - x) / width;
    [left, top] = [Math.min(left, x), Math.min(top, y)];
    [right, bottom] = [Math.max(right, x + 1), Math.max(bottom, y + 1)];
    area += 1;
    hasSure ||= isSure(place);
    for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
      for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
        const near = row * width + column;
        if (mask[near]) waiting.push(near);
        mask[near] = 0;
      }
    }
  }
  return { width: right - left, height: bottom - top, area, hasSure };
}

/** Return medians of the pieces' longer sides: weighted by size, and not; without level lines. */
function likelySizes(pieces) {
  const sizeOf = ({ width, height }) => Math.max(width, height);
  const characters = pieces.filter(
    (piece) => sizeOf(piece) >= MIN_SIZE_PX && piece.width < LINE_FROM * piece.height,
  );
  const sizes = (characters.length ? characters : pieces).map(sizeOf).sort((a, b) => a - b);
  if (!sizes.length) return [];
  const half = sizes.reduce((sum, size) => sum + size) / 2;
  let sum = 0;
  return [sizes.find((size) => (sum += size) >= half), median(sizes)];
}

/** Scale contrast without noise so that most of the ink is near 255. */
function normalised({ contrast, noise: { data: noise } }) {
  const clean = map(contrast, (value, i) => Math.max(value - 2 * noise[i], 0));
  const inked = clean.data.filter((_, i) => contrast.data[i] > Math.max(MIN_CONTRAST, 5 * noise[i]));
  const full = inked.length ? quantile(inked, FULL_INK) : 1;
  return map(clean, (value) => Math.floor(Math.min(255, value * (255 / full))));
}

/** Cut a digit out, by its box in the picture, and prepare it like an image of MNIST. */
export function digitImage({ pixels, downscale }, box) {
  const [left, top, right, bottom] = withinPicture(box.map((edge) => round(edge / downscale)), pixels);
  const margin = 2 + Math.floor(Math.max(right - left, bottom - top) / 20);
  const cut = map(crop(pixels, left, top, right - left, bottom - top), (value) => value / 255);
  const inner = [margin, margin, margin + right - left, margin + bottom - top];
  return fitIntoFrame(withMargin(cut, margin), inner) ?? grey(FRAME, FRAME);
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

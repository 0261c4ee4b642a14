// From a picture to its reading, as reading/classifier.py.

import { grey, largest, mean } from "./arrays.js";
import { decode } from "./decode.js";
import { detect } from "./detector.js";
import { digitImage, findInk, pictureBox } from "./ink.js";
import { textLines } from "./lines.js";
import { Network } from "./network.js";

/** @param json the graphs of two networks, `classifier` and `detector`. */
export function loadNetworks(json) {
  const { classifier, detector } = JSON.parse(json);
  return { classifier: new Network(classifier), detector: new Network(detector) };
}

/**
 * Read a picture: the detector locates digits, both networks decide.
 *
 * @param networks as `loadNetworks` returns them.
 * @param picture for `decode`.
 * @returns `{ number, digits, note }`, as the page takes it.
 */
export function read({ classifier, detector }, picture) {
  const ink = findInk(decode(picture));
  if (!ink.sizes.length) return { number: "", digits: [], note: "" };
  const { digits: found, isComplete } = detect(detector, ink.pixels, ink.sizes);
  const drawn = found
    .map(({ probs, box }) => ({ probs, box: pictureBox(ink, box) }))
    .map((digit) => ({ ...digit, image: digitImage(ink, digit.box) }))
    .filter(({ image }) => image); // others are blobs
  const classified = ttaLogProbabilities(classifier, drawn.map(({ image }) => image));
  const digits = drawn.map(({ probs, box, image }, i) => {
    const logs = combined(probs, classified[i]);
    const probabilities = logs.map(Math.exp);
    const confidence = Math.max(...probabilities);
    const digit = probabilities.indexOf(confidence);
    return { digit, confidence, probabilities, box, ...inside(classifier, image) };
  });
  const lines = textLines(drawn.map(({ box }) => box)).map((line) => line.map((i) => digits[i]));
  const number = lines.map((line) => line.map(({ digit }) => digit).join("")).join(" ");
  return { number, digits: lines.flat(), note: isComplete ? "" : TOO_SMALL };
}

/** Combine the detector's probabilities and the classifier's logarithms of theirs. */
function combined(probs, logs) {
  const clamped = probs.map((prob) => Math.min(Math.max(prob, MIN_PROB), 1 - MIN_PROB));
  const detected = logSoftmax(clamped.map((prob) => Math.log(prob / (1 - prob))));
  const least = Math.log(MIN_PROB);
  return logSoftmax(
    logs.map((log, i) => DETECTOR_EXPONENT * detected[i] + CLASSIFIER_EXPONENT * Math.max(log, least)),
  );
}

/** Compute log probabilities of digits, of unsure ones as a mean over several views. */
function ttaLogProbabilities(network, images) {
  return logProbabilities(network, images).map((logs, i) => {
    if (Math.max(...logs) >= Math.log(SURE_PROB)) return logs;
    const views = [logs, ...logProbabilities(network, ttaViews(images[i]))];
    return logSoftmax(logs.map((_, digit) => mean(views.map((view) => view[digit]))));
  });
}

function logProbabilities(network, images) {
  if (!images.length) return [];
  const { data } = network.run(asBatch(images), "logits");
  return images.map((_, i) => logSoftmax([...data.subarray(10 * i, 10 * (i + 1))]));
}

function asBatch(images) {
  const data = new Float32Array(images.length * IMAGE_PX ** 2);
  images.forEach((image, i) => data.set(image.data, i * IMAGE_PX ** 2));
  return { shape: [images.length, 1, IMAGE_PX, IMAGE_PX], data };
}

function logSoftmax(logits) {
  const most = Math.max(...logits);
  const total = most + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
  return logits.map((logit) => logit - total);
}

/** Turn an image a little either way, and slant it a little either way. */
function ttaViews(image) {
  const angle = (VIEW_DEG * Math.PI) / 180;
  const [cos, sin, slant] = [Math.cos(angle), Math.sin(angle), Math.tan(angle)];
  const middle = (IMAGE_PX - 1) / 2;
  return [[cos, -sin, sin, cos], [cos, sin, -sin, cos], [1, slant, 0, 1], [1, -slant, 0, 1]].map(
    ([a, b, c, d]) => {
      const view = grey(IMAGE_PX, IMAGE_PX);
      for (let i = 0; i < view.data.length; i++) {
        const [x, y] = [(i % IMAGE_PX) - middle, Math.floor(i / IMAGE_PX) - middle];
        view.data[i] = between(image, middle + a * x + b * y, middle + c * x + d * y);
      }
      return view;
    },
  );
}

/** Interpolate the ink at a place between pixels. */
function between({ width, height, data }, x, y) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const at = (column, row) =>
    column >= 0 && column < width && row >= 0 && row < height ? data[row * width + column] : 0;
  const [right, down] = [x - left, y - top];
  const above = at(left, top) * (1 - right) + at(left + 1, top) * right;
  return above * (1 - down) + (at(left, top + 1) * (1 - right) + at(left + 1, top + 1) * right) * down;
}

/** Return what the page shows of the classifier: its input, and the activations of its first layer. */
function inside(network, image) {
  const shown = { image: asBytes(image.data, 1), feature_maps: [] };
  if (!network.has("feature_maps")) return shown;
  const { shape, data } = network.run(asBatch([image]), "feature_maps");
  const most = largest(data, 1e-6);
  const area = shape[2] * shape[3];
  for (let start = 0; start < data.length; start += area) {
    shown.feature_maps.push(asBytes(data.subarray(start, start + area), most));
  }
  return shown;
}

const asBytes = (values, most) => Uint8Array.from(values, (value) => Math.round((255 * value) / most));

// Runs a network: the operations of an ONNX graph one after the other. A tensor is its shape and its
// values, row by row.

import { NUM_FILTERS, NUM_PLACES, addProducts, memory } from "./kernel.js";

const tensor = (shape, data = new Float32Array(sizeOf(shape))) => ({ shape, data });
const sizeOf = (shape) => shape.reduce((product, size) => product * size, 1);

export class Network {
  /**
   * @param graph `{ nodes: [{ operation, inputs, outputs, attributes }], constants }`, nodes after
   *   all that they need, constants by their names: `{ shape, integers }`, numbers, or little-endian
   *   float32 or float16 as base64, `{ shape, floats }` or `{ shape, halves }`.
   */
  constructor({ nodes, constants }) {
    this.makers = new Map(nodes.flatMap((node) => node.outputs.map((name) => [name, node])));
    this.nodes = nodes;
    this.constants = Object.entries(constants).map(
      ([name, { shape, ...coded }]) => [name, tensor(shape, valuesOf(coded))],
    );
  }

  /** Compute one of the outputs, and nothing else, from `images`, a tensor `(B, 1, H, W)`. */
  run(images, output) {
    const needed = this.nodesFor(output);
    const nodes = this.nodes.filter(({ outputs }) => needed.has(outputs[0]));
    const lastUse = new Map(nodes.flatMap((node) => node.inputs.map((name) => [name, node])));
    const values = new Map([["images", images], ...this.constants]);
    for (const node of nodes) {
      const given = node.inputs.map((name) => values.get(name)); // "" for what is left out
      values.set(node.outputs[0], OPERATIONS[node.operation](given, node.attributes));
      // Of a large picture, all values together would take hundreds of megabytes.
      for (const name of node.inputs) if (lastUse.get(name) === node) values.delete(name);
    }
    return values.get(output);
  }

  nodesFor(output, needed = new Set()) {
    if (this.makers.has(output) && !needed.has(output)) {
      needed.add(output);
      for (const input of this.makers.get(output).inputs) this.nodesFor(input, needed);
    }
    return needed;
  }

  has(output) {
    return this.makers.has(output);
  }
}

function valuesOf({ integers, floats, halves }) {
  if (integers) return Float32Array.from(integers);
  const { buffer } = Uint8Array.from(atob(floats ?? halves), (character) => character.charCodeAt(0));
  return floats ? new Float32Array(buffer) : new Float32Array(new Uint16Array(buffer)).map(fromHalf);
}

/** Decode a finite float16, given as a number of 16 bits. */
function fromHalf(bits) {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}

// Source of the operators, their attributes and inputs: the ONNX operator specification.
// `export` refuses other operations, and attributes that are not looked at here.
const OPERATIONS = {
  Identity: ([x]) => x,
  Add: ([a, b]) => combine(a, b, (p, q) => p + q),
  Sub: ([a, b]) => combine(a, b, (p, q) => p - q),
  Mul: ([a, b]) => combine(a, b, (p, q) => p * q),
  Div: ([a, b]) => combine(a, b, (p, q) => p / q),
  Pow: ([a, b]) => combine(a, b, (p, q) => p ** q),
  Relu: ([x]) => each(x, (value) => Math.max(0, value)),
  LeakyRelu: ([x], { alpha = 0.01 }) => each(x, (value) => (value < 0 ? alpha * value : value)),
  Clip: ([x, low, high]) => each(x, (value) => clip(value, low?.data[0], high?.data[0])),
  Sigmoid: ([x]) => each(x, (value) => 1 / (1 + Math.exp(-value))),
  Tanh: ([x]) => each(x, Math.tanh),
  Exp: ([x]) => each(x, Math.exp),
  Sqrt: ([x]) => each(x, Math.sqrt),
  Erf: ([x]) => each(x, erf),
  Conv: ([x, weight, bias], attributes) => convolve(x, weight, bias, attributes),
  MaxPool: ([x], attributes) => pool(x, attributes, LARGEST),
  AveragePool: ([x], attributes) => pool(x, attributes, MEAN),
  BatchNormalization: ([x, ...of], { epsilon = 1e-5 }) => normalise(x, of, epsilon),
  Gemm: ([a, b, c], attributes) => gemm(a, b, c, attributes),
  MatMul: ([a, b]) => multiply(a, b),
  Softmax: ([x], { axis = -1 }) => softmax(x, axis, Math.exp),
  LogSoftmax: ([x], { axis = -1 }) => softmax(x, axis, (value) => value),
  ReduceMean: ([x, axes], attributes) => reduce(x, integers(axes), attributes, MEAN),
  ReduceMax: ([x, axes], attributes) => reduce(x, integers(axes), attributes, LARGEST),
  Shape: ([{ shape }], { start, end }) => vector(shape.slice(start, end)),
  Reshape: ([x, to]) => reshape(x, integers(to)),
  Flatten: ([x], { axis = 1 }) => flatten(x, axis),
  Squeeze: ([x, axes]) => squeeze(x, integers(axes)),
  Unsqueeze: ([x, axes]) => unsqueeze(x, integers(axes)),
  Transpose: ([x], { perm }) => transpose(x, perm ?? x.shape.map((_, axis) => axis).reverse()),
  Concat: (parts, { axis }) => concatenate(parts, axis),
  DepthToSpace: ([x], { blocksize }) => depthToSpace(x, blocksize),
  Slice: ([x, ...places]) => slice(x, ...places.map(integers)),
};

const vector = (values) => tensor([values.length], Float32Array.from(values));
const integers = (given) => given && [...given.data]; // sizes and places; undefined if left out
const clip = (value, low = -Infinity, high = Infinity) => Math.min(high, Math.max(low, value));

function each({ shape, data }, change) {
  const out = tensor(shape);
  for (let i = 0; i < data.length; i++) out.data[i] = change(data[i]);
  return out;
}

/** Abramowitz and Stegun, 7.1.26: within 1.5e-7. */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const factors = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
  const sum = factors.reduce((total, factor) => total * t + factor, 0) * t;
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

/** How far apart in the values neighbours along each axis are. */
function stridesOf(shape) {
  const strides = Array(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1] * shape[axis + 1];
  return strides;
}

/** A tensor whose value at (i, j, ...) is that of `data` at start + i * steps[0] + j * steps[1] ... */
function gather(data, shape, start, steps) {
  const found = tensor(shape);
  const last = shape.length - 1;
  let written = 0;
  const fill = (axis, place) => {
    if (axis > last) found.data[written++] = data[place];
    else for (let i = 0; i < shape[axis]; i++) fill(axis + 1, place + i * steps[axis]);
  };
  fill(0, start);
  return found;
}

/** Two tensors, value by value; where one has a single value along an axis, it goes with all. */
function combine(a, b, operator) {
  const rank = Math.max(a.shape.length, b.shape.length);
  const [first, second] = [a, b].map(({ shape }) => [...Array(rank - shape.length).fill(1), ...shape]);
  const shape = first.map((size, axis) => (size === 1 ? second[axis] : size));
  const [left, right] = [first, second].map((sizes) =>
    stridesOf(sizes).map((stride, axis) => (sizes[axis] === 1 ? 0 : stride)),
  );
  const out = tensor(shape);
  const last = rank - 1;
  let written = 0;
  const fill = (axis, i, j) => {
    if (axis > last) out.data[written++] = operator(a.data[i], b.data[j]); // single numbers
    for (let n = 0; n < shape[axis]; n++) {
      if (axis < last) fill(axis + 1, i + n * left[axis], j + n * right[axis]);
      else out.data[written++] = operator(a.data[i + n * left[axis]], b.data[j + n * right[axis]]);
    }
  };
  fill(0, 0, 0);
  return out;
}

// Reductions: start, step, and the final value from the result and the number of values.
const LARGEST = { start: -Infinity, add: (most, value) => Math.max(most, value), end: (most) => most };
const MEAN = { start: 0, add: (sum, value) => sum + value, end: (sum, count) => sum / count };

/** How many places a window has along an axis. */
const placesOf = (size, before, after, window, stride) =>
  Math.floor((size + before + after - window) / stride) + 1;

function convolve(x, weight, bias, attributes) {
  const { group = 1, pads = [0, 0, 0, 0], strides = [1, 1], dilations = [1, 1] } = attributes;
  const [batch, , height, width] = x.shape;
  const [numOut, numEach, rows, columns] = weight.shape;
  const outHeight = placesOf(height, pads[0], pads[2], (rows - 1) * dilations[0] + 1, strides[0]);
  const outWidth = placesOf(width, pads[1], pads[3], (columns - 1) * dilations[1] + 1, strides[1]);
  const out = tensor([batch, numOut, outHeight, outWidth]);
  const [inner, perGroup] = [numEach * rows * columns, numOut / group];
  const frame = { top: pads[0], left: pads[1], width: pads[1] + width + pads[3] };
  frame.area = frame.width * (pads[0] + height + pads[2]);
  const { sums, offsets, filters, maps } = reserve(inner, perGroup, numEach * frame.area);
  offsets.forEach((_, k) => {
    const map = Math.floor(k / (rows * columns));
    const [row, column] = [Math.floor(k / columns) % rows, k % columns];
    offsets[k] = 4 * (map * frame.area + row * dilations[0] * frame.width + column * dilations[1]);
  });
  const numTaken = Math.max(1, Math.floor(NUM_PLACES / strides[1])); // of the places side by side
  const computeAt = (row, column, firstMap, part) => {
    const start = maps.byteOffset + 4 * (row * strides[0] * frame.width + column * strides[1]);
    for (let filter = 0; filter < perGroup; filter += NUM_FILTERS) {
      const packed = filters.byteOffset + 4 * filter * inner;
      addProducts(packed, offsets.byteOffset, filters.byteOffset, start, sums.byteOffset);
      for (let i = 0; i < Math.min(NUM_FILTERS, perGroup - filter); i++) {
        const term = bias ? bias.data[part * perGroup + filter + i] : 0;
        const to = ((firstMap + filter + i) * outHeight + row) * outWidth + column;
        for (let j = 0; j < Math.min(numTaken, outWidth - column); j++) {
          out.data[to + j] = sums[i * NUM_PLACES + j * strides[1]] + term;
        }
      }
    }
  };
  for (let part = 0; part < group; part++) {
    packFilters(filters, weight.data.subarray(part * perGroup * inner), perGroup, inner);
    for (let image = 0; image < batch; image++) {
      fillFrames(maps, x, (image * group + part) * numEach, numEach, frame);
      for (let row = 0; row < outHeight; row++) {
        for (let column = 0; column < outWidth; column += numTaken) {
          computeAt(row, column, image * numOut + part * perGroup, part);
        }
      }
    }
  }
  return out;
}

/** Return parts of the kernel's memory; in it, filters follow the offsets. */
function reserve(numOffsets, numFilters, numValues) {
  const numWeights = NUM_FILTERS * Math.ceil(numFilters / NUM_FILTERS) * numOffsets;
  const lengths = [NUM_FILTERS * NUM_PLACES, numOffsets, numWeights, numValues];
  // The last places of a row may need what lies behind it.
  const numBytes = 4 * lengths.reduce((sum, length) => sum + length, NUM_PLACES);
  const missing = numBytes - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  let start = 0;
  const [sums, offsets, filters, maps] = lengths.map((length, i) => {
    start += 4 * length;
    return new (i === 1 ? Int32Array : Float32Array)(memory.buffer, start - 4 * length, length);
  });
  return { sums, offsets, filters, maps };
}

/** Put the weights of NUM_FILTERS filters side by side; those of missing filters are 0. */
function packFilters(packed, weights, count, inner) {
  packed.fill(0);
  for (let filter = 0; filter < count; filter++) {
    const beside = filter % NUM_FILTERS;
    const start = (filter - beside) * inner + beside;
    for (let k = 0; k < inner; k++) packed[start + k * NUM_FILTERS] = weights[filter * inner + k];
  }
}

/** Copy maps with a margin of zeros. */
function fillFrames(frames, x, first, count, { top, left, width: wide, area }) {
  const [height, width] = x.shape.slice(2);
  frames.fill(0);
  for (let map = 0; map < count; map++) {
    for (let y = 0; y < height; y++) {
      const from = ((first + map) * height + y) * width;
      frames.set(x.data.subarray(from, from + width), map * area + (top + y) * wide + left);
    }
  }
}

/** Pool each window; padding does not count. */
function pool(x, { kernel_shape, pads = [0, 0, 0, 0], strides = [1, 1] }, { start, add, end }) {
  const [rows, columns] = kernel_shape;
  const [batch, channels, height, width] = x.shape;
  const outHeight = placesOf(height, pads[0], pads[2], rows, strides[0]);
  const outWidth = placesOf(width, pads[1], pads[3], columns, strides[1]);
  const out = tensor([batch, channels, outHeight, outWidth]);
  for (let i = 0; i < out.data.length; i++) {
    const map = Math.floor(i / (outHeight * outWidth)) * height;
    const top = (Math.floor(i / outWidth) % outHeight) * strides[0] - pads[0];
    const left = (i % outWidth) * strides[1] - pads[1];
    let [sum, count] = [start, 0];
    for (let row = Math.max(0, top); row < Math.min(height, top + rows); row++) {
      for (let column = Math.max(0, left); column < Math.min(width, left + columns); column++) {
        sum = add(sum, x.data[(map + row) * width + column]);
        count += 1;
      }
    }
    out.data[i] = end(sum, count);
  }
  return out;
}

function normalise({ shape, data }, [scale, bias, means, variances], epsilon) {
  const area = sizeOf(shape.slice(2));
  const out = tensor(shape);
  for (let map = 0; map < shape[0] * shape[1]; map++) {
    const c = map % shape[1];
    const factor = scale.data[c] / Math.sqrt(variances.data[c] + epsilon);
    for (let i = map * area; i < (map + 1) * area; i++) {
      out.data[i] = (data[i] - means.data[c]) * factor + bias.data[c];
    }
  }
  return out;
}

function gemm(a, b, c, { alpha = 1, beta = 1, transA = 0, transB = 0 }) {
  const product = multiply(transA ? turned(a) : a, transB ? turned(b) : b);
  const scaled = alpha === 1 ? product : each(product, (value) => alpha * value);
  return c ? combine(scaled, c, (value, term) => value + beta * term) : scaled;
}

/** A matrix whose rows are its columns; its values stay where they are. */
function turned({ shape: [rows, columns], data }) {
  return { shape: [columns, rows], data, strides: [1, columns] };
}

/** Matrices, or stacks of as many. */
function multiply(a, b) {
  const [rows, inner] = a.shape.slice(-2);
  const columns = b.shape.at(-1);
  const [stacksOfA, stacksOfB] = [a, b].map(({ shape }) => shape.slice(0, -2));
  const stacks = combine(numbered(stacksOfA), numbered(stacksOfB), (first) => first);
  const others = combine(numbered(stacksOfA), numbered(stacksOfB), (_, second) => second);
  const [down, along] = a.strides ?? [inner, 1];
  const [below, beside] = b.strides ?? [columns, 1];
  const out = tensor([...stacks.shape, rows, columns]);
  for (let i = 0; i < out.data.length; i++) {
    const stack = Math.floor(i / (rows * columns));
    const left = stacks.data[stack] * rows * inner + (Math.floor(i / columns) % rows) * down;
    const right = others.data[stack] * inner * columns + (i % columns) * beside;
    let sum = 0;
    for (let k = 0; k < inner; k++) sum += a.data[left + k * along] * b.data[right + k * below];
    out.data[i] = sum;
  }
  return out;
}

const numbered = (shape) => tensor(shape, Float32Array.from({ length: sizeOf(shape) }, (_, i) => i));

function softmax(x, axis, form) {
  const at = axis < 0 ? axis + x.shape.length : axis;
  const [count, step] = [x.shape[at], stridesOf(x.shape)[at]];
  const out = tensor(x.shape);
  for (let start = 0; start < x.data.length; start++) {
    if (Math.floor(start / step) % count) continue; // not the first along the axis
    let most = -Infinity;
    for (let i = 0; i < count; i++) most = Math.max(most, x.data[start + i * step]);
    let sum = 0;
    for (let i = 0; i < count; i++) sum += Math.exp(x.data[start + i * step] - most);
    for (let i = 0; i < count; i++) {
      const place = start + i * step;
      out.data[place] = form(x.data[place] - most - Math.log(sum));
    }
  }
  return out;
}

const positive = (axes, rank) => axes.map((axis) => (axis < 0 ? axis + rank : axis));

function reduce(x, axes, { keepdims = 1 }, { start, add, end }) {
  const rank = x.shape.length;
  const reduced = new Set(axes ? positive(axes, rank) : x.shape.keys());
  const kept = [...x.shape.keys()].filter((axis) => !reduced.has(axis));
  const ordered = transpose(x, [...kept, ...reduced]);
  const count = sizeOf([...reduced].map((axis) => x.shape[axis]));
  const out = tensor(
    keepdims ? x.shape.map((size, axis) => (reduced.has(axis) ? 1 : size)) : kept.map((axis) => x.shape[axis]),
  );
  for (let i = 0; i < out.data.length; i++) {
    let sum = start;
    for (let j = i * count; j < (i + 1) * count; j++) sum = add(sum, ordered.data[j]);
    out.data[i] = end(sum, count);
  }
  return out;
}

function reshape({ shape, data }, to) {
  const sizes = to.map((size, axis) => size || shape[axis]); // 0: as it is
  const known = sizeOf(sizes.filter((size) => size > 0));
  return tensor(sizes.map((size) => (size < 0 ? data.length / known : size)), data);
}

function flatten({ shape, data }, axis) {
  const rows = sizeOf(shape.slice(0, axis));
  return tensor([rows, data.length / rows], data);
}

function squeeze({ shape, data }, axes) {
  const gone = axes ? positive(axes, shape.length) : [...shape.keys()].filter((axis) => shape[axis] === 1);
  return tensor(shape.filter((_, axis) => !gone.includes(axis)), data);
}

function unsqueeze({ shape, data }, axes) {
  const widened = [...shape];
  for (const axis of positive(axes, shape.length + axes.length).sort((a, b) => a - b)) {
    widened.splice(axis, 0, 1);
  }
  return tensor(widened, data);
}

function transpose({ shape, data }, order) {
  const strides = stridesOf(shape);
  return gather(data, order.map((axis) => shape[axis]), 0, order.map((axis) => strides[axis]));
}

function concatenate(parts, axis) {
  const [at] = positive([axis], parts[0].shape.length);
  const total = parts.reduce((sum, { shape }) => sum + shape[at], 0);
  const out = tensor(parts[0].shape.with(at, total));
  const blocks = sizeOf(out.shape.slice(0, at));
  let written = 0;
  for (let block = 0; block < blocks; block++) {
    for (const { data } of parts) {
      const length = data.length / blocks;
      out.data.set(data.subarray(block * length, (block + 1) * length), written);
      written += length;
    }
  }
  return out;
}

/** In mode CRD, as torch's PixelShuffle. */
function depthToSpace({ shape: [batch, channels, height, width], data }, size) {
  const numOut = channels / size ** 2;
  const split = tensor([batch, numOut, size, size, height, width], data);
  const { data: moved } = transpose(split, [0, 1, 4, 2, 5, 3]);
  return tensor([batch, numOut, height * size, width * size], moved);
}

function slice({ shape, data }, starts, ends, axes = starts.map((_, i) => i), steps = starts.map(() => 1)) {
  const strides = stridesOf(shape);
  const sizes = [...shape];
  let start = 0;
  positive(axes, shape.length).forEach((axis, i) => {
    const size = shape[axis];
    const [low, high] = steps[i] > 0 ? [0, size] : [-1, size - 1];
    const place = (at) => Math.min(Math.max(at < 0 ? at + size : at, low), high);
    const [first, end] = [place(starts[i]), place(ends[i])];
    sizes[axis] = Math.max(0, Math.ceil((end - first) / steps[i]));
    start += first * strides[axis];
    strides[axis] *= steps[i];
  });
  return gather(data, sizes, start, strides);
}

// Runs a network: the operations of an ONNX graph one after the other. A tensor is its shape and its
// values, row by row.

const tensor = (shape, data = new Float32Array(sizeOf(shape))) => ({ shape, data });
const sizeOf = (shape) => shape.reduce((product, size) => product * size, 1);

export class Network {
  /**
   * @param graph `{ nodes: [{ operation, inputs, outputs, attributes }], constants }`, nodes after
   *   all that they need, constants `{ shape, floats }` or `{ shape, integers }` by their names:
   *   little-endian float32 as base64, or numbers.
   */
  constructor({ nodes, constants }) {
    this.makers = new Map(nodes.flatMap((node) => node.outputs.map((name) => [name, node])));
    this.nodes = nodes;
    this.constants = Object.entries(constants).map(([name, { shape, floats, integers }]) => {
      const data = integers ?? new Float32Array(bytesOf(floats).buffer);
      return [name, tensor(shape, data)];
    });
  }

  /** One of the outputs for images, a tensor `(B, 1, 28, 28)`; nothing else is computed. */
  run(images, output) {
    const needed = this.nodesFor(output);
    const values = new Map([["images", images], ...this.constants]);
    for (const { operation, inputs, outputs, attributes } of this.nodes) {
      if (!needed.has(outputs[0])) continue;
      const given = inputs.map((name) => values.get(name)); // "" for what is left out
      values.set(outputs[0], OPERATIONS[operation](given, attributes));
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

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

// What each does, and what the attributes and inputs mean, says the ONNX operator specification.
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
  Sigmoid: ([x]) => each(x, (value) => 1 / (1 + Math.exp(-value))),
  Tanh: ([x]) => each(x, Math.tanh),
  Exp: ([x]) => each(x, Math.exp),
  Sqrt: ([x]) => each(x, Math.sqrt),
  Erf: ([x]) => each(x, erf),
  Conv: ([x, weight, bias], attributes) => convolve(x, weight, bias, attributes),
  MaxPool: ([x], attributes) => pool(x, attributes, largest),
  AveragePool: ([x], attributes) => pool(x, attributes, mean),
  BatchNormalization: ([x, ...of], { epsilon = 1e-5 }) => normalise(x, of, epsilon),
  Gemm: ([a, b, c], attributes) => gemm(a, b, c, attributes),
  MatMul: ([a, b]) => multiply(a, b),
  Softmax: ([x], { axis = -1 }) => softmax(x, axis, Math.exp),
  LogSoftmax: ([x], { axis = -1 }) => softmax(x, axis, (value) => value),
  ReduceMean: ([x, axes], { keepdims = 1 }) => reduceMean(x, axes?.data, keepdims),
  Reshape: ([x, to]) => reshape(x, to.data),
  Flatten: ([x], { axis = 1 }) => flatten(x, axis),
  Squeeze: ([x, axes]) => squeeze(x, axes?.data),
  Unsqueeze: ([x, axes]) => unsqueeze(x, axes.data),
  Transpose: ([x], { perm }) => transpose(x, perm ?? x.shape.map((_, axis) => axis).reverse()),
  Concat: (parts, { axis }) => concatenate(parts, axis),
  Slice: ([x, starts, ends, axes, steps]) => slice(x, starts.data, ends.data, axes?.data, steps?.data),
};

const each = ({ shape, data }, change) => tensor(shape, data.map(change));

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

/** The shape of both together, and each as if it had that shape. */
function broadcast(a, b) {
  const rank = Math.max(a.shape.length, b.shape.length);
  const [first, second] = [a, b].map(({ shape }) => [...Array(rank - shape.length).fill(1), ...shape]);
  const shape = first.map((size, axis) => (size === 1 ? second[axis] : size));
  const spread = ({ data }, from) => {
    if (from.every((size, axis) => size === shape[axis])) return data;
    const strides = stridesOf(from).map((stride, axis) => (from[axis] === 1 ? 0 : stride));
    return gather(data, shape, 0, strides).data;
  };
  return { shape, left: spread(a, first), right: spread(b, second) };
}

function combine(a, b, operator) {
  const { shape, left, right } = broadcast(a, b);
  return tensor(shape, Float32Array.from(left, (value, i) => operator(value, right[i])));
}

/** How many places a window has along an axis. */
const placesOf = (size, before, after, window, stride) =>
  Math.floor((size + before + after - window) / stride) + 1;

/** The first and the first no more of `places` from which `offset` further still is within `size`. */
function within(places, stride, offset, size) {
  const from = Math.max(0, Math.ceil(-offset / stride));
  return [from, Math.min(places, Math.floor((size - 1 - offset) / stride) + 1)];
}

function convolve(x, weight, bias, { group = 1, pads = [0, 0, 0, 0], strides = [1, 1], dilations = [1, 1] }) {
  const [batch, numIn, height, width] = x.shape;
  const [numOut, numEach, rows, columns] = weight.shape;
  const [top, left, bottom, right] = pads;
  const [down, along] = strides;
  const outHeight = placesOf(height, top, bottom, (rows - 1) * dilations[0] + 1, down);
  const outWidth = placesOf(width, left, right, (columns - 1) * dilations[1] + 1, along);
  const out = tensor([batch, numOut, outHeight, outWidth]);
  for (let b = 0; b < batch; b++) {
    for (let o = 0; o < numOut; o++) {
      const to = (b * numOut + o) * outHeight * outWidth;
      if (bias) out.data.fill(bias.data[o], to, to + outHeight * outWidth);
      const firstIn = Math.floor(o / (numOut / group)) * numEach;
      for (let i = 0; i < numEach; i++) {
        const from = (b * numIn + firstIn + i) * height * width;
        for (let row = 0; row < rows; row++) {
          const above = row * dilations[0] - top;
          const [firstY, endY] = within(outHeight, down, above, height);
          for (let column = 0; column < columns; column++) {
            const before = column * dilations[1] - left;
            const [firstX, endX] = within(outWidth, along, before, width);
            const factor = weight.data[((o * numEach + i) * rows + row) * columns + column];
            for (let y = firstY; y < endY; y++) {
              const target = to + y * outWidth;
              const source = from + (y * down + above) * width + before;
              for (let x_ = firstX; x_ < endX; x_++) {
                out.data[target + x_] += factor * x.data[source + x_ * along];
              }
            }
          }
        }
      }
    }
  }
  return out;
}

const largest = (values, count) => values.subarray(0, count).reduce((a, b) => Math.max(a, b));
const mean = (values, count) => values.subarray(0, count).reduce((a, b) => a + b) / count;

/** @param summary what the values in a window come to: the first `count` of an array. */
function pool(x, { kernel_shape: [rows, columns], pads = [0, 0, 0, 0], strides = [1, 1] }, summary) {
  const [batch, channels, height, width] = x.shape;
  const [top, left, bottom, right] = pads;
  const outHeight = placesOf(height, top, bottom, rows, strides[0]);
  const outWidth = placesOf(width, left, right, columns, strides[1]);
  const out = tensor([batch, channels, outHeight, outWidth]);
  const values = new Float32Array(rows * columns);
  let written = 0;
  for (let map = 0; map < batch * channels; map++) {
    for (let y = 0; y < outHeight; y++) {
      for (let x_ = 0; x_ < outWidth; x_++) {
        const [firstY, firstX] = [y * strides[0] - top, x_ * strides[1] - left];
        let count = 0;
        for (let row = Math.max(0, firstY); row < Math.min(height, firstY + rows); row++) {
          for (let column = Math.max(0, firstX); column < Math.min(width, firstX + columns); column++) {
            values[count++] = x.data[(map * height + row) * width + column];
          }
        }
        out.data[written++] = summary(values, count);
      }
    }
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
  const product = multiply(transA ? transpose(a, [1, 0]) : a, transB ? transpose(b, [1, 0]) : b);
  const scaled = alpha === 1 ? product : each(product, (value) => alpha * value);
  return c ? combine(scaled, c, (value, term) => value + beta * term) : scaled;
}

/** Matrices, or stacks of as many. */
function multiply(a, b) {
  const [rows, inner] = a.shape.slice(-2);
  const columns = b.shape.at(-1);
  const stacks = broadcast(
    { shape: a.shape.slice(0, -2), data: stackNumbers(a) },
    { shape: b.shape.slice(0, -2), data: stackNumbers(b) },
  );
  const out = tensor([...stacks.shape, rows, columns]);
  for (let stack = 0; stack < sizeOf(stacks.shape); stack++) {
    for (let row = 0; row < rows; row++) {
      const to = (stack * rows + row) * columns;
      for (let i = 0; i < inner; i++) {
        const factor = a.data[(stacks.left[stack] * rows + row) * inner + i];
        const from = (stacks.right[stack] * inner + i) * columns;
        for (let column = 0; column < columns; column++) {
          out.data[to + column] += factor * b.data[from + column];
        }
      }
    }
  }
  return out;
}

const stackNumbers = ({ shape }) => Float32Array.from({ length: sizeOf(shape.slice(0, -2)) }, (_, i) => i);

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

function reduceMean(x, axes, keep) {
  const rank = x.shape.length;
  const reduced = new Set(axes ? positive(axes, rank) : x.shape.keys());
  const kept = [...x.shape.keys()].filter((axis) => !reduced.has(axis));
  const ordered = transpose(x, [...kept, ...reduced]);
  const count = sizeOf([...reduced].map((axis) => x.shape[axis]));
  const shape = keep ? x.shape.map((size, axis) => (reduced.has(axis) ? 1 : size)) : kept.map((axis) => x.shape[axis]);
  const out = tensor(shape);
  for (let i = 0; i < out.data.length; i++) {
    let sum = 0;
    for (let j = i * count; j < (i + 1) * count; j++) sum += ordered.data[j];
    out.data[i] = sum / count;
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

// The sums of products that convolutions consist of, in WebAssembly: it multiplies four numbers at
// once, which JavaScript cannot say, and so is eight times as fast.

export const NUM_FILTERS = 4; // computed at once: their sums stay in registers
export const NUM_PLACES = 8;
const NUM_VECTORS = NUM_PLACES / 4;

export const memory = new WebAssembly.Memory({ initial: 1 });

// Parameters and variables of the function, by their numbers.
const [FILTERS, OFFSETS, END, START, SUMS, ADDRESS] = [0, 1, 2, 3, 4, 5];
const sumOf = (filter, vector) => 6 + filter * NUM_VECTORS + vector;
const factorOf = (vector) => sumOf(NUM_FILTERS, vector);
const WEIGHT = factorOf(NUM_VECTORS);

// Instructions: https://webassembly.github.io/spec/core/binary/instructions.html
const get = (variable) => [0x20, variable];
const set = (variable) => [0x21, variable];
const load = (bytes) => [0xfd, 0, 4, bytes];
const loadForAll = (bytes) => [0xfd, 9, 2, bytes];
const store = (bytes) => [0xfd, 11, 4, ...number(bytes)];
const [ADD, MULTIPLY] = [[0xfd, 0xe4, 1], [0xfd, 0xe6, 1]];
const LOAD_NUMBER = [0x28, 2, 0];
const ADD_NUMBERS = 0x6a;
const advance = (pointer, bytes) => [...get(pointer), 0x41, bytes, ADD_NUMBERS, ...set(pointer)];
const [LOOP, AGAIN_IF_NOT_EQUAL] = [[0x03, 0x40], [0x47, 0x0d, 0]];
const BLOCK_END = 0x0b;
const [I32, V128] = [0x7f, 0x7b];

const range = (length, from) => Array.from({ length }, (_, i) => from(i)).flat();
const forSums = (from) => range(NUM_FILTERS, (f) => range(NUM_VECTORS, (v) => from(f, v)));
const number = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...number(value >> 7)]);
const section = (id, content) => [id, ...number(content.length), ...content];

const code = [
  ...LOOP,
  ...get(OFFSETS), ...LOAD_NUMBER, ...get(START), ADD_NUMBERS, ...set(ADDRESS),
  ...range(NUM_VECTORS, (v) => [...get(ADDRESS), ...load(16 * v), ...set(factorOf(v))]),
  ...range(NUM_FILTERS, (f) => [
    ...get(FILTERS), ...loadForAll(4 * f), ...set(WEIGHT),
    ...range(NUM_VECTORS, (v) => [
      ...get(sumOf(f, v)), ...get(WEIGHT), ...get(factorOf(v)), ...MULTIPLY, ...ADD, ...set(sumOf(f, v)),
    ]),
  ]),
  ...advance(FILTERS, 4 * NUM_FILTERS),
  ...advance(OFFSETS, 4),
  ...get(OFFSETS), ...get(END), ...AGAIN_IF_NOT_EQUAL,
  BLOCK_END,
  ...forSums((f, v) => [...get(SUMS), ...get(sumOf(f, v)), ...store(16 * (f * NUM_VECTORS + v))]),
  BLOCK_END,
];
const variables = [2, 1, I32, NUM_FILTERS * NUM_VECTORS + NUM_VECTORS + 1, V128];
const program = Uint8Array.from([
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
  ...section(1, [1, 0x60, 5, I32, I32, I32, I32, I32, 0]), // a function of five numbers
  ...section(2, [1, 1, 0x6d, 1, 0x6d, 2, 0, 1]), // memory imported as m.m
  ...section(3, [1, 0]),
  ...section(7, [1, 1, 0x66, 0, 0]), // the function exported as f
  ...section(10, [1, ...number(variables.length + code.length), ...variables, ...code]),
]);

/**
 * Compute, of NUM_FILTERS filters at NUM_PLACES places side by side, sums of products.
 *
 * All arguments are places in `memory`, in bytes.
 *
 * @param filters for each term NUM_FILTERS weights.
 * @param offsets for each term the offset of its factors from `start`: NUM_PLACES, side by side.
 * @param end of the offsets.
 * @param start of the factors.
 * @param sums results, those of the first filter first.
 */
export const addProducts = new WebAssembly.Instance(new WebAssembly.Module(program), {
  m: { m: memory },
}).exports.f;

// The drawing page: sends the drawing to a reader on every change and shows the answer.

import { onPicture } from "./pictures.js";

const SIDE = 280; // of the paper, in its own pixels: what strokes are measured in and what is read
const UNSURE = 0.9; // what is read with a smaller probability is marked, as `predict` does
const MAX_BYTES = 5_000_000; // the server takes no more ...
const MAX_PIXELS = 25_000_000; // ... nor of these
const READ = /^image\/(png|jpeg|webp|bmp|gif|tiff)$/; // what the server reads
const MAX_SIDE = 1600; // the server looks at no more pixels than these along the longest side
const RETRY_MS = 1000;

const element = (id) => document.getElementById(id);
const paper = element("paper");
const context = paper.getContext("2d");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// --- who reads

let reader = null;

/**
 * Start the page.
 *
 * @param given `read(drawn, signal)`, from a canvas of SIDE x SIDE pixels, or from a picture's file,
 *   to the answer, `{ number, digits, note, problem }`, where a digit's `image` and `feature_maps`
 *   are bytes; if it throws, it is tried again after the error's `retryMs`.
 */
export function start(given) {
  reader = given;
  showAnswer();
}

/** Show a status message. */
export function say(text) {
  if (element("status").textContent !== text) element("status").textContent = text;
}

// --- what is on the paper: strokes, or a picture; never changed but by the pen that is down

const BLANK = { strokes: [], picture: null };
const NOTHING = { number: "", digits: [] };
let state = BLANK;
let past = []; // the states before, for undo
let pen = null; // the pointer that draws
let answer = NOTHING;
let selected = 0; // the digit whose probabilities are shown
let picked = false; // by hand: it stays selected until the next stroke

const isBlank = () => !state.strokes.length && !state.picture;

function become(next) {
  state = next;
  pen = null; // a stroke that is just being drawn ends here
  // What was asked before is not about this: its answer must not be shown.
  request?.abort();
  show(NOTHING);
  changed();
}

function undo() {
  if (past.length) become(past.pop());
}

function clear() {
  if (isBlank()) return;
  past.push(state);
  become(BLANK);
}

async function open(file) {
  const bitmap = await createImageBitmap(file).catch(() => null); // TIFF: read, but not shown
  const picture = { blob: file, bitmap, width: bitmap?.width, height: bitmap?.height };
  const isTooLarge = file.size > MAX_BYTES || bitmap?.width * bitmap?.height > MAX_PIXELS;
  if (bitmap && (isTooLarge || !READ.test(file.type))) {
    const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
    const small = document.createElement("canvas");
    picture.width = small.width = Math.max(1, Math.round(bitmap.width * scale));
    picture.height = small.height = Math.max(1, Math.round(bitmap.height * scale));
    small.getContext("2d").drawImage(bitmap, 0, 0, small.width, small.height);
    const form = file.type === "image/jpeg" ? file.type : "image/webp"; // JPEG has no transparency
    picture.blob = await new Promise((resolve) => small.toBlob(resolve, form, 0.92));
  }
  if (bitmap) picture.paper = contrasting(bitmap);
  past.push(state);
  become({ strokes: [], picture });
}

/** What a picture that is mostly transparent needs behind it: white or black, as for the server. */
export function contrasting(bitmap) {
  const thumbnail = Object.assign(document.createElement("canvas"), { width: 32, height: 32 });
  const context = thumbnail.getContext("2d");
  context.drawImage(bitmap, 0, 0, 32, 32);
  const { data } = context.getImageData(0, 0, 32, 32);
  let light = 0;
  let opacity = 0;
  for (let i = 0; i < data.length; i += 4) {
    light += (data[i + 1] - 128) * data[i + 3];
    opacity += data[i + 3] / (32 * 32);
  }
  if (opacity > 127) return "transparent";
  return light < 0 ? "white" : "black";
}

// --- the pen

const position = (event) => {
  const { left, top, width } = paper.getBoundingClientRect();
  return { x: ((event.clientX - left) * SIDE) / width, y: ((event.clientY - top) * SIDE) / width };
};

paper.addEventListener("pointerdown", (event) => {
  if (pen !== null || event.button !== 0) return;
  event.preventDefault();
  const at = position(event);
  if (state.picture) return pick(answer.digits.findIndex(({ box }) => contains(onPaper(box), at)));
  pen = event.pointerId;
  paper.setPointerCapture(pen);
  past.push(state);
  state = { ...state, strokes: [...state.strokes, { width: element("width").valueAsNumber, points: [at] }] };
  picked = false;
  changed();
});

paper.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pen) return;
  const between = event.getCoalescedEvents?.() ?? []; // every place since the last frame
  state.strokes.at(-1).points.push(...(between.length ? between : [event]).map(position));
  changed();
});

for (const end of ["pointerup", "pointercancel"]) {
  paper.addEventListener(end, (event) => {
    if (event.pointerId !== pen) return;
    pen = null;
    showVerdict();
  });
}

// --- asking: one request at a time, always about the newest state

let version = 0; // of what is on the paper
let answered = 0; // the version whose answer is shown
let request = null; // the AbortController of the one in flight

function changed() {
  version += 1;
  document.body.classList.toggle("used", !isBlank());
  document.body.classList.toggle("shown", state.picture !== null);
  element("undo").disabled = !past.length;
  element("clear").disabled = isBlank();
  if (document.activeElement?.disabled) element("open").focus(); // else the focus would be lost
  redraw();
  if (!request) ask();
}

async function ask() {
  while (answered !== version) {
    const asked = version;
    request = new AbortController();
    const { signal } = request;
    try {
      const drawn = state.picture?.blob ?? drawing();
      const read = isBlank() ? NOTHING : await reader.read(drawn, signal);
      if (signal.aborted) continue;
      answered = asked;
      show(read);
    } catch (error) {
      if (signal.aborted) continue;
      await sleep(error.retryMs ?? RETRY_MS);
    }
  }
  request = null;
  showVerdict();
}

const sheet = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
const ink = sheet.getContext("2d", { alpha: false, willReadFrequently: true });

/** The strokes, black on white whatever the page's colours are. */
function drawing() {
  ink.fillStyle = "white";
  ink.fillRect(0, 0, SIDE, SIDE);
  drawStrokes(ink, "black");
  return sheet;
}

// --- showing what is on the paper

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function drawStrokes(target, style) {
  target.strokeStyle = style;
  target.lineCap = target.lineJoin = "round";
  for (const { width, points } of state.strokes) {
    target.lineWidth = width;
    target.beginPath();
    target.moveTo(points[0].x, points[0].y);
    // From middle to middle of the lines between the points, bent towards them: no corners.
    for (let i = 1; i < points.length; i++) {
      const [from, to] = [points[i - 1], points[i]];
      target.quadraticCurveTo(from.x, from.y, (from.x + to.x) / 2, (from.y + to.y) / 2);
    }
    target.lineTo(points.at(-1).x, points.at(-1).y);
    target.stroke();
  }
}

/** How a picture lies on the paper: whole, in its middle. */
function placed({ width, height }) {
  const scale = SIDE / Math.max(width, height);
  return { scale, left: (SIDE - width * scale) / 2, top: (SIDE - height * scale) / 2 };
}

/** A box of the answer, in the paper's pixels. */
function onPaper(box) {
  if (!state.picture) return box;
  const { scale, left, top } = placed(state.picture);
  return box.map((edge, i) => edge * scale + (i % 2 ? top : left));
}

const contains = ([left, top, right, bottom], { x, y }) =>
  left <= x && x < right && top <= y && y < bottom;

let isWaiting = false;
function redraw() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    const scale = paper.width / SIDE;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, SIDE, SIDE);
    if (state.picture?.bitmap) {
      const { scale, left, top } = placed(state.picture);
      const { bitmap, width, height, paper } = state.picture;
      context.fillStyle = paper;
      context.fillRect(left, top, width * scale, height * scale);
      context.drawImage(bitmap, left, top, width * scale, height * scale);
    }
    drawStrokes(context, colour("--ink"));
    if (!state.picture || state.picture.bitmap) answer.digits.forEach(drawBox);
  });
}

function drawBox({ digit, confidence, box }, index) {
  const [left, top, right, bottom] = onPaper(box);
  const pixel = SIDE / paper.clientWidth; // of the screen
  const gap = 6 * pixel;
  context.globalAlpha = index === selected ? 1 : 0.6;
  context.strokeStyle = context.fillStyle = colour(
    confidence < UNSURE ? "--unsure" : index === selected ? "--accent" : "--quiet",
  );
  context.lineWidth = (index === selected ? 2 : 1.25) * pixel;
  context.setLineDash(confidence < UNSURE ? [6 * pixel, 4 * pixel] : []);
  context.beginPath();
  context.roundRect(left - gap, top - gap, right - left + 2 * gap, bottom - top + 2 * gap, gap);
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
  context.font = `600 ${14 * pixel}px system-ui, sans-serif`;
  const above = top - gap - 5 * pixel;
  context.fillText(digit, left - gap + 2 * pixel, above > 12 * pixel ? above : bottom + gap + 16 * pixel);
}

function fit() {
  paper.width = paper.height = Math.round(paper.clientWidth * devicePixelRatio);
  redraw();
}

/** Redraw when the pixel ratio changes. */
function watchPixels() {
  const pixels = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);
  pixels.addEventListener("change", () => (fit(), watchPixels()), { once: true });
}

new ResizeObserver(fit).observe(paper);
watchPixels();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// --- showing the answer

function show(next) {
  answer = next;
  const last = state.strokes.at(-1)?.points.at(-1);
  if (!picked && last) selected = answer.digits.findIndex(({ box }) => contains(box, last));
  if (!answer.digits[selected]) selected = answer.digits.length - 1;
  showAnswer();
}

function pick(index) {
  if (index < 0) return;
  selected = index;
  picked = true;
  showAnswer();
}

function showAnswer() {
  showNumber();
  showVerdict();
  showChances();
  showInside();
  redraw();
}

function showNumber() {
  const number = element("number");
  const characters = [...answer.number];
  if (number.textContent !== answer.number) {
    number.style.setProperty("--length", Math.max(1, characters.length));
    number.replaceChildren(
      ...characters.map((character) => {
        const part = document.createElement(character === " " ? "span" : "button");
        part.textContent = character;
        return part;
      }),
    );
    for (const [index, button] of number.querySelectorAll("button").entries()) {
      button.addEventListener("click", () => pick(index));
    }
  }
  for (const [index, button] of number.querySelectorAll("button").entries()) {
    button.ariaPressed = index === selected;
    button.classList.toggle("unsure", answer.digits[index].confidence < UNSURE);
  }
}

const percent = (share) => (share < 0.99 ? Math.round(100 * share) : Math.floor(1000 * share) / 10);

/** How sure the number is; `spoken` once nothing moves any more. */
function showVerdict() {
  const isSettled = pen === null && !request && !isBlank();
  const confidence = answer.digits.reduce((product, digit) => product * digit.confidence, 1);
  const isUnsure = confidence < UNSURE;
  let text = `${percent(confidence)} % ${isUnsure ? "– not sure" : "sure"}`;
  if (!answer.number) text = answer.problem ?? (isSettled ? "no digit found" : "");
  if (answer.note) text += `; ${answer.note}`;
  if (isBlank()) text = "The answer appears here while you draw";
  element("verdict").textContent = text;
  element("verdict").classList.toggle("unsure", isUnsure || Boolean(answer.problem));
  if (isSettled) element("spoken").textContent = `${answer.number} ${text}`;
  if (isBlank()) element("spoken").textContent = "";
}

const bars = [...Array(10).keys()].map((digit) => {
  const bar = document.createElement("li");
  for (const tag of ["span", "i", "b"]) bar.append(document.createElement(tag));
  bar.lastChild.textContent = digit;
  element("bars").append(bar);
  return bar;
});

function showChances() {
  const digit = answer.digits[selected];
  bars.forEach((bar, index) => {
    const share = digit?.probabilities[index] ?? 0;
    bar.style.setProperty("--share", share);
    bar.firstChild.textContent = share < 0.005 ? "" : percent(share);
    bar.classList.toggle("most", index === digit?.digit);
    bar.classList.toggle("unsure", digit?.confidence < UNSURE);
  });
}

// --- corrections

let teacher = null;
let kept = null; // the last one: its name, and the answers before and after it

/**
 * Let digits be corrected.
 *
 * @param given `correct(image, digit)`, which keeps a correction and returns its name;
 *   `takeBack(name)`; and `collect`, which says where corrections are kept.
 */
export function enableCorrections(given) {
  teacher = given;
  document.body.classList.add("teaching");
  element("teach").hidden = false;
  bars.forEach((bar, digit) => {
    bar.tabIndex = 0;
    bar.role = "button";
    bar.ariaLabel = `It is a ${digit}`;
    bar.addEventListener("click", () => teach(digit));
    bar.addEventListener("keydown", ({ key }) => key === "Enter" && teach(digit));
  });
  element("untaught").addEventListener("click", undoCorrection);
  showTaught(`Wrong? Tap the right digit above: it is kept in ${teacher.collect} on the server's machine.`);
}

async function teach(digit) {
  const chosen = answer.digits[selected];
  if (!chosen?.image.length) return;
  const before = answer;
  const name = await teacher.correct(chosen.image, digit).catch((error) => showTaught(error.message));
  if (!name || answer !== before) return;
  const digits = answer.digits.with(selected, { ...chosen, digit, confidence: 1 });
  const each = digits.values();
  const number = answer.number.replace(/\d/g, () => each.next().value.digit);
  answer = { ...answer, digits, number };
  kept = { name, before, after: answer };
  picked = true;
  showAnswer();
  showTaught(`Kept as ${digit}.`);
}

async function undoCorrection() {
  const undone = kept;
  if (!undone) return; // clicked twice
  kept = null;
  try {
    await teacher.takeBack(undone.name);
  } catch {
    kept = undone;
    return showTaught("The server does not answer.");
  }
  if (answer === undone.after) answer = undone.before;
  showAnswer();
  showTaught("Taken back.");
}

function showTaught(text) {
  element("teach").firstElementChild.textContent = text;
  element("untaught").hidden = !kept;
}

// --- inside the network

const WHITE = [[20, 18, 30], [255, 255, 255]]; // ink 1, paper 0
const GLOW = [[20, 18, 30], [86, 40, 120], [205, 72, 92], [250, 164, 82], [253, 246, 205]];

function showInside() {
  const digit = answer.digits[selected];
  const maps = element("maps");
  const values = digit?.feature_maps ?? Array(maps.childElementCount || 10).fill([]);
  while (maps.childElementCount < values.length) {
    maps.append(document.createElement("canvas"));
    maps.style.setProperty("--columns", Math.ceil(Math.sqrt(2 * values.length)));
  }
  maps.parentElement.hidden = !values.length; // a network without convolutions
  paint(element("seen"), digit?.image ?? [], WHITE);
  values.forEach((map, index) => paint(maps.children[index], map, GLOW));
}

/** The values of a square, from 0 to 255, row by row, in colours between those given. */
function paint(canvas, values, colours) {
  canvas.width = canvas.height = Math.sqrt(values.length) || 1;
  const target = canvas.getContext("2d");
  const image = target.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    const place = ((values[i] ?? 0) / 255) * (colours.length - 1);
    const [low, high] = [colours[Math.floor(place)], colours[Math.ceil(place)]];
    const mixed = low.map((part, c) => part + (high[c] - part) * (place % 1));
    image.data.set([...mixed, 255], 4 * i);
  }
  target.putImageData(image, 0, 0);
}

// --- buttons, keys and pictures

element("undo").addEventListener("click", undo);
element("clear").addEventListener("click", clear);
onPicture(open);

addEventListener("keydown", (event) => {
  const isUndo = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
  if (isUndo) undo();
  else if (event.key === "Delete" || event.key === "Backspace") clear();
  else return;
  event.preventDefault();
});

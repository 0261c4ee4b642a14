// The page that `export` writes: networks inside it read, in a Web Worker.

import { contrasting, say, start } from "../../serve/page/page.js";

const NOT_SHOWN = "this browser does not show such pictures: mnist-lit predict reads them";
const textOf = (id) => document.getElementById(id).textContent;
const url = URL.createObjectURL(new Blob([textOf("worker")], { type: "text/javascript" }));
const policy = globalThis.trustedTypes?.createPolicy("worker", { createScriptURL: (given) => given });
let worker = null;

function startWorker() {
  worker = new Worker(policy?.createScriptURL(url) ?? url);
  worker.postMessage(textOf("networks"));
}

function stopWorker() {
  worker.terminate();
  worker = null;
}

/** Read a canvas or a picture's file; stop reading when nobody waits for the answer any more. */
async function read(drawn, signal) {
  const pixels = await pixelsOf(drawn);
  signal.throwIfAborted();
  if (!pixels) return { number: "", digits: [], problem: NOT_SHOWN };
  if (!worker) startWorker();
  if (drawn instanceof Blob) say("Reading…");
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message }) => {
      stopWorker();
      resolve({ number: "", digits: [], problem: message });
    };
    signal.addEventListener("abort", () => {
      stopWorker();
      reject(signal.reason);
    });
    worker.postMessage(pixels, [pixels.data.buffer]);
  }).finally(() => say(""));
}

async function pixelsOf(drawn) {
  if (drawn instanceof HTMLCanvasElement) return imageData(drawn.getContext("2d"));
  const bitmap = await createImageBitmap(drawn, { colorSpaceConversion: "none" }).catch(() => null);
  if (!bitmap) return null;
  const { width, height } = bitmap;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = contrasting(bitmap) === "black" ? "black" : "white"; // where it is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  return imageData(context);
}

function imageData(context) {
  const { width, height, data } = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
  return { width, height, data };
}

start({ read });

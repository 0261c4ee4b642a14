// The page that `export` writes: a network in it reads.

import { say, start } from "../../serve/page/page.js";
import { grey } from "./arrays.js";
import { readCanvas } from "./classifier.js";
import { Network } from "./network.js";

const network = new Network(JSON.parse(document.getElementById("network").textContent));

/** What a canvas says, black on white. */
async function read(canvas) {
  say("");
  await new Promise((resolve) => setTimeout(resolve)); // what the pen did meanwhile comes first
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const strength = grey(width, height);
  for (let i = 0; i < width * height; i++) strength.data[i] = 1 - data[4 * i] / 255;
  return readCanvas(network, strength);
}

start({ read, withoutPictures: "This page reads what is drawn; mnist-lit serve reads pictures too" });

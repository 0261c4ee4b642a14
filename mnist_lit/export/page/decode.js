// From a browser's pixels to planes of grey: what reading/decode.py does.

import { grey, map } from "./arrays.js";
import { byAreas, reduced } from "./resize.js";

/**
 * Reduce a picture to `WORK_PX` along its longest side.
 *
 * @param picture `{ width, height, data }`, data RGBA without transparency, as `ImageData` has it.
 * @returns `planes`, one if the picture is grey, else three, in [0, 1]; and `downscale`, how many
 *   pixels of the picture one of theirs stands for.
 */
export function decode({ width, height, data }) {
  const numPlanes = isGrey(data) ? 1 : 3;
  const planes = Array.from({ length: numPlanes }, (_, colour) => {
    const plane = new Uint8Array(width * height);
    for (let i = 0; i < plane.length; i++) plane[i] = data[4 * i + colour];
    const small = reduced(grey(width, height, plane), WORK_PX, byAreas);
    return map(small, (value) => Math.round(value) / 255);
  });
  return { planes, downscale: Math.max(width, height) / Math.max(planes[0].width, planes[0].height) };
}

function isGrey(data) {
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return false;
  }
  return true;
}

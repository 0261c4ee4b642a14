// The order of reading, as `text_lines` in reading/result.py.

import { mean } from "./arrays.js";

/**
 * Group boxes into lines of writing, which may slope.
 *
 * @returns indices of the boxes of each line from left to right, lines from top to bottom.
 */
export function textLines(boxes) {
  const overlap = (line, [, top, , bottom]) => {
    const [, from, , to] = boxes[line.at(-1)];
    return (Math.min(bottom, to) - Math.max(top, from)) / Math.min(bottom - top, to - from);
  };
  const found = [];
  const centre = (index) => boxes[index][0] + boxes[index][2];
  for (const index of [...boxes.keys()].sort((a, b) => centre(a) - centre(b))) {
    const shares = found.map((line) => overlap(line, boxes[index]));
    const most = Math.max(...shares);
    if (most >= MIN_LINE_OVERLAP) found[shares.indexOf(most)].push(index);
    else found.push([index]);
  }
  const height = (line) => mean(line.map((index) => boxes[index][1] + boxes[index][3]));
  return found.sort((a, b) => height(a) - height(b));
}

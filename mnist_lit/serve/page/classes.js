// The page of a network that was not trained on digits: the class of a picture.

import { onPicture } from "./pictures.js";

const TIMEOUT_MS = 15_000;
const MOST_SHOWN = 10; // classes

const at = (id) => document.getElementById(id);
const say = (text) => (at("status").textContent = text);
const percent = (share) => `${(100 * Math.min(share, 0.999)).toFixed(1)} %`;

let asking = new AbortController();

async function classify(file) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  URL.revokeObjectURL(at("shown").src);
  at("shown").src = URL.createObjectURL(file);
  at("shown").hidden = false;
  say("Classifying…");
  show({ class: "", probabilities: {} });
  try {
    const limited = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
    const response = await fetch("predict", { method: "POST", body: file, signal: limited });
    const answer = await response.json();
    say(response.ok ? "" : String(answer.detail));
    if (response.ok) show(answer);
  } catch {
    if (!signal.aborted) say("The server does not answer.");
  }
}

function show(answer) {
  at("label").textContent = answer.class;
  const bars = Object.entries(answer.probabilities).slice(0, MOST_SHOWN).map(([name, share]) => {
    const bar = document.createElement("li");
    for (const [part, text] of [["name", name], ["bar", ""], ["share", percent(share)]]) {
      const span = bar.appendChild(document.createElement("span"));
      span.className = part;
      span.textContent = text;
    }
    bar.style.setProperty("--share", share);
    bar.firstChild.title = name;
    return bar;
  });
  at("classes").replaceChildren(...bars);
}

async function introduce() {
  const { classes, preprocessing } = await (await fetch("network")).json();
  const names = classes.length > 12 ? `${classes.length} classes` : classes.join(", ");
  const { size, mode, fit } = preprocessing;
  const colour = mode === "L" ? "grey" : "in colour";
  const ends = fit === "pad" ? "black is added" : "longer ends are cut off";
  at("expected").textContent =
    `Drop a picture of: ${names}. The network sees it in ${size} by ${size} pixels, ${colour}; ${ends}.`;
}

onPicture(classify);
introduce();

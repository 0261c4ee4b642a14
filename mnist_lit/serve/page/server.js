// The page of `serve`: the server reads.

import { enableCorrections, say, start } from "./page.js";

const TIMEOUT_MS = 15_000;
const HEARTBEAT_MS = 3000;

let waiting = 0; // for so many answers

/** The server's answer; an error of the picture is an answer too, `{ problem }`. */
async function read(drawn, signal) {
  waiting += 1;
  try {
    const body = drawn instanceof HTMLCanvasElement ? await asPng(drawn) : drawn;
    const limited = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
    const response = await fetch("predict?details=true", { method: "POST", body, signal: limited });
    setGone(false);
    if (response.headers.has("Retry-After")) {
      const retryMs = 1000 * response.headers.get("Retry-After");
      throw Object.assign(new Error("busy"), { retryMs });
    }
    const content = await response.json();
    if (!response.ok) return { number: "", digits: [], problem: String(content.detail) };
    return { ...content, digits: content.digits.map(unpacked) };
  } catch (error) {
    const isGone = error instanceof TypeError || error.name === "TimeoutError";
    if (isGone && !signal.aborted) setGone(true);
    throw error;
  } finally {
    waiting -= 1;
  }
}

const asPng = (canvas) => new Promise((resolve) => canvas.toBlob(resolve));

const unpacked = (digit) => ({
  ...digit,
  image: bytes(digit.image ?? ""),
  feature_maps: digit.feature_maps?.map(bytes),
});

const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

const setGone = (gone) => say(gone ? "The server does not answer. Waiting for it…" : "");

setInterval(async () => {
  if (waiting || document.hidden) return;
  const signal = AbortSignal.timeout(HEARTBEAT_MS);
  setGone(!(await fetch("healthz", { signal }).catch(() => null)));
}, HEARTBEAT_MS);

async function correct(image, digit) {
  const response = await fetch(`corrections/${digit}`, { method: "POST", body: image });
  const content = await response.json();
  if (!response.ok) throw new Error(content.detail);
  return content.name;
}

const takeBack = (name) => fetch(`corrections/${name}`, { method: "DELETE" });

start({ read });
const { collect } = await fetch("network").then((response) => response.json()).catch(() => ({}));
if (collect) enableCorrections({ correct, takeBack, collect });

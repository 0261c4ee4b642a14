// Reads apart from the page, so that drawing stays smooth: first come the networks, then pictures.

import { loadNetworks, read } from "./classifier.js";

let networks = null;

onmessage = ({ data }) => {
  if (networks) postMessage(read(networks, data));
  else networks = loadNetworks(data);
};
